"""Functional models of Keras with operations of keras.ops: a file that Keras 3.15.1 wrote."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from nn.formats.files.make_operations import FEATURES, STEPS, outputs_of
from nn.layers.kinds import assert_same

from streamrnn import Input, Model, layers, load_model, ops
from streamrnn.errors import UnsupportedError

FILES = Path(__file__).parent / "files"


def golden() -> tuple[np.ndarray, list[np.ndarray]]:
    with np.load(FILES / "operations.npz") as arrays:
        return arrays["x"], [arrays[f"y{i}"] for i in range(len(arrays) - 1)]


def test_a_file_with_operations_gives_the_numbers_of_keras(tmp_path: Path) -> None:
    """And those of the native file that it is saved to."""
    x, expected = golden()
    model = load_model(FILES / "operations.keras")
    found = model(x)
    for y, wanted, shape in zip(found, expected, model.output_shape, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
        assert isinstance(shape, tuple)
        assert shape[1:] == y.shape[1:]
    model.save(tmp_path / "again.safetensors")
    assert_same(load_model(tmp_path / "again.safetensors")(x), found)


def test_the_same_code_makes_the_same_model_here() -> None:
    """The code that made the file, with the import changed, and its weights."""
    x, expected = golden()
    inputs = Input((STEPS, FEATURES))
    h = layers.GRU(4, return_sequences=True)(inputs)
    model = Model(inputs, outputs_of(inputs, h, ops))
    stored = load_model(FILES / "operations.keras")
    model.set_weights(stored.get_weights())
    assert_same(model(x), stored(x))
    plain = outputs_of(x, stored.get_layer("gru")(x), ops)
    for y, wanted in zip(plain, expected, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def changed(tmp_path: Path, before: str, after: str) -> Path:
    """The file with its config changed."""
    path = tmp_path / "changed.keras"
    with zipfile.ZipFile(FILES / "operations.keras") as given, zipfile.ZipFile(path, "w") as made:
        for name in given.namelist():
            content = given.read(name)
            if name == "config.json":
                text = content.decode()
                assert before in text
                content = text.replace(before, after, 1).encode()
                json.loads(content)
            made.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"Softmax"', '"Einsum"', r"\(Einsum\): the operation Einsum \(keras.ops\) is not suppo"),
        ('"axis": 1', '"axis": 7', "axis=7 is out of range for 3 axes"),
        ('"axis": 1', '"axis": 0', "axis=0 is the batch, whose rows must stay independent"),
        ('"axis": 1', '"axis": null', "axis=None includes the batch"),
    ],
)
def test_what_an_operation_cannot_do_is_refused_at_load(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises((UnsupportedError, ValueError), match=message):
        load_model(changed(tmp_path, before, after))
