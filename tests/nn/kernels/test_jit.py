"""Where compiled kernels are kept, and that nothing stale or broken is taken from there."""

import contextlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import pytest
from fresh import python
from numba.core import ir
from selection import slow

import streamrnn
from streamrnn.nn.simd import jit, spin_barrier

PACKAGE = Path(streamrnn.__file__).parent
ROOT = PACKAGE.parent

# layer_norm: the smallest kernel
CODE = """
import numpy as np
from streamrnn.nn.kernels import normalization
from streamrnn.nn.simd import jit
x = np.array([[1, 2, 3]], np.float32)
y = normalization.layer_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32), 0.0)
print(f"{y[0, 2]:.4f}", jit.folders()[0])
"""


def start(root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-c", CODE, cwd=root, PYTHONPATH=str(root), **environment)


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "streamrnn").rglob("*.bin"))


def test_kept_in_the_users_cache_under_version_sources_and_cpu(tmp_path: Path) -> None:
    """A second start loads; nothing else is written, no partial file is left."""
    done = start(XDG_CACHE_HOME=str(tmp_path))
    value, folder = done.stdout.split()
    assert value == "1.2247"
    assert done.stderr == ""
    (file,) = kept(tmp_path)
    assert file == Path(folder) / "layer_norm.bin"
    assert file.parent.name.startswith(f"{streamrnn.__version__}-")
    before = file.stat().st_mtime_ns
    assert start(XDG_CACHE_HOME=str(tmp_path)).stdout.split()[0] == "1.2247"
    assert kept(tmp_path) == [file]
    assert file.stat().st_mtime_ns == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@slow
def test_seconds_of_compiling_are_counted(tmp_path: Path) -> None:
    """None where a kernel is loaded. Slow: processes that compile and load."""
    counting = f"{CODE}print(jit.seconds())"
    seconds = []
    for _ in range(2):
        done = python("-c", counting, XDG_CACHE_HOME=str(tmp_path))
        seconds.append(float(done.stdout.split()[-1]))
    assert seconds[0] > 0.05
    assert seconds[1] == 0


@slow
def test_others_can_read_what_is_kept_in_the_users_cache(tmp_path: Path) -> None:
    """Root compiles for the image of a container, whose process is often another user's.

    Slow: a process that compiles.
    """
    mask = os.umask(0o022)
    try:
        start(XDG_CACHE_HOME=str(tmp_path / "cache"))
    finally:
        os.umask(mask)
    (file,) = kept(tmp_path / "cache")
    above = [folder for folder in file.parents if folder.is_relative_to(tmp_path / "cache")]
    assert {folder.stat().st_mode & 0o777 for folder in above} == {0o755}
    assert file.stat().st_mode & 0o777 == 0o644


@slow
@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_damaged_file_is_compiled_anew(tmp_path: Path, damage: str) -> None:
    """Machine code with a wrong byte would end the process, at every start.

    Slow: three processes; a quick test has a damaged file that does not count as kept.
    """
    start(XDG_CACHE_HOME=str(tmp_path))
    (file,) = kept(tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content[:100] if damage == "cut" else content)
    done = start(XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.split()[0] == "1.2247"
    assert "is damaged" in done.stderr
    assert start(XDG_CACHE_HOME=str(tmp_path)).stderr == ""


def test_code_that_others_could_have_written_is_not_run(tmp_path: Path) -> None:
    """It is compiled, and kept in place of theirs; with any umask of one's own."""
    start(XDG_CACHE_HOME=str(tmp_path))
    (file,) = kept(tmp_path)
    file.write_bytes(b"theirs")
    file.chmod(0o666)
    mask = os.umask(0)
    try:
        done = start(XDG_CACHE_HOME=str(tmp_path))
    finally:
        os.umask(mask)
    assert done.stdout.split()[0] == "1.2247"
    assert done.stderr == ""
    assert file.stat().st_mode & 0o777 == 0o644
    before = file.stat().st_mtime_ns
    start(XDG_CACHE_HOME=str(tmp_path))
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "spoiled", ["writable by others", "damaged", "renamed", "a link", "in a folder of others"]
)
def test_a_kernel_counts_as_kept_where_another_process_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    """Not where it would compile: it trusts no other user's file, and no damaged one."""
    cache, temporary = tmp_path / "cache" / "0.1.0", tmp_path / "temporary" / "0.1.0"
    monkeypatch.setattr(jit, "folders", lambda: (cache, temporary))
    monkeypatch.setattr(jit, "_loaded", {"lstm": None})
    assert jit.kept() == {"lstm": None}
    jit._keep("lstm", b"code")
    file = cache / "lstm.bin"
    assert jit.kept() == {"lstm": file}
    if spoiled == "writable by others":
        file.chmod(0o666)
    elif spoiled == "damaged":
        file.write_bytes(b"code")
    elif spoiled == "renamed":
        jit._keep("gru", b"another")
        (cache / "gru.bin").replace(file)
    elif spoiled == "a link":
        file.rename(cache / "target")
        file.symlink_to("target")
    else:
        cache.chmod(0o777)
    assert jit.kept() == {"lstm": None}


