"""All compiler options, the width of vectors, and where compiled kernels are kept.

A kernel is compiled when it is first needed and kept on disk: in the user's cache folder, under a
name made of the version, a hash of the kernels' sources and the CPU. So an edit, an update or
another machine never meets stale code. Numba's own cache does not see an edit in a file that a
kernel only inlines from, and lays its files beside the sources or where the host process says.
Where the user's cache folder cannot be written to, a temporary folder takes its place.

Environment:

- ``STREAMRNN_SIMD=4|8|16``    floats in a vector; default: what the CPU has. Changes no bit.
- ``STREAMRNN_BOUNDSCHECK=1``  every load and store of a kernel is checked and raises IndexError.
"""

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numba.extending
from numba.core import compiler, registry, serialize
from numba.core.compiler_lock import global_compiler_lock
from numba.core.runtime.nrt import rtsys

from streamrnn import __version__
from streamrnn.errors import ConfigError

_LOGGER = logging.getLogger("streamrnn.simd")
CHECKED = os.environ.get("STREAMRNN_BOUNDSCHECK") == "1"
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "boundscheck": CHECKED,
    "no_cfunc_wrapper": True,
}

_njit: Any = numba.njit  # its type stubs do not know all options
kernel: Any = _njit(**_OPTIONS)
"""Decorator for what is called from Python."""
inline: Any = _njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)
"""Decorator for what kernels are made of."""
inline_always: Any = _njit(inline="always", **_OPTIONS)
"""Decorator for a large function that is called once: compiled only as part of its caller."""
intrinsic: Any = numba.extending.intrinsic
"""Decorator for what is written in LLVM."""

_lock = threading.RLock()


@functools.cache
def width() -> int:
    """Floats in a vector: 16 with AVX-512, 8 with AVX2, else 4."""
    forced = os.environ.get("STREAMRNN_SIMD", "")
    if forced:
        if forced not in ("4", "8", "16"):
            raise ConfigError(f"STREAMRNN_SIMD must be 4, 8 or 16, received {forced!r}")
        return int(forced)
    features = _cpu()[2]
    if "+avx512f" in features:
        return 16
    return 8 if "+avx2" in features else 4


@functools.cache
def registers() -> int:
    """Vector registers that a tile can use."""
    triple, _, features = _cpu()
    return 32 if "+avx512vl" in features or not triple.startswith(("x86", "i")) else 16


def _cpu() -> tuple[str, str, str]:
    """Triple, CPU and features that Numba compiles for."""
    triple, cpu, features = registry.cpu_target.target_context.codegen().magic_tuple()
    return triple, cpu, features


def compiled(name: str, build: Callable[[], Any], signature: Any) -> Callable[..., Any]:
    """The machine code of a kernel: from this process, from disk, or compiled now.

    `name` says all that `build` depends on beside the sources. The function that is returned
    converts its arguments to `signature` and checks no type: flags of arrays do not matter to it.
    """
    with _lock:
        if name not in _loaded:
            _loaded[name] = _load(name) or _compile(name, build(), signature)
        entry: Callable[..., Any] = _loaded[name].entry_point
        return entry


_loaded: dict[str, Any] = {}


def kept() -> dict[str, Path | None]:
    """The kernels that this process has, and the file that another one loads each from; None: it
    has to compile."""
    return {
        name: next((file for f in folders() if _is_sound(file := f / f"{name}.bin")), None)
        for name in _loaded
    }


def _is_sound(path: Path) -> bool:
    """Whether there is a kernel that was kept whole, by someone who is trusted."""
    try:
        return _read(path) is not None
    except ValueError:
        return False


def _renew_lock() -> None:
    """In a forked process: another thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _compile(name: str, dispatcher: Any, signature: Any) -> Any:
    if not hasattr(dispatcher, "compile"):
        raise ConfigError(
            "streamrnn's kernels are vector code that only exists compiled: unset NUMBA_DISABLE_JIT"
        )
    _LOGGER.debug("compiling %s", name)
    dispatcher.compile(signature)
    (result,) = dispatcher.overloads.values()
    _keep(f"{name}.bin", serialize.dumps(result._reduce()))
    return result


def _keep(name: str, content: bytes) -> None:
    """Write a file into the first folder that takes it; its checksum goes in front."""
    content = hashlib.sha256(content).digest() + content
    for folder in folders():
        partial = folder / f"{name}.{uuid.uuid4().hex}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=_mode(folder))
            partial.write_bytes(content)
            partial.chmod(0o644)
            partial.replace(folder / name)
        except OSError as error:
            _warn_of_folder(folder, error)
            with contextlib.suppress(OSError):
                partial.unlink()
        else:
            return


def _mode(folder: Path) -> int:
    """Others may read what root has compiled for them, but nothing of a temporary folder."""
    return 0o700 if folder == folders()[-1] else 0o755


@functools.cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=5)


def _warn_of_folder(folder: Path, error: OSError) -> None:
    others = [other for other in folders() if other != folder]
    where = f"go to {others[-1]}" if folder != folders()[-1] else "are not kept"
    _warn_once(
        f"cannot write to the cache folder {folder} ({error.strerror}): compiled kernels {where}; "
        "set XDG_CACHE_HOME to a writable folder"
    )


def _load(name: str) -> Any:
    context = registry.cpu_target.target_context
    rtsys.initialize(context)  # memory for arrays; all else of a context is for compiling, 0.3 s
    for folder in folders():
        path = folder / f"{name}.bin"
        try:
            content = _read(path)
            if content is not None:
                with global_compiler_lock:
                    return compiler.CompileResult._rebuild(context, *pickle.loads(content))
        except Exception as error:  # noqa: BLE001 - whatever a damaged file does, compiling cures it
            warnings.warn(f"{path} is damaged ({error}); compiling anew", stacklevel=2)
    return None


def _read(path: Path) -> bytes | None:
    """What `_keep` wrote; None if there is nothing, or if others than the user could write it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read()
    except OSError:
        return None
    if hasattr(os, "getuid") and (status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022):
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError("its checksum is another one")
    return content[32:]


@functools.cache
def folders() -> tuple[Path, ...]:
    """Where compiled kernels may lie, best place first: in the user's cache folder, or, where that
    cannot be written to, in a temporary one."""
    name = f"{__version__}-{_sources()[:16]}-{_target()}"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    found = [Path(tempfile.gettempdir()) / f"streamrnn-{user}" / name]
    with contextlib.suppress(RuntimeError):  # nobody's home
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        found.insert(0, base / "streamrnn" / name)
    return tuple(found)


def _sources() -> str:
    """A hash of every source of this room."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _target() -> str:
    """The CPU's name, and a hash of all else that changes the code."""
    triple, cpu, features = _cpu()
    rest = (triple, features, width(), CHECKED, numba.__version__, sys.version)
    return f"{cpu}-{hashlib.sha256(repr(rest).encode()).hexdigest()[:16]}"
