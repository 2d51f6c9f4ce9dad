"""Files of Keras: layers that compute in float16 or bfloat16, and subclassed models."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("h5py", reason="needs the keras extra")

import streamrnn  # noqa: E402
from streamrnn import Input, Sequential, layers  # noqa: E402
from streamrnn.errors import UnsupportedError  # noqa: E402

k = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
X = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)


def model(policy: str) -> Any:
    x = keras.Input((5, 3))
    h = k.LayerNormalization(dtype=policy)(k.Concatenate(dtype=policy)([x, x]))
    y = k.GRU(4, recurrent_initializer="glorot_uniform", dtype=policy)(h)
    return keras.Model(x, k.Dense(2, dtype=policy)(y))


@pytest.mark.parametrize("form", ["keras", "h5"])
@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_the_weights_of_a_policy_are_read_as_float32(
    policy: str, form: str, tmp_path: Path
) -> None:
    """As a Keras model of float32 with these weights; said once."""
    lower, peer = model(policy), model("float32")
    peer.set_weights([np.asarray(w, np.float32) for w in lower.get_weights()])
    lower.save(tmp_path / f"m.{form}")
    with pytest.warns(UserWarning, match=f"m.{form}: .*{policy}.* compute in float32") as said:
        loaded = streamrnn.load_model(tmp_path / f"m.{form}", strict=True)
    assert len(said) == 1
    np.testing.assert_allclose(loaded(X), peer(X), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(loaded.get_weights(), peer.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_operations_on_lower_floats_are_not_taken_for_those_of_masks(tmp_path: Path) -> None:
    x = keras.Input((5, 3), dtype="float16")
    y = k.SimpleRNN(2, dtype="float32")(keras.ops.concatenate([x, x * 2], axis=-1))
    keras.Model(x, y).save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="float16"):
        loaded = streamrnn.load_model(tmp_path / "m.keras")
    wanted = keras.models.load_model(tmp_path / "m.keras")(X.astype(np.float16))
    np.testing.assert_allclose(loaded(X.astype(np.float16)), wanted, rtol=1e-3, atol=1e-3)


class Forecaster(keras.Model):  # type: ignore[misc]
    """A subclass with layers of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rnn, self.out = k.GRU(4), k.Dense(2)

    def call(self, x: Any) -> Any:
        return self.out(self.rnn(x))


@pytest.mark.filterwarnings("ignore")  # Keras runs a call with values that overflow
def test_the_file_of_a_subclassed_model_says_how_to_take_its_weights(tmp_path: Path) -> None:
    """What the message advises gives what Keras gives."""
    theirs = Forecaster()
    wanted = theirs(X)
    theirs.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedError, match=r"Forecaster: .* no graph: .* to set_weights"):
        streamrnn.load_model(tmp_path / "m.keras")
    ours = Sequential([Input((5, 3)), layers.GRU(4), layers.Dense(2)])
    loaded = keras.models.load_model(tmp_path / "m.keras", {"Forecaster": Forecaster})
    ours.set_weights(loaded.get_weights())
    np.testing.assert_allclose(ours(X), wanted, rtol=1e-5, atol=1e-5)
    x = keras.Input((5, 3))
    keras.Model(x, Forecaster()(x)).save(tmp_path / "outer.keras")
    with pytest.raises(UnsupportedError, match=r"layer .* \(Forecaster\): layer class"):
        streamrnn.load_model(tmp_path / "outer.keras")