def test_kernels_of_another_version_or_cpu_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their folder has another name, which the checksum covers."""
    folders = [tmp_path / "0.1.0-a" / "x86", tmp_path / "0.1.0-a" / "znver4"]
    for folder in folders:
        monkeypatch.setattr(jit, "folders", lambda folder=folder: (folder, tmp_path / "t" / "t"))
        jit._keep("lstm", folder.name.encode())
    assert jit._read(folders[1], "lstm") == b"znver4"
    (folders[0] / "lstm.bin").replace(folders[1] / "lstm.bin")
    with pytest.raises(ValueError, match="checksum does not match"):
        jit._read(folders[1], "lstm")


@pytest.mark.parametrize("usable", [True, False])
def test_the_temporary_folder_is_read_only_where_the_users_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    cache, temporary = tmp_path / "cache" / "0.1.0", tmp_path / "temporary" / "0.1.0"
    monkeypatch.setattr(jit, "_loaded", {"lstm": None})
    monkeypatch.setattr(jit, "folders", lambda: (temporary,))
    jit._keep("lstm", b"code")
    monkeypatch.setattr(jit, "folders", lambda: (cache, temporary))
    if not usable:
        cache.parent.write_text("no folder")
    assert jit.kept() == {"lstm": None if usable else temporary / "lstm.bin"}


VICTIM = """
import os
import sys
import tempfile
import numpy as np
from streamrnn.nn.kernels import activation
from streamrnn.nn.simd import jit

def run(name):
    y = np.array([-0.25], np.float32)
    activation.run(name, y, y)
    return f"{y[0]:.4f}"

run("sigmoid")  # imports all that compiling needs, from folders that this user may not enter
sources = jit._sources()
jit._sources = lambda: sources
jit.folders.cache_clear()
user, os.environ["XDG_CACHE_HOME"], tempfile.tempdir, *names = sys.argv[1:]
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
print(*map(run, names), *jit.folders())
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can write to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


ROOT_RUNS = os.getuid() == 0
VICTIM_ID, ATTACKER_ID = (65533, 65532) if ROOT_RUNS else (os.getuid(), os.getuid())
"""Two users where the tests run as root; else one, whose folders are open to others."""


