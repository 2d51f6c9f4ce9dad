"""All compiler options, the width of vectors, and the cache of compiled kernels.

A kernel is compiled on first use and kept on disk: in the user's cache folder, under a name made of
the version, a hash of the kernels' sources and the CPU. So no stale code is loaded after an edit or
an update, or on another machine. Numba's own cache does not notice an edit in a file from which a
kernel only inlines code, and it writes its files beside the sources, or to a folder set by the host
process. If the user's cache folder is not writable, a temporary folder takes its place.

Kernels are machine code, so a file that another user could have placed is not loaded: folder and
file must belong to this user or root, be writable by nobody else, and not be links; the temporary
folder must be this user's alone. The checksum covers the kernel's name, the version and the CPU
besides the code: a file under another kernel's name is not loaded either.

Environment:

- ``STREAMRNN_SIMD=4|8|16``    floats in a vector; default: what the CPU has. Changes no bit.
- ``STREAMRNN_BOUNDSCHECK=1``  every load and store of a kernel is checked; one outside an array
                              raises IndexError.
"""

import contextlib
import errno
import functools
import gc
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numba
import numba.extending
from numba.core import compiler, ir, registry, serialize, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.runtime.nrt import rtsys
from numba.core.typing.templates import Signature

from streamrnn import __version__
from streamrnn.errors import ConfigError
from streamrnn.nn.simd.functions import Inlined as Inlined

try:
    import fcntl
except ImportError:  # Windows: every process compiles for itself
    fcntl = None  # type: ignore[assignment]

_LOGGER = logging.getLogger("streamrnn.simd")
CHECKED = os.environ.get("STREAMRNN_BOUNDSCHECK") == "1"
EntryPoint: TypeAlias = Callable[..., Any]
"""Machine code, to call from Python."""
F = TypeVar("F", bound=Callable[..., object])


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

_njit: Any = numba.njit  # its type stubs do not know all options
kernel: Decorator = _njit(**_OPTIONS)
"""Decorator for functions called from Python."""
bounds_checked: Decorator = _njit(**(_OPTIONS | {"boundscheck": True}))
"""Decorator for a user's function, whose indices may come from data: an index beyond an array
raises IndexError and does not reach other memory."""
uncounted: Decorator = _njit(_nrt=False, forceinline=True, no_cpython_wrapper=True, **_OPTIONS)
"""Decorator for the loops of a kernel, which allocate nothing: Numba does not count references.

The loops become part of the kernel, as must all functions that a kernel calls (`_refuse_calls`). In
other functions, Numba counts references to each array that is passed on inside a loop, by an atomic
instruction that also orders all loads and stores: this takes 50 ns per step of a lone lane.
"""
inline: Decorator = _njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)
"""Decorator for the building blocks of kernels."""
inline_always: Decorator = _njit(inline="always", **_OPTIONS)
"""Decorator for a large function with one caller: compiled only as part of it."""
intrinsic: Callable[..., Inlined] = numba.extending.intrinsic
"""Decorator for functions written in LLVM."""

F1, F2, F3 = (types.Array(types.float32, axes, "C") for axes in (1, 2, 3))
D1, D2 = (types.Array(types.float64, axes, "C") for axes in (1, 2))
I1, U1 = types.Array(types.int64, 1, "C"), types.Array(types.uint64, 1, "C")
"""Numba's types of C-contiguous arrays: float32, float64, int64 and uint64, by number of axes."""
MASK = types.Array(types.boolean, 2, "C")

PATIENCE = 60.0
"""Seconds to wait for another process that compiles a kernel; as that process may be suspended,
this one then compiles the kernel, too."""
_PAUSE = 0.02

_lock = threading.RLock()


