"""All compiler options, the width of vectors, and where compiled kernels are kept.

A kernel is compiled when it is first needed and kept on disk: in the user's cache folder, under a
name made of the version, a hash of the kernels' sources and the CPU. So an edit, an update or
another machine never meets stale code. Numba's own cache does not see an edit in a file that a
kernel only inlines from, and lays its files beside the sources or where the host process says.

Environment:

- ``STREAMRNN_SIMD=4|8|16``    floats in a vector; default: what the CPU has. Changes no bit.
- ``STREAMRNN_BOUNDSCHECK=1``  every load and store of a kernel is checked and raises IndexError.
"""

import contextlib
import functools
import hashlib
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
from numba.core.runtime.nrt import rtsys

from streamrnn import __version__
from streamrnn.errors import ConfigError

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
merge: Any = _njit(inline="always", **_OPTIONS)
"""Decorator for a large function that is called once: compiled only as part of its caller."""
intrinsic: Any = numba.extending.intrinsic
"""Decorator for what is written in LLVM."""

_lock = threading.RLock()


@functools.cache
def simd() -> int:
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


def _compile(name: str, dispatcher: Any, signature: Any) -> Any:
    if not hasattr(dispatcher, "compile"):
        raise ConfigError(
            "streamrnn's kernels are vector code that only exists compiled: unset NUMBA_DISABLE_JIT"
        )
    dispatcher.compile(signature)
    (result,) = dispatcher.overloads.values()
    path = folder() / f"{name}.bin"
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        partial.write_bytes(serialize.dumps(result._reduce()))
        partial.replace(path)
    except OSError as error:
        warnings.warn(f"cannot keep a compiled kernel in {path}: {error}", stacklevel=2)
        with contextlib.suppress(OSError):
            partial.unlink()
    return result


def _load(name: str) -> Any:
    path = folder() / f"{name}.bin"
    context = registry.cpu_target.target_context
    rtsys.initialize(context)  # memory for arrays; all else of a context is for compiling, 0.3 s
    try:
        return compiler.CompileResult._rebuild(context, *pickle.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file does, compiling cures it
        warnings.warn(f"{path} is damaged ({error}); compiling anew", stacklevel=2)
        return None


@functools.cache
def folder() -> Path:
    """Where compiled kernels are kept, made if needed; a private temporary folder if that fails."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(base).expanduser() / "streamrnn" / f"{__version__}-{_sources()[:16]}-{_target()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except (OSError, RuntimeError) as error:
        spare = Path(tempfile.mkdtemp(prefix="streamrnn-kernels-"))
        warnings.warn(
            f"cannot write to the cache folder {path} ({error}): compiled kernels go to {spare} "
            "and the next start compiles again; set XDG_CACHE_HOME to a writable folder",
            stacklevel=2,
        )
        return spare
    return path


def _sources() -> str:
    """A hash of every source of this room."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _target() -> str:
    """The CPU's name, and a hash of all else that changes the code."""
    triple, cpu, features = _cpu()
    rest = (triple, features, simd(), CHECKED, numba.__version__, sys.version)
    return f"{cpu}-{hashlib.sha256(repr(rest).encode()).hexdigest()[:16]}"