def run_as(user: int, cache: Path, temporary: Path, *names: str) -> tuple[list[str], str]:
    """Run activations of -0.25 as a user; return their values, the folders, and the warnings."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": empty}
        command = [sys.executable, "-c", VICTIM, str(user), str(cache), str(temporary), *names]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def open_folder(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("place", ["temporary", "temporary, and no cache", "cache"])
@slow
def test_another_user_cannot_have_one_kernel_run_as_another(
    shared: Path, place: str, link: Callable[[Path, Path], None]
) -> None:
    """By links to the victim's own files where its kernels might be: `linear` as `relu`.

    Slow: two users, each of whom compiles; the quick tests have folders that others can write to.
    """
    caches = [open_folder(shared / name) for name in ("cache", "empty")]
    temporary = open_folder(shared / "temporary")
    (linear, relu, *folders), _ = run_as(VICTIM_ID, caches[0], temporary, "linear", "relu")
    assert (linear, relu) == ("-0.2500", "0.0000")
    (target,) = caches[0].rglob("elementwise-*-linear.bin")
    (name,) = (path.name for path in caches[0].rglob("elementwise-*-relu*.bin"))
    assert target.stat().st_uid == VICTIM_ID
    trap = Path(folders[1])
    if place == "cache":
        trap = caches[1] / "streamrnn" / trap.name
    elif place == "temporary, and no cache":
        caches[1].rmdir()
        caches[1].write_text("in the way")
    trap.mkdir(parents=True)
    link(trap / name, target)  # also where the system protects such files from other users
    for path in (trap, trap.parent):
        os.chown(path, ATTACKER_ID, ATTACKER_ID if ROOT_RUNS else os.getgid())
    (value, *_), warning = run_as(VICTIM_ID, caches[1], temporary, "relu")
    assert value == "0.0000"
    saved = [path for path in shared.rglob(name) if path.parent not in (target.parent, trap)]
    if place == "temporary":
        assert warning == ""
        assert [path.parent.parent.parent for path in saved] == [caches[1]]
    elif place == "temporary, and no cache":
        assert "compiled kernels are not saved" in warning
        assert not saved
    elif ROOT_RUNS:
        assert "(another user can write to it): compiled kernels are saved to" in warning
        assert [path.parent.parent.parent for path in saved] == [temporary]


@slow
def test_kernels_that_root_compiled_are_loaded_by_other_users(shared: Path) -> None:
    """As in the image of a container; what is missing there, they keep in the temporary folder.

    Slow: two users, each of whom compiles.
    """
    cache, temporary = shared / "cache", open_folder(shared / "temporary")
    run_as(os.getuid(), cache, temporary, "tanh")
    (file,) = cache.rglob("*.bin")
    file.parent.chmod(0o555)
    (value, *_), warning = run_as(VICTIM_ID, cache, temporary, "tanh")
    assert (value, warning) == ("-0.2449", "")
    both, warning = run_as(VICTIM_ID, cache, temporary, "tanh", "relu")
    assert "(no permission): compiled kernels are saved to" in warning
    assert len(list(temporary.rglob("*.bin"))) == 1
    assert run_as(VICTIM_ID, cache, temporary, "tanh", "relu") == (both, "")


@slow
def test_an_edit_of_any_kernel_source_is_noticed(tmp_path: Path) -> None:
    """Also of one that is only compiled into others, which Numba's own cache does not notice.

    Slow: a copy of the package; the name of the folder has the sources in it.
    """
    copy = tmp_path / "copy"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, copy / "streamrnn", ignore=ignore)
    cache = str(tmp_path / "cache")
    start(copy, XDG_CACHE_HOME=cache)
    with (copy / "streamrnn/nn/simd/functions.py").open("a") as file:
        file.write("# edited\n")
    start(copy, XDG_CACHE_HOME=cache)
    assert len(kept(tmp_path / "cache")) == 2


@pytest.mark.skipif(not Path("/proc/sys").is_dir(), reason="needs a folder nobody can write to")
@pytest.mark.parametrize("broken", ["read-only", "file", "missing"])
@slow
def test_a_cache_folder_that_cannot_be_made_is_replaced_with_a_warning(
    tmp_path: Path, broken: str
) -> None:
    """As with a read-only or missing home: work goes on, from a temporary folder, which the next
    start finds.

    Slow: no home, a home that is a file or can only be read.
    """
    home = tmp_path / "home"
    if broken == "file":
        home.write_text("in the way")
    else:
        home = Path("/proc/nowhere" if broken == "missing" else "/proc/sys")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = start(XDG_CACHE_HOME=str(home), TMPDIR=str(temporary))
    assert done.stdout.split()[0] == "1.2247"
    assert f"cannot write to the cache folder {home}/streamrnn" in done.stderr
    assert "set XDG_CACHE_HOME to a writable folder" in done.stderr
    (file,) = temporary.rglob("*.bin")
    assert str(file.parent) in done.stderr
    assert file.parent.stat().st_mode & 0o777 == 0o700
    again = start(XDG_CACHE_HOME=str(home), TMPDIR=str(temporary))
    assert (again.stdout, again.stderr) == (done.stdout, "")


@slow
def test_kernels_in_a_folder_that_can_only_be_read_are_used(tmp_path: Path) -> None:
    """As in the image of a container whose file system is read-only.

    Slow: the file system of a container.
    """
    start(XDG_CACHE_HOME=str(tmp_path))
    (file,) = kept(tmp_path)
    code = "from streamrnn.nn.simd import jit; jit._keep = None\n" + CODE
    done = python("-c", code, XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.split() == ["1.2247", str(file.parent)]


@slow
def test_a_user_without_a_home_has_the_temporary_folder(tmp_path: Path) -> None:
    """Slow: a process that compiles."""
    code = (
        """
import pathlib
def nobody(path):
    raise RuntimeError("Could not determine home directory.")
