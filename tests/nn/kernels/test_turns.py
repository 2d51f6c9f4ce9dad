"""Processes that start together on a new machine compile each kernel once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamrnn.nn.simd import jit

CODE = """
import logging
logging.basicConfig(level=logging.DEBUG, format="%(message)s")
logging.getLogger("numba").setLevel(logging.WARNING)
import numpy as np
from streamrnn.nn.kernels import normalization
print("ready", flush=True)
input()
x = np.array([[1, 2, 3]], np.float32)
normalization.layer_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32), 0.0)
"""


def test_several_processes_on_an_empty_cache_compile_a_kernel_once(tmp_path: Path) -> None:
    """The others wait, and load what the first has compiled; no lock file is left."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, "-c", CODE], env=environment, text=True, **pipes)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    errors = ""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        errors += process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors
    assert errors.count("compiling layer_norm") == 1, errors
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".bin"]


def test_a_holder_that_does_not_go_on_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be stopped in a debugger: the work is done twice."""
    monkeypatch.setattr(jit, "PATIENCE", 0.1)
    path = tmp_path / "new" / "kernel.lock"
    with jit.one_at_a_time(path) as waited:
        assert not waited
        began = time.monotonic()
        with jit.one_at_a_time(path) as others:
            assert others
        assert time.monotonic() - began >= 0.1
    with jit.one_at_a_time(path) as waited:
        assert not waited
    assert not path.exists()


def test_a_folder_that_cannot_be_written_to_has_no_turns(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with jit.one_at_a_time(tmp_path / "file" / "kernel.lock") as waited:
        assert not waited
