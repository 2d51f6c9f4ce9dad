"""Build what is published, twice, and check it.

python .ci/release.py FOLDER

FOLDER gets the wheel and the sdist of the last commit, and a list of what they were tested with
(CycloneDX). Needs the group `release` of pyproject.toml. What cannot be checked from here is said
as NOT RUN; with AUDIT=required, as in the workflow, that is an error.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
WHEEL_BYTES = 3_000_000
# Has vulnerabilities: an audit that does not report them has not reached what knows them.
VULNERABLE = "requests==2.19.0"


def main(folder: Path) -> None:
    """Run all checks; the first that fails ends the process with its message."""
    version = re.findall(r'^__version__ = "(.*)"', _shown("HEAD", "streamrnn/__init__.py"), re.M)[0]
    with tempfile.TemporaryDirectory() as temporary:
        build_twice(folder, Path(temporary))
    check_contents(folder, version)
    check_tag(version)
    compare_with_the_last_release()
    list_dependencies(folder)
    audit()


def build_twice(folder: Path, work: Path) -> None:
    """Build the last commit, then what its sdist has, in another folder."""
    os.environ["SOURCE_DATE_EPOCH"] = _output("git", "log", "-1", "--format=%ct")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for name in ("commit", "again"):
        (work / name).mkdir()
    archive = work / "commit.tar"
    _output("git", "archive", f"--output={archive}", "HEAD")
    with tarfile.open(archive) as files:
        files.extractall(work / "commit", filter="data")
    _hatch(work / "commit", folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as files:
        files.extractall(work / "again", filter="data")
    (tree,) = (work / "again").iterdir()
    _hatch(tree, work / "second")
    for built in sorted((work / "second").iterdir()):
        if built.read_bytes() != (folder / built.name).read_bytes():
            sys.exit(f"{built.name}: built twice, with different bytes")
        print(f"{built.name}: {built.stat().st_size:,} bytes, equal when built from the sdist")


def check_contents(folder: Path, version: str) -> None:
    """Check name, version, licence and size."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    licence = _shown("HEAD", "LICENSE").encode()
    information = f"streamrnn-{version}.dist-info"
    with zipfile.ZipFile(wheel) as files, tarfile.open(sdist) as sources:
        in_sdist = sources.extractfile(f"streamrnn-{version}/LICENSE")
        assert in_sdist is not None
        assert files.read(f"{information}/licenses/LICENSE") == in_sdist.read() == licence
        metadata = files.read(f"{information}/METADATA").decode()
        assert f"\nVersion: {version}\n" in metadata, metadata
        demo = sum(item.compress_size for item in files.infolist() if "/demo/" in item.filename)
    size = wheel.stat().st_size - demo
    assert size < WHEEL_BYTES, size
    print(f"licence: in both; wheel without the demo: {size:,} bytes of {WHEEL_BYTES:,}")


def check_tag(version: str) -> None:
    """Check that a tag of the last commit is its version."""
    tags = _output("git", "tag", "--points-at", "HEAD", "--list", "v*").split()
    if tags not in ([], [f"v{version}"]):
        sys.exit(f"tag of this commit: expected v{version}, received {', '.join(tags)}")
    print(f"version: {version}, {'as its tag says' if tags else 'without a tag'}")


def compare_with_the_last_release() -> None:
    """Compare what is public with the last tag before this commit."""
    earlier = ["--merged", "HEAD", "--no-contains", "HEAD", "--sort=-v:refname"]
    tags = _output("git", "tag", "--list", "v*", *earlier).split()
    if not tags:
        print("public names: no earlier tag to compare them with")
        return
    old = griffe.load_git("streamrnn", ref=tags[0], repo=ROOT, resolve_aliases=True)
    new = griffe.load("streamrnn", search_paths=[ROOT], resolve_aliases=True)
    broken = [*broken_names(old, new), *missing_rows(tags[0])]
    if broken:
        sys.exit("\n".join([f"public names that {tags[0]} had:", *broken]))
    print(f"public names: those of {tags[0]} are there")


