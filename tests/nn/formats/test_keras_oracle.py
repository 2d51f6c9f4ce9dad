"""Files that Keras writes give what Keras computes."""

import os

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("h5py", reason="needs the keras extra")

from nn.formats import keras_models

import streamrnn
from streamrnn.models import StepRunner

NAMES = sorted(keras_models.MODELS)
BY_HAND = [name for name in NAMES if "generated" not in name]


def outputs(model, arrays):
    made = model(arrays if len(arrays) > 1 else arrays[0])
    return [np.asarray(y) for y in (made if isinstance(made, list | tuple) else [made])]


def assert_same(loaded, model, arrays):
    for ours, theirs in zip(outputs(loaded, arrays), outputs(model, arrays), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("name", BY_HAND)
def test_whole_models(name, ending, tmp_path):
    """Architecture and weights come back."""
    model = keras_models.trained(name)
    model.save(tmp_path / f"m.{ending}")
    loaded = streamrnn.load_model(tmp_path / f"m.{ending}")
    assert_same(loaded, model, keras_models.inputs(model))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BY_HAND)
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
@pytest.mark.parametrize("name", BY_HAND)
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [*keras_models.FORWARD, *keras_models.BOTH_WAYS])
def test_generated_models(seed, tmp_path):
    """Random stacks; state carried from chunk to chunk gives what Keras computes of the whole."""
    model = keras_models.trained(f"generated-{seed}")
    ending = "h5" if seed % 2 else "keras"
    model.save(tmp_path / f"m.{ending}")
    loaded = streamrnn.load_model(tmp_path / f"m.{ending}")
    (x,) = keras_models.inputs(model, steps=9)
    expected = np.asarray(model(x))
    np.testing.assert_allclose(loaded(x), expected, rtol=1e-4, atol=1e-5)
    if seed in keras_models.FORWARD:
        stream = StepRunner(loaded)
        states = stream.initial_state(len(x))
        chunks = [np.array(x[:, a:b]) for a, b in ((0, 1), (1, 5), (5, 9))]
        parts = [stream.run([chunk], None, states)[0] for chunk in chunks]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), loaded(x))
