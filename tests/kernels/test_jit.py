"""Where compiled kernels are kept, and that nothing stale or broken is taken from there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# layer_norm: the smallest kernel
CODE = """
import numpy as np
from streamrnn.kernels import jit, normalization
x = np.array([[1, 2, 3]], np.float32)
y = np.empty_like(x)
normalization.layer_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32), 0.0, y)
print(f"{y[0, 2]:.4f}", jit.folder())
"""


def start(root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(root), **environment}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=env, cwd=root, capture_output=True, text=True, check=True
    )


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
    assert file.parent.name.startswith("0.1.0-")
    before = file.stat().st_mtime_ns
    assert start(XDG_CACHE_HOME=str(tmp_path)).stdout.split()[0] == "1.2247"
    assert kept(tmp_path) == [file]
    assert file.stat().st_mtime_ns == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_damaged_file_is_compiled_anew(tmp_path: Path) -> None:
    start(XDG_CACHE_HOME=str(tmp_path))
    (file,) = kept(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    done = start(XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.split()[0] == "1.2247"
    assert "is damaged" in done.stderr
    assert start(XDG_CACHE_HOME=str(tmp_path)).stderr == ""


def test_an_edit_of_any_kernel_source_is_noticed(tmp_path: Path) -> None:
    """Also of one that is only compiled into others, which Numba's own cache does not notice."""
    copy = tmp_path / "copy"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "streamrnn", copy / "streamrnn", ignore=ignore)
    cache = str(tmp_path / "cache")
    start(copy, XDG_CACHE_HOME=cache)
    with (copy / "streamrnn/kernels/functions.py").open("a") as file:
        file.write("# edited\n")
    start(copy, XDG_CACHE_HOME=cache)
    assert len(kept(tmp_path / "cache")) == 2


@pytest.mark.skipif(not Path("/proc/sys").is_dir(), reason="needs a folder nobody can write to")
@pytest.mark.parametrize("broken", ["file", "missing", "read-only"])
def test_a_cache_folder_that_cannot_be_made_is_replaced_with_a_warning(
    tmp_path: Path, broken: str
) -> None:
    """As with a read-only or missing home: work goes on, from a temporary folder."""
    home = tmp_path / "home"
    if broken == "file":
        home.write_text("in the way")
    else:
        home = Path("/proc/nowhere" if broken == "missing" else "/proc/sys")
    done = start(XDG_CACHE_HOME=str(home), TMPDIR=str(tmp_path))
    value, folder = done.stdout.split()
    assert value == "1.2247"
    assert Path(folder).parent == tmp_path
    assert "cannot write to the cache folder" in done.stderr
    assert "set XDG_CACHE_HOME to a writable folder" in done.stderr


def test_numba_is_imported_by_the_first_kernel_and_not_before() -> None:
    code = """
import sys
from streamrnn.kernels import activation, conv1d, dense, embedding, gru, lstm, simple_rnn
print("numba" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
