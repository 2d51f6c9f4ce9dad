"""Discretization in files of Keras: fixed boundaries, and boundaries that Keras learned."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # compares in float32, unlike NumPy
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("h5py", reason="needs the keras extra")

import streamrnn  # noqa: E402
from streamrnn.nn.formats.keras.write import save_keras  # noqa: E402

k = keras.layers
EDGES = [-0.7, 0.1, 0.3, 0.7]  # as float32, some are larger and some smaller
X = np.random.default_rng(1).normal(size=(6, 5, 3)).astype(np.float32)
X[0, :4, 0] = EDGES
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def learned() -> Any:
    layer = k.Discretization(num_bins=4)
    layer.update_state(np.random.default_rng(2).normal(size=400))  # adapt needs TensorFlow
    layer.finalize_state()
    return layer


LAYERS = {
    "int": lambda: k.Discretization(EDGES),
    "one_hot": lambda: k.Discretization(EDGES, output_mode="one_hot"),
    "learned": learned,
}


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("name", LAYERS)
def test_bins_are_those_of_keras(name: str, form: str, tmp_path: Path) -> None:
    x = keras.Input((None, 3))
    model = keras.Model(x, LAYERS[name]()(x))
    model.save(tmp_path / f"m.{form}")
    loaded = streamrnn.load_model(tmp_path / f"m.{form}")
    wanted = keras.ops.convert_to_numpy(model(X))
    np.testing.assert_array_equal(loaded(X), wanted)
    save_keras(loaded, tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(X)), wanted)


def test_bins_are_ids_of_an_embedding(tmp_path: Path) -> None:
    x = keras.Input((None, 1))
    ids = keras.ops.squeeze(k.Discretization(EDGES)(x), -1)
    model = keras.Model(x, k.GRU(3)(k.Embedding(5, 4)(ids)))
    model.save(tmp_path / "m.keras")
    got = streamrnn.load_model(tmp_path / "m.keras")(X[..., :1])
    wanted = keras.ops.convert_to_numpy(model(X[..., :1]))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
