"""Masks of merged inputs, which Keras 3 writes into its files operation by operation."""

import os

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

import streamrnn

k = keras.layers
X = np.random.default_rng(1).normal(size=(3, 5, 3)).astype(np.float32)
X[0, 3:] = X[1, 1] = X[2, :2] = 0


def same(model, path, arrays):
    """What is loaded, and what is loaded after a native save, give what Keras gives."""
    model.save(path / "m.keras")
    loaded = streamrnn.load_model(path / "m.keras")
    loaded.save(path / "m.safetensors")
    for ours in (loaded, streamrnn.load_model(path / "m.safetensors")):
        np.testing.assert_allclose(ours(arrays), model.predict(arrays, verbose=0), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(
    "merge", ["Add", "Subtract", "Average", "Multiply", "Minimum", "Maximum", "Concatenate"]
)
def test_merged_masks(merge, both, tmp_path):
    """A residual connection, with a mask on both ways and on one."""
    x = keras.Input((5, 3))
    masked = k.Masking()(x)
    h = k.LSTM(3, return_sequences=True)(masked if both else x)
    y = getattr(k, merge)()([masked, h])
    same(keras.Model(x, k.LSTM(2)(y)), tmp_path, X)


@pytest.mark.filterwarnings("ignore")
def test_a_mask_that_is_an_input(tmp_path):
    """A bool Input given as mask=."""
    x, mask = keras.Input((5, 3)), keras.Input((5,), dtype="bool")
    same(keras.Model([x, mask], k.LSTM(2)(x, mask=mask)), tmp_path, [X, X[:, :, 0] > 0])


@pytest.mark.filterwarnings("ignore")
def test_arrays_as_arguments(tmp_path):
    """Keras 3 wraps the arrays of Rescaling."""
    scaled = k.Rescaling(np.array([1.0, 2.0, 3.0]), offset=np.array([0.0, 1.0, 2.0]))
    same(keras.Sequential([keras.Input((5, 3)), scaled, k.LSTM(2)]), tmp_path, X)


@pytest.mark.filterwarnings("ignore")
def test_other_operations_are_refused_by_name(tmp_path):
    """Only what masks are made of is read."""
    x = keras.Input((5, 3))
    keras.Model(x, k.LSTM(2)(keras.ops.sin(x))).save(tmp_path / "m.keras")
    with pytest.raises(streamrnn.errors.UnsupportedError, match="the operation Sin"):
        streamrnn.load_model(tmp_path / "m.keras")
