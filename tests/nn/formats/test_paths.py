"""Paths that lead nowhere, and what is no path."""

import pytest

import streamrnn
from streamrnn import Sequential, layers
from streamrnn.errors import DTypeError, MissingFileError, SinkError
from streamrnn.nn.formats.convert import convert


def test_errors_say_what_is_missing(tmp_path):
    """The folder, the file of recorded outputs, the path."""
    model = Sequential([layers.Input((3,)), layers.Dense(1)])
    with pytest.raises(SinkError, match=r"the folder .*gone does not exist") as caught:
        model.save(tmp_path / "gone" / "m.safetensors")
    assert ".tmp" not in str(caught.value)
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(MissingFileError, match=r"c\.npz: no such file of recorded outputs"):
        convert(tmp_path / "m.safetensors", tmp_path / "n.safetensors", check=tmp_path / "c.npz")
    for wrong in (None, 3, b"m.keras"):
        with pytest.raises(DTypeError, match="expected the path of a model file, received"):
            streamrnn.load_model(wrong)
