"""The systems that streamrnn supports: Linux and macOS, and one sentence for all others."""

import subprocess
import sys
from pathlib import Path

import pytest

ELSEWHERE = "import sys\nsys.modules['fcntl'] = None\n"
SENTENCE = (
    "streamrnn runs pipelines on Linux and macOS only: it locks an output folder with flock, which "
    "this system lacks (on Windows, use WSL)."
)


def run(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A process of its own that finds no `fcntl`, as on Windows."""
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    "what", ["from streamrnn import Pipeline", "import streamrnn.stream.checkpoints"]
)
def test_a_system_without_the_lock_is_refused_at_import(what: str, tmp_path: Path) -> None:
    """Not at the first commit, when rows were scored already."""
    done = run(what, tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith(f"UnsupportedError: {SENTENCE}\n")


def test_the_command_line_refuses_such_a_system_in_one_sentence(tmp_path: Path) -> None:
    done = run("from streamrnn.cli import main\nmain(['run', 'p.toml'])", tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"error: {SENTENCE}\nmore: streamrnn guide troubleshooting\n"


def test_models_work_on_such_a_system(tmp_path: Path) -> None:
    """Layers, `fit` on arrays and model files: they lock nothing."""
    code = """
import numpy as np
from streamrnn import Sequential, layers, load_model
model = Sequential([layers.Input((None, 2)), layers.LSTM(3), layers.Dense(1)])
model.compile("sgd", "mse")
rows = np.ones((4, 5, 2), np.float32)
model.fit(rows, np.ones((4, 1), np.float32), epochs=1, verbose=0)
model.save("m.safetensors")
print((load_model("m.safetensors").predict(rows, verbose=0) == model(rows)).all())
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