def broken_names(old: griffe.Object | griffe.Alias, new: griffe.Object | griffe.Alias) -> list[str]:
    """Say what the files at the top of the package lost; `griffe check` compares all files."""
    modules = [name for name, part in old.members.items() if _is_public(part)]
    pairs = [(old, new), *((old[name], new[name]) for name in modules if name in new.members)]
    gone = [f"streamrnn.{name}" for name in modules if name not in new.members]
    gone += [
        f"{before.path}.{name}"
        for before, after in pairs
        for name in sorted({*map(str, before.exports or ())} - {*map(str, after.exports or ())})
    ]
    changes = [
        breakage.explain(griffe.ExplanationStyle.ONE_LINE)
        for before, after in pairs[1:]
        for breakage in griffe.find_breaking_changes(before, after)
    ]
    plain = [re.sub(r"\x1b\[\d+m", "", change) for change in changes]
    return [*(f"{name}: removed" for name in gone), *plain]


def _is_public(part: griffe.Object | griffe.Alias) -> bool:
    if part.is_alias or not part.is_module:
        return False
    return Path(str(part.filepath)).parent.name == "streamrnn" or part.name == "optimizers"


def missing_rows(tag: str) -> list[str]:
    """Say what the pages to look up lost: keys, commands, options, exceptions, counters, names."""
    missing = []
    for page in ("keys", "commands", "errors", "counters", "formulas"):
        file = f"streamrnn/guide/{page}.md"
        here = _rows(_shown("HEAD", file))
        missing += [f"{file}: {row}" for row in _rows(_shown(tag, file)) if row not in here]
    return missing


def _rows(page: str) -> list[str]:
    """Return what each row of a page's tables promises, and the text on a summary.

    This is its heading and name; with the exit code of an exception, and the default of a key, and
    whether the key may change between runs.
    """
    heading, rows = "", []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("#"):
            heading = line.strip("# ")
        elif line.startswith("|"):
            name = f"{heading} {cells[0]}"
            rows.append(f"{name} {cells[2] if heading == 'Exceptions' else ''}")
            change = cells[3] if len(cells) > 3 else ""
            if change.startswith(("free", "fixed")):
                rows.append(f"{name} = {cells[2]}")
            if change.startswith("free"):
                rows.append(f"{name} may change between runs")
        elif heading == "In the summary of a run":
            rows += [f"{heading} {name}" for name in re.findall("`.*?`", line)]
    return rows


def list_dependencies(folder: Path) -> None:
    """Write the versions that were tested as CycloneDX."""
    listed = folder / "sbom" / "streamrnn.cdx.json"
    listed.parent.mkdir()
    options = ["--output-reproducible", "--output-format", "JSON", "--output-file", str(listed)]
    _output("cyclonedx-py", "requirements", str(CONSTRAINTS), *options)
    print(f"dependencies: {listed.read_text().count('bom-ref')} in {listed.name}")


def audit() -> None:
    """Look for known vulnerabilities in the versions that were tested."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as vulnerable:
        vulnerable.write(VULNERABLE)
        vulnerable.flush()
        canary = _audit(vulnerable.name)
    if "PYSEC-2018-28" not in canary.stdout:
        print("vulnerabilities: NOT RUN, the service that lists them is not reached from here")
        if os.environ.get("AUDIT") == "required":
            sys.exit(canary.stderr)
        return
    result = _audit(str(CONSTRAINTS))
    print(result.stdout, result.stderr)
    if result.returncode:
        sys.exit("vulnerabilities: take newer versions into .ci/constraints.txt")


def _audit(requirements: str) -> "subprocess.CompletedProcess[str]":
    command = ["pip-audit", "--strict", "--no-deps", "--disable-pip", "--timeout=10"]
    command += ["--requirement", requirements]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _hatch(tree: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder.resolve())]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)


def _shown(commit: str, file: str) -> str:
    return subprocess.run(
        ["git", "show", f"{commit}:{file}"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
