"""Files that Keras writes give what Keras computes."""

import os

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("h5py", reason="needs the keras extra")

from formats import keras_models

import streamrnn

NAMES = sorted(keras_models.MODELS)


def outputs(model, arrays):
    made = model(arrays if len(arrays) > 1 else arrays[0])
    return [np.asarray(y) for y in (made if isinstance(made, list | tuple) else [made])]


def assert_same(loaded, model, arrays):
    for ours, theirs in zip(outputs(loaded, arrays), outputs(model, arrays), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", NAMES)
def test_whole_models(name, ending, tmp_path):
    """Architecture and weights come back."""
    model = keras_models.trained(name)
    model.save(tmp_path / f"m.{ending}")
    loaded = streamrnn.load_model(tmp_path / f"m.{ending}")
    assert_same(loaded, model, keras_models.inputs(model))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_weights_alone(name, tmp_path):
    """A Python model takes weights from each kind of weights file, and from whole models."""
    model = keras_models.trained(name)
    for ending in ("keras", "h5", "weights.h5"):
        path = tmp_path / f"m.{ending}"
        (model.save_weights if "weights" in ending else model.save)(path)
    blank = keras_models.trained(name, seed=8)
    blank.save(tmp_path / "blank.keras")
    for ending in ("keras", "h5", "weights.h5"):
        loaded = streamrnn.load_model(tmp_path / "blank.keras")
        loaded.load_weights(tmp_path / f"m.{ending}")
        assert_same(loaded, model, keras_models.inputs(model))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_convert_to_native(name, tmp_path):
    """What is saved in the native format computes the same bits."""
    model = keras_models.trained(name)
    model.save(tmp_path / "m.keras")
    loaded = streamrnn.load_model(tmp_path / "m.keras")
    loaded.save(tmp_path / "m.safetensors")
    again = streamrnn.load_model(tmp_path / "m.safetensors")
    arrays = keras_models.inputs(model)
    for ours, theirs in zip(outputs(again, arrays), outputs(loaded, arrays), strict=True):
        np.testing.assert_array_equal(ours, theirs)
