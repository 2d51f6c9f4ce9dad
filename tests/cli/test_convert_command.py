"""`streamrnn convert`, with the options that say what is in a file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from selection import slow, with_plugins

import streamrnn

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "nn" / "formats" / "files"
MAIN = "from streamrnn.cli import main; main()"


def convert(*arguments):
    command = [sys.executable, "-c", MAIN, "convert", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def same_weights(path, expected):
    for ours, theirs in zip(streamrnn.load_model(path).weights, expected.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_from_a_file(tmp_path):
    """--layers FILE: the architecture of bare weights, in TOML."""
    tables = [{"type": "LSTM", "weights": "dec"}]
    lines = [f'[[layers]]\ntype = "{t["type"]}"\nweights = "{t["weights"]}"' for t in tables]
    (tmp_path / "layers.toml").write_text("\n".join(lines))
    source, target = FILES / "torch.safetensors", tmp_path / "m.safetensors"
    done = convert(source, target, "--layers", tmp_path / "layers.toml")
    assert done.returncode == 0, done.stderr
    same_weights(target, streamrnn.load_model(source, layers=tables))


@slow
@with_plugins
def test_one_node_of_a_graph(tmp_path):
    """--node NAME: the one recurrent node to take out; an unknown one is named.

    Slow: a command of its own; quick tests of formats name nodes.
    """
    pytest.importorskip("onnx", reason="needs the onnx extra")
    source, target = FILES / "torch_old.onnx", tmp_path / "m.safetensors"
    done = convert(source, target, "--node", "/rnn/LSTM")
    assert done.returncode == 0, done.stderr
    same_weights(target, streamrnn.load_model(source, node="/rnn/LSTM"))
    done = convert(source, target, "--node", "nothing")
    assert done.returncode != 0
    assert "nothing" in done.stderr


def test_another_format_is_refused_before_a_file_is_read(tmp_path):
    done = convert("nothing.keras", tmp_path / "m.h5")
    assert done.returncode == 78
    wanted = "m.h5: expected the suffix .safetensors (the native format), .torch.safetensors, "
    assert wanted in done.stderr
