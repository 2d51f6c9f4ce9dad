"""All compiler options, the width of vectors, and the cache of compiled kernels.

A kernel is compiled on first use and kept on disk: in the user's cache folder, under a name made of
the version, a hash of the kernels' sources and the CPU. So an edit, an update or another machine
never loads stale code. Numba's own cache does not notice an edit in a file that a kernel only
inlines from, and writes its files beside the sources or to a folder set by the host process. If the
user's cache folder is not writable, a temporary folder takes its place.

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
import re
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numba
import numba.extending
from numba.core import compiler, registry, serialize
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.runtime.nrt import rtsys
from numba.core.typing.templates import Signature

from streamrnn import __version__
from streamrnn.errors import ConfigError
from streamrnn.simd.turns import one_at_a_time

_LOGGER = logging.getLogger("streamrnn.simd")
CHECKED = os.environ.get("STREAMRNN_BOUNDSCHECK") == "1"
Inlined: TypeAlias = Callable[..., Any]
"""A function that only kernels call: what it takes and returns is a matter of Numba's types."""
EntryPoint: TypeAlias = Callable[..., Any]
"""Machine code, to call from Python."""
F = TypeVar("F", bound=Callable[..., object])


class CompileResult(Protocol):
    """The part of Numba's class that is used here, which has no types."""

    entry_point: EntryPoint


class Decorator(Protocol):
    """A decorator that leaves the signature as it is."""

    def __call__(self, function: F, /) -> F: ...


_OPTIONS: dict[str, bool | str] = {
    "nogil": True,
    "fastmath": False,
    "error_model": "numpy",
    "boundscheck": CHECKED,
    "no_cfunc_wrapper": True,
}

_njit: Callable[..., Decorator] = numba.njit  # its type stubs do not know all options
kernel: Decorator = _njit(**_OPTIONS)
"""Decorator for functions called from Python."""
uncounted: Decorator = _njit(_nrt=False, forceinline=True, no_cpython_wrapper=True, **_OPTIONS)
"""Decorator for the loops of a kernel, which allocate nothing: Numba does not count references.

They become part of the kernel, as all functions that it calls must (`_refuse_calls`). Elsewhere
Numba counts references to an array wherever one is passed on inside a loop, by an atomic
instruction that also orders all loads and stores: 50 ns a step of a lone lane.
"""
inline: Decorator = _njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)
"""Decorator for the building blocks of kernels."""
inline_always: Decorator = _njit(inline="always", **_OPTIONS)
"""Decorator for a large function with one caller: compiled only as part of it."""
intrinsic: Callable[..., Inlined] = numba.extending.intrinsic
"""Decorator for functions written in LLVM."""

_lock = threading.RLock()


@functools.cache
def width() -> int:
    """Return the floats in a vector: 16 with AVX-512, 8 with AVX2, else 4."""
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
    """Return how many vector registers a tile can use."""
    triple, _, features = _cpu()
    return 32 if "+avx512vl" in features or not triple.startswith(("x86", "i")) else 16


def has(feature: str) -> bool:
    """Return whether the CPU has a feature, by LLVM's name for it ("avx2")."""
    return f"+{feature}" in _cpu()[2].split(",")


def _cpu() -> tuple[str, str, str]:
    """Return the triple, CPU and features that Numba compiles for."""
    triple, cpu, features = registry.cpu_target.target_context.codegen().magic_tuple()
    return triple, cpu, features


def compiled(
    name: str, build: Callable[[], Callable[..., object]], signature: Signature
) -> EntryPoint:
    """Return the machine code of a kernel: from this process, from disk, or compiled now.

    `name` must contain everything that `build` depends on besides the sources. The function
    returned converts its arguments to `signature` and checks no type: it ignores flags of arrays.
    """
    global _seconds
    with _lock:
        if name not in _loaded:
            found = _load(name)
            if found is None:
                before, began = _seconds, time.perf_counter()
                found = _compile_in_turn(name, build, signature)
                _seconds = before + time.perf_counter() - began  # those of a `build`, too
            _loaded[name] = found
        entry: EntryPoint = _loaded[name].entry_point
        return entry


_loaded: dict[str, CompileResult] = {}
_seconds = 0.0


def seconds_compiling() -> float:
    """Return the seconds that this process has spent compiling, or waiting for others' results."""
    return _seconds


def kept() -> dict[str, Path | None]:
    """Return the kernels of this process, each with the file that another process can load.

    None: another process has to compile it.
    """
    return {
        name: next((file for f in folders() if _is_valid(file := f / f"{name}.bin")), None)
        for name in _loaded
    }


