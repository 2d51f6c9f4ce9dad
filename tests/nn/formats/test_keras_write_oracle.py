"""Keras 3 loads what `convert` writes as .keras, and computes the same; so does this package."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("h5py", reason="needs the keras extra")

from contracts.models import with_weights  # noqa: E402
from contracts.rows_graphs import LAYERS  # noqa: E402
from contracts.rows_layers import READS  # noqa: E402
from nn.formats import keras_models  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn import Input, Model, Sequential, layers  # noqa: E402
from streamrnn.errors import UnsupportedError  # noqa: E402
from streamrnn.nn.formats.convert import convert  # noqa: E402
from streamrnn.nn.formats.keras.write import save_keras  # noqa: E402

Arrays = list[np.ndarray]
CLASSES = (
    *("Gaussian", "LayerNormLSTMCell", "Operation", "PeepholeLSTMCell", "Spread"),
    *("OnnxGraph", "OnnxIds", "OnnxModel"),
)
PADDED = ("DepthwiseConv1D/causal", "DepthwiseConv1D/causal_strides", "SeparableConv1D/causal")
OURS = [name for name in LAYERS if name.partition("/")[0] in CLASSES or name in PADDED]
APART = {
    "IntegerLookup": "Keras needs TensorFlow for it",
    "LSTM": "it is stateful",
    "RMSNormalization/over_time": "Keras refuses its own argument axis",
    **{name: "words need TensorFlow" for name, row in LAYERS.items() if row.reads == "words"},
}


def outputs(model: Any, arrays: Arrays) -> Arrays:
    made = model(arrays if len(arrays) > 1 else arrays[0])
    return [np.asarray(y) for y in (made if isinstance(made, list | tuple) else [made])]


def assert_written(model: Model, arrays: Arrays, folder: Path) -> None:
    """Keras predicts the same; read again, the model has the same weights, and gives the same."""
    model.save(folder / "m.safetensors")
    convert(folder / "m.safetensors", folder / "m.keras")
    theirs = keras.models.load_model(folder / "m.keras")
    again = streamrnn.load_model(folder / "m.keras", strict=True)
    for name, weight in again.named_weights().items():
        assert weight.tobytes() == model.named_weights()[name].tobytes()
    wanted = outputs(model, arrays)
    for ours, other, read in zip(
        wanted, outputs(theirs, arrays), outputs(again, arrays), strict=True
    ):
        assert ours.tobytes() == read.tobytes()
        np.testing.assert_allclose(other, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(LAYERS) - set(OURS) - set(APART)))
def test_every_layer_that_keras_has(name: str, tmp_path: Path) -> None:
    row = LAYERS[name]
    assert_written(with_weights(row.made()), READS[row.reads], tmp_path)


@pytest.mark.parametrize("name", OURS)
def test_other_layers_are_refused_by_name(name: str, tmp_path: Path) -> None:
    model = LAYERS[name].made()
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UnsupportedError, match=r"layer '.*' \(.*\): Keras has no such layer"):
        convert(tmp_path / "m.safetensors", tmp_path / "m.keras")
    assert not (tmp_path / "m.keras").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_stateful_layer_needs_the_number_of_rows(tmp_path: Path) -> None:
    """As in Keras itself; with it, a second call goes on where the first one ended."""
    model = with_weights(LAYERS["LSTM"].made())
    with pytest.raises(UnsupportedError, match=r"Input\(batch_size=…\)"):
        save_keras(model, tmp_path / "m.keras")
    x = READS["features"][0]
    again = Sequential([Input((None, 4), batch_size=len(x)), *model.layers[1:]])
    save_keras(again, tmp_path / "m.keras")
    theirs = keras.models.load_model(tmp_path / "m.keras")
    for half in (x[:, :3], x[:, 3:]):
        np.testing.assert_allclose(np.asarray(theirs(half)), again(half), rtol=1e-5, atol=1e-5)


def test_an_activation_is_one_of_keras_or_a_layer_or_refused(tmp_path: Path) -> None:
    x = READS["features"][0]
    kinds = ["leaky_relu", "hard_sigmoid", ["elu", 0.5], ["leaky_relu", 0.1], ["relu", 0.2, 0.5, 2]]
    for kind in kinds:
        model = with_weights(Sequential([Input((None, 4)), layers.Dense(3, activation=kind)]))
        assert_written(model, [x], tmp_path)
    for kind in ("hard_sigmoid_02", ["celu", 0.5]):
        model = Sequential([Input((None, 4)), layers.Dense(3, activation=kind, name="d")])
        with pytest.raises(UnsupportedError, match=r"layer 'd' \(Dense\): Keras .* activation"):
            save_keras(model, tmp_path / "refused.keras")
    assert not (tmp_path / "refused.keras").exists()


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    model = with_weights(LAYERS["Bidirectional"].made())
    for name in ("a.keras", "b.keras"):
        save_keras(model, tmp_path / name)
        time.sleep(1.1)  # a second later, a time in the file would differ
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in sorted(keras_models.MODELS) if "categ" not in n])
def test_models_of_keras_return(name: str, tmp_path: Path) -> None:
    """From Keras to here and back: masks, shared and nested layers, states, two directions."""
    model = keras_models.trained(name)
    model.save(tmp_path / "m.keras")
    loaded = streamrnn.load_model(tmp_path / "m.keras")
    (tmp_path / "again").mkdir()
    assert_written(loaded, keras_models.inputs(model), tmp_path / "again")