@functools.cache
def width() -> int:
    """Return the number of floats in a vector: 16 with AVX-512, 8 with AVX2, else 4.

    STREAMRNN_SIMD overrides it. Raises ConfigError if that is not 4, 8 or 16.
    """
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

    `name` must contain everything that `build` depends on besides the sources. The returned
    function converts its arguments to `signature`; it checks neither types nor flags of arrays.
    """
    global _seconds
    with _lock:
        if name not in _loaded:
            entry = _load(name)
            if entry is None:
                before, began = _seconds, time.perf_counter()
                entry = _compile(name, build, signature)
                _seconds = before + time.perf_counter() - began  # what `build` compiles counts once
            _loaded[name] = entry
        return _loaded[name]


_loaded: dict[str, EntryPoint] = {}
_seconds = 0.0


def on_demand(
    name: str, signature: Signature
) -> Callable[[Callable[..., object]], Callable[[], EntryPoint]]:
    """Declare a kernel without variants: the name then stands for a function that returns its code.

    The kernel is compiled, or loaded, by the first call of this function.
    """
    return lambda function: functools.cache(
        lambda: compiled(name, lambda: kernel(function), signature)
    )


def for_width(
    name: str, signature: Signature, shown: Callable[[Any], str] = str
) -> Callable[[Callable[..., F]], Callable[..., EntryPoint]]:
    """Declare a kernel by a function that makes it for vectors of n floats: (n, *parameters).

    The name then stands for a function of the parameters that returns the kernel's code, as in
    `on_demand`. `shown`: a parameter as part of a file name.
    """

    def declare(make: Callable[..., F]) -> Callable[..., EntryPoint]:
        @functools.cache
        def code(*parameters: Any) -> EntryPoint:
            n = width()
            full = "-".join([f"{name}-{n}", *map(shown, parameters)])
            return compiled(full, lambda: kernel(make(n, *parameters)), signature)

        return code

    return declare


def seconds() -> float:
    """Return the seconds that this process has spent compiling or waiting for others to compile."""
    return _seconds


def kept() -> dict[str, Path | None]:
    """Return the kernels of this process, each with the file that another process can load.

    None: another process has to compile it.
    """
    return {
        name: next((f / f"{name}.bin" for f in _readable() if _is_valid(f, name)), None)
        for name in _loaded
    }


def _is_valid(folder: Path, name: str) -> bool:
    """Return whether a folder has a complete kernel, written by a trusted user."""
    try:
        return _read(folder, name) is not None
    except ValueError:
        return False


def _renew_lock() -> None:
    """Replace the lock in a forked process: another thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _compile(
    name: str, build: Callable[[], Callable[..., object]], signature: Signature
) -> EntryPoint:
    """Compile a kernel, unless another process of this user is doing so: then load its result."""
    place = _place()
    turn = one_at_a_time(place / f"{name}.lock") if place else contextlib.nullcontext(False)
    with turn as waited:
        if waited and (entry := _load(name)):
            return entry
        function: Any = build()
        if not isinstance(function, Dispatcher):
            raise ConfigError(
                "streamrnn's kernels must be compiled by Numba: unset NUMBA_DISABLE_JIT"
            )
        _LOGGER.debug("compiling %s", name)
        with _without_collections(), _sharing_variables():
            function.compile(signature)
        result: Any = function.overloads[signature.args]
        _refuse_calls(name, function.inspect_llvm(signature.args), result.fndesc.llvm_func_name)
        # The last part has the environments of inlined functions, used only by code that prints, or
        # raises with values. Loading them would import Numba's array functions, for 0.1 s.
        *parts, _environments = result._reduce()
        _keep(name, serialize.dumps((*parts, ())))
        entry_point: EntryPoint = result.entry_point
        return entry_point


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[bool]:
    """Hold the lock file at `path`, if its folder can be written to; yield whether others held it.

    After `PATIENCE` seconds, go ahead without the lock. The system releases the lock of a process
    that dies. The file is removed afterwards: others then find the result of the work, and need no
    lock.
    """
    waited, file = False, None
    if fcntl is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            file = path.open("ab")
    if file is None:
        yield False
        return
    with file:
        end = time.monotonic() + PATIENCE
        while not _locked(file.fileno()) and time.monotonic() < end:
            waited = True
            time.sleep(_PAUSE)
        try:
            yield waited
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _locked(descriptor: int) -> bool:
    """Try to take the lock; return whether this process now holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Pause the garbage collector, whose passes take a seventh of the time to compile."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _sharing_variables() -> Iterator[None]:
    """Let Numba copy lists of variables without the variables, to save a fifth of the compile time.

    To inline a function, Numba copies each of its blocks, and with each block all variables of the
    function, which never change. No other thread of the process compiles meanwhile.
    """

    def copied(variables: Any, memo: dict[int, Any]) -> Any:
        memo[id(variables)] = shallow = ir.VarMap()
        shallow._con.update(variables._con)
        return shallow

    lists: Any = ir.VarMap
    with global_compiler_lock:
        lists.__deepcopy__ = copied
        try:
            yield
        finally:
            del lists.__deepcopy__


def _refuse_calls(name: str, code: str, own: str) -> None:
    """Raise RuntimeError if a kernel calls a function besides `own` and Numba's.

    Numba numbers functions per process. So kernels from two processes may contain two functions of
    one name, and a process that loads both kernels would call the first function in both.
    """
    called = set(re.findall(r"\bcall [^@\n]*@(_Z(?!N5numba)[^(\s]*)", code)) - {own}
    if called:
        raise RuntimeError(f"the kernel {name} calls functions that are not inlined: {called}")


def _keep(name: str, code: bytes) -> None:
    """Write a kernel, its checksum first, to the first folder that can be used."""
    place = _place()
    if place != folders()[0]:
        outcome = f"are saved to {place}" if place else "are not saved"
        _warn_of_folder(folders()[0], _hindrance(folders()[0]), outcome)
    if place is None:
        return
    partial = place / f"{name}.{uuid.uuid4().hex}.tmp"
    try:
        private = functools.partial(os.open, mode=0o600)
        with _opened(place), open(partial, "xb", opener=private) as file:
            file.write(_checksum(place, name, code) + code)
            os.fchmod(file.fileno(), 0o644)
        partial.replace(place / f"{name}.bin")
    except OSError as error:
        _warn_of_folder(place, str(error.strerror), "are not saved")
        with contextlib.suppress(OSError):
            partial.unlink()


def _checksum(folder: Path, name: str, code: bytes) -> bytes:
    """Return a hash of a kernel's code and of what it is: its name, version, sources and CPU."""
    digest = hashlib.sha256(f"{folder.name}/{name}".encode() + b"\0")
    digest.update(code)
    return digest.digest()