def _is_valid(path: Path) -> bool:
    """Return whether a file holds a complete kernel, written by a trusted user."""
    try:
        return _read(path) is not None
    except ValueError:
        return False


def _renew_lock() -> None:
    """Replace the lock in a forked process: another thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _compile_in_turn(
    name: str, build: Callable[[], Callable[..., object]], signature: Signature
) -> CompileResult:
    """Compile a kernel, unless another process of this user is doing so: then load its result."""
    with one_at_a_time(folders()[0] / f"{name}.lock") as waited:
        found = _load(name) if waited else None
        return found or _compile(name, build(), signature)


def _compile(name: str, function: Callable[..., object], signature: Signature) -> CompileResult:
    if not isinstance(function, Dispatcher):
        raise ConfigError("streamrnn's kernels must be compiled by Numba: unset NUMBA_DISABLE_JIT")
    _LOGGER.debug("compiling %s", name)
    function.compile(signature)
    result: Any = function.overloads[signature.args]
    _refuse_calls(name, function.inspect_llvm(signature.args), result.fndesc.llvm_func_name)
    # The last part is the environments of inlined functions, which only code that prints, or raises
    # with values, uses. To load those of Numba's array functions takes 0.1 s of imports.
    *parts, _environments = result._reduce()
    _keep(f"{name}.bin", serialize.dumps((*parts, ())))
    return cast(CompileResult, result)


def _refuse_calls(name: str, code: str, own: str) -> None:
    """Raise RuntimeError if a kernel calls a function besides `own`, or those of Numba.

    Numba numbers functions in each process anew. Two kernels that two processes compiled may hold
    different functions of one name, and a process that loads both would call the first for both.
    """
    called = set(re.findall(r"\bcall [^@\n]*@(_Z(?!N5numba)[^(\s]*)", code)) - {own}
    if called:
        raise RuntimeError(f"the kernel {name} calls functions that are not inlined: {called}")


def _keep(name: str, content: bytes) -> None:
    """Write a file, its checksum first, to the first folder that can be written to."""
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
    """Return the mode of a new folder: readable by others, unless it is the temporary one."""
    return 0o700 if folder == folders()[-1] else 0o755


@functools.cache
def _warn_once(text: str) -> None:
    warnings.warn(text, stacklevel=5)


def _warn_of_folder(folder: Path, error: OSError) -> None:
    others = [other for other in folders() if other != folder]
    outcome = f"are saved to {others[-1]}" if folder != folders()[-1] else "are not saved"
    _warn_once(
        f"cannot write to the cache folder {folder} ({error.strerror}): compiled kernels "
        f"{outcome}; set XDG_CACHE_HOME to a writable folder"
    )


def _load(name: str) -> CompileResult | None:
    context = registry.cpu_target.target_context
    rtsys.initialize(context)  # array memory; the rest of a context is for compiling, 0.3 s
    for folder in folders():
        path = folder / f"{name}.bin"
        try:
            content = _read(path)
            if content is not None:
                with global_compiler_lock:
                    parts = pickle.loads(content)
                    return cast(CompileResult, compiler.CompileResult._rebuild(context, *parts))
        except Exception as error:  # noqa: BLE001 - any damage is repaired by compiling again
            warnings.warn(f"{path} is damaged ({error}); recompiling", stacklevel=2)
    return None


def _read(path: Path) -> bytes | None:
    """Return what `_keep` wrote; None if it is missing or could be written by another user."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read()
    except OSError:
        return None
    if hasattr(os, "getuid") and (status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022):
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise ValueError("its checksum does not match")
    return content[32:]


@functools.cache
def folders() -> tuple[Path, ...]:
    """Return the folders of compiled kernels, in order of preference.

    The user's cache folder, then a temporary one, in case the first is not writable.
    """
    name = f"{__version__}-{_sources()[:16]}-{_target()}"
    user = os.getuid() if hasattr(os, "getuid") else "user"
    found = [Path(tempfile.gettempdir()) / f"streamrnn-{user}" / name]
    with contextlib.suppress(RuntimeError):  # the user has no home directory
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        found.insert(0, base / "streamrnn" / name)
    return tuple(found)


def _sources() -> str:
    """Return a hash of every source of this room."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _target() -> str:
    """Return the CPU's name and a hash of everything else that changes the code."""
    triple, cpu, features = _cpu()
    rest = (triple, features, width(), CHECKED, numba.__version__, sys.version)
    return f"{cpu}-{hashlib.sha256(repr(rest).encode()).hexdigest()[:16]}"
