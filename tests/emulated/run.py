"""Run the weather pipeline and all hashes on emulated ARM and here, and compare.

    python tests/emulated/run.py [FOLDER]

Needs an x86-64 Debian with Linux 6.7 or newer, root, and what `hashes.py` needs; some 700 MB and
ten minutes. FOLDER keeps the emulated machine, so that the next run takes half as long. Nothing is
installed: QEMU and debootstrap are unpacked, and the kernel is told of QEMU inside a user
namespace that ends with the run. QEMU_CPU (default neoverse-n1) says which CPU is emulated,
STREAMRNN_SIMD how wide its vectors are; both leave this machine's own run alone.

Ends with 1 if a hash is not the same, or is missing.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("files.py", "hashes.py")
LIBRARIES = ("numpy", "numba", "llvmlite", "pyarrow", "pydantic", "safetensors", "typer")
WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")

# binfmt_misc: the head of an ELF file for AArch64, and which of its bits count. F opens QEMU now,
# so that it need not be there after chroot.
ELF = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
BITS = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
INSIDE = r"""
set -eu
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf '%s' "$handler" > /proc/sys/fs/binfmt_misc/register
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind "$repository" "$root/repository"
mount --rbind "$libraries" "$root/libraries"
exec chroot "$root" /usr/bin/env -i QEMU_CPU="$QEMU_CPU" STREAMRNN_SIMD="$simd" HOME=/root \
    PATH=/usr/bin PYTHONPATH=/repository:/libraries PYTHONDONTWRITEBYTECODE=1 \
    python3 "/repository/tests/emulated/$script"
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def call(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """What a command prints; what it says of errors goes to ours."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def unpack(packages: Sequence[Path], target: Path) -> None:
    for package in packages:
        call("dpkg", "-x", package, target)


def get_tools(folder: Path) -> None:
    """QEMU and debootstrap, unpacked into `folder`."""
    say("tools: qemu-user, debootstrap")
    folder.mkdir()
    call("apt-get", "update")
    call("apt-get", "download", "qemu-user", "debootstrap", cwd=folder)
    unpack(sorted(folder.glob("*.deb")), folder)


def get_root(folder: Path, tools: Path) -> None:
    """A small Debian for ARM with Python, of this machine's release, from its mirror."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    listed = call("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)").splitlines()
    mirror = next(line.split()[1] for line in listed if line.split()[0] == suite)
    say(f"root: Debian {suite} for arm64")
    command = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3,tzdata"]
    scripts = str(tools / "usr/share/debootstrap")
    debootstrap = tools / "usr/sbin/debootstrap"
    call("sh", debootstrap, *command, suite, folder, mirror, DEBOOTSTRAP_DIR=scripts)
    unpack(sorted((folder / "var/cache/apt/archives").glob("*.deb")), folder)
    for name in ("repository", "libraries"):
        (folder / name).mkdir()


def get_libraries(folder: Path, root: Path) -> None:
    """Wheels for the root's Python, of the versions that are installed here."""
    python = next((root / "usr/bin").glob("python3.*[0-9]")).name.removeprefix("python")
    wanted = [f"{name}=={version(name)}" for name in LIBRARIES]
    say(f"libraries for Python {python}: {', '.join(wanted)}")
    platforms = [word for name in WHEELS for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *platforms]
    call(*command, "--only-binary=:all:", "--python-version", python, *wanted)


def emulated(script: str, base: Path) -> str:
    """What a script of this folder prints on the emulated machine."""
    qemu = base / "tools/usr/bin/qemu-aarch64"
    return call(
        *("unshare", "-U", "-m", "--map-users=all", "--map-groups=all", "sh", "-c", INSIDE),
        handler=f":aarch64:M::{ELF}:{BITS}:{qemu}:OCF",
        root=str(base / "root"),
        repository=str(ROOT),
        libraries=str(base / "libraries"),
        script=script,
        simd=os.environ.get("STREAMRNN_SIMD", ""),
        QEMU_CPU=os.environ.get("QEMU_CPU", "neoverse-n1"),
    )


def here(script: str) -> str:
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return call(
        *(sys.executable, Path(__file__).with_name(script)),
        PYTHONPATH=os.pathsep.join(filter(None, places)),
        STREAMRNN_SIMD="",
    )


def table(ours: str, theirs: str) -> tuple[str, bool]:
    """Both machines' hashes side by side, and whether all are the same."""
    a, b = (dict(line.rsplit(" ", 1) for line in text.splitlines()) for text in (ours, theirs))
    rows = [f"| what | {platform.machine()} | aarch64 | same |", "| --- | --- | --- | --- |"]
    for name in {**a, **b}:
        one, two = a.get(name, "missing"), b.get(name, "missing")
        rows.append(f"| {name} | {one[:12]} | {two[:12]} | {'yes' if one == two else 'NO'} |")
    return "\n".join(rows), a == b


def keep(folder: Path, make: Callable[[Path], None]) -> None:
    """Make a folder unless it is there; one that was not finished is made again."""
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        make(partial)
        partial.rename(folder)


def main(base: Path) -> bool:
    base.mkdir(parents=True, exist_ok=True)
    keep(base / "tools", get_tools)
    keep(base / "root", lambda folder: get_root(folder, base / "tools"))
    keep(base / "libraries", lambda folder: get_libraries(folder, base / "root"))
    ours, theirs = "", ""
    for script in SCRIPTS:
        say(f"{script}: here")
        ours += here(script)
        say(f"{script}: emulated")
        theirs += emulated(script, base)
    text, same = table(ours, theirs)
    print(text)
    return same


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(not main(Path(sys.argv[1]).resolve()))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not main(Path(folder)))