@functools.cache
def _warn_of_folder(folder: Path, reason: str, outcome: str) -> None:
    """Warn that a cache folder cannot be used, once per process, folder and reason."""
    warnings.warn(
        f"cannot write to the cache folder {folder} ({reason}): compiled kernels {outcome}; set "
        "XDG_CACHE_HOME to a writable folder",
        stacklevel=4,
    )


def _load(name: str) -> EntryPoint | None:
    context = registry.cpu_target.target_context
    rtsys.initialize(context)  # for arrays; the rest of Numba's start, 0.3 s, is only to compile
    for folder in _readable():
        try:
            code = _read(folder, name)
            if code is not None:
                with global_compiler_lock:
                    parts = pickle.loads(code)
                    result: Any = compiler.CompileResult._rebuild(context, *parts)
                entry: EntryPoint = result.entry_point
                return entry
        except Exception as error:  # noqa: BLE001 - any damage is repaired by compiling again
            path = folder / f"{name}.bin"
            warnings.warn(f"{path} is damaged or misnamed ({error}); compiling again", stacklevel=2)
    return None


def _read(folder: Path, name: str) -> bytes | None:
    """Return the code that `_keep` wrote; None if it cannot be read or another user may write it.

    Raises ValueError if the checksum does not match.
    """
    try:
        with _opened(folder) as above:
            descriptor = os.open(f"{name}.bin", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=above)
            with open(descriptor, "rb") as file:
                if not _is_trusted(os.fstat(descriptor)):
                    return None
                content = file.read()
    except OSError:
        return None
    code = content[32:]
    if _checksum(folder, name, code) != content[:32]:
        raise ValueError("its checksum does not match")
    return code


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder of kernels, created if it is missing.

    Raises OSError if another user could write to it: all users can write to the place of the
    temporary folder, so a folder that is there already may be another user's.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    temporary = folder == folders()[-1]
    if temporary:
        folder.parent.mkdir(exist_ok=True, mode=0o700)
        with _closing(os.open(folder.parent, flags)) as above:
            status = os.fstat(above)
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                raise PermissionError(errno.EPERM, f"{folder.parent} is not this user's alone")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if temporary else 0o755)
    with _closing(os.open(folder, flags)) as descriptor:
        if not _is_trusted(os.fstat(descriptor)):
            raise PermissionError(errno.EPERM, "another user can write to it")
        yield descriptor


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_trusted(status: os.stat_result) -> bool:
    """Return whether only this user or root could write to a file or folder."""
    return status.st_uid in (0, os.getuid()) and not status.st_mode & 0o022


def _readable() -> Iterator[Path]:
    """Yield the folders to load from: the temporary one only if the user's cannot be used."""
    yield folders()[0]
    place = _place()
    if place not in (None, folders()[0]):
        yield place


def _place() -> Path | None:
    """Return the folder for new kernels; None if no folder can be used."""
    return next((folder for folder in folders() if not _hindrance(folder)), None)


def _hindrance(folder: Path) -> str:
    """Return why no kernel can be kept in a folder; "" if one can."""
    try:
        with _opened(folder) as descriptor:
            can_write = os.access(".", os.W_OK, dir_fd=descriptor)
    except OSError as error:
        return str(error.strerror)
    return "" if can_write else "no permission"


@functools.cache
def folders() -> tuple[Path, ...]:
    """Return the folders of compiled kernels, in order of preference.

    The user's cache folder, then a temporary one, in case the first is not writable. Without a home
    directory and XDG_CACHE_HOME, there is only the temporary one.
    """
    name = f"{__version__}-{_sources()[:16]}-{_target()}"
    paths = [Path(tempfile.gettempdir()) / f"streamrnn-{os.getuid()}" / name]
    with contextlib.suppress(RuntimeError):  # the user has no home directory
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        paths.insert(0, base / "streamrnn" / name)
    return tuple(paths)


def _sources() -> str:
    """Return a hash of every source of this room."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _target() -> str:
    """Return the CPU's name and a hash of everything else that changes the code."""
    triple, cpu, features = _cpu()
    level = os.environ.get("NUMBA_OPT")
    rest = (triple, features, width(), CHECKED, level, numba.__version__, sys.version)
    return f"{cpu}-{hashlib.sha256(repr(rest).encode()).hexdigest()[:16]}"