pathlib.Path.expanduser = nobody
"""
        + CODE
    )
    value, folder = python("-c", code, TMPDIR=str(tmp_path)).stdout.split()
    assert value == "1.2247"
    assert Path(folder).is_relative_to(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_while_a_kernel_is_compiled_does_not_wait_for_it() -> None:
    held, go_on = threading.Event(), threading.Event()

    def compile_slowly() -> None:
        with jit._lock:
            held.set()
            assert go_on.wait(60)

    other = threading.Thread(target=compile_slowly)
    other.start()
    assert held.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(30)  # ends a child that hangs
        inspect.unwrap(spin_barrier.core)()
        os._exit(0)
    go_on.set()
    other.join()
    assert os.waitpid(child, 0)[1] == 0


def test_numba_is_imported_by_the_first_kernel_and_not_before() -> None:
    code = """
import sys
from streamrnn.nn.kernels import activation, conv1d, dense, gradients, rows, swept
print("numba" in sys.modules)
"""
    assert python("-c", code).stdout.strip() == "False"


ALLOCATES = """
import sys
import numba
import numpy as np
from streamrnn.nn.simd import jit

def allocate(size):
    return np.empty(size).size

run = jit.compiled("allocate", lambda: jit.kernel(allocate), numba.types.int64(numba.types.int64))
assert run(3) == 3
try:
    run(1 << 57)
except MemoryError as error:
    print("numba.np.arrayobj" in sys.modules, error)
"""


@slow
def test_a_loaded_kernel_imports_no_code_of_the_compiler_and_raises_as_before(
    tmp_path: Path,
) -> None:
    """The code of Numba's array functions takes a tenth of a second to import.

    Slow: a kernel that raises; `test_start.py` has what a start imports.
    """
    compiled, loaded = (
        python("-c", ALLOCATES, XDG_CACHE_HOME=str(tmp_path)).stdout.split(" ", 1) for _ in range(2)
    )
    assert compiled[0] == "True"
    assert loaded[0] == "False"
    assert compiled[1] == loaded[1]
    assert "llocat" in loaded[1]


ACTIVATION = """
import sys
import numpy as np
from streamrnn.nn.kernels import activation
for name in sys.argv[1:]:
    y = np.array([0.25], np.float32)
    activation.run(name, y, y)
    print(name, y[0])
"""
RECURRENT = """
import sys
import numpy as np
from streamrnn.nn.kernels import recurrent
from streamrnn.nn.kernels.swept import SIMPLE_RNN
packed = SIMPLE_RNN.pack(np.eye(1, dtype=np.float32), np.eye(1, dtype=np.float32))
for name in sys.argv[1:]:
    y = np.full((1, 3, 1), 0.25, np.float32)
    recurrent.run(packed, (name,), y.copy(), None, None, [np.zeros((1, 1), np.float32)], y)
    print(name, y.ravel())
"""


@pytest.mark.parametrize("code", [ACTIVATION, RECURRENT])
@slow
def test_kernels_that_several_processes_compiled_are_not_confused(
    tmp_path: Path, code: str
) -> None:
    """Numba numbers the functions in each process anew: those of two kernels share names.

    Slow: what such kernels compute; a quick test refuses a kernel that could share them.
    """

    def run(*names: str) -> list[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
        command = [sys.executable, "-c", code, *names]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    names = ["tanh", "sigmoid"]
    alone = [line for name in names for line in run(name)]
    assert alone[0].split()[1:] != alone[1].split()[1:]
    assert run(*names) == alone
    assert run(*names[::-1]) == alone[::-1]


def test_numba_copies_code_of_others_as_before() -> None:
    """Also after a kernel that does not compile."""
    with contextlib.suppress(ValueError), jit._sharing_variables():
        assert "__deepcopy__" in vars(ir.VarMap)
        raise ValueError("a kernel that does not compile")
    assert "__deepcopy__" not in vars(ir.VarMap)


def test_a_kernel_that_calls_a_function_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of another kernel may have the same name, and would be called instead."""
    monkeypatch.setattr(jit, "folders", lambda: (tmp_path, tmp_path))

    @jit.kernel
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    def whole(n):
        return fibonacci(n)

    signature = numba.types.int64(numba.types.int64)
    with pytest.raises(RuntimeError, match=r"whole calls functions that are not inlined: {'_ZN"):
        jit.compiled("whole", lambda: jit.kernel(whole), signature)
