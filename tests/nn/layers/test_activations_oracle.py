"""All of Keras's activations, with their arguments, beside Keras itself."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

import streamrnn
from streamrnn import activations

pytestmark = pytest.mark.filterwarnings("ignore")

X = np.random.default_rng(0).normal(scale=3, size=(5, 6, 4)).astype(np.float32)
X[0, 0] = [0.5, -0.5, 1, 3]
X[0, 1] = [-3, 6, 2, 0]
OTHERS = ("deserialize", "get", "serialize")
NAMES = [name for name in dir(keras.activations) if name not in OTHERS and name[0] != "_"]
ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("celu", {"alpha": 0.3}),
    ("elu", {"alpha": 0.3}),
    ("gelu", {"approximate": True}),
    ("hard_shrink", {"threshold": 1.0}),
    ("leaky_relu", {"negative_slope": 0.4}),
    ("soft_shrink", {"threshold": 2.0}),
    ("squareplus", {"b": 1.5}),
    ("threshold", {"threshold": 0.5, "default_value": 0.7}),
    *[
        ("relu", {"negative_slope": slope, "max_value": top, "threshold": threshold})
        for slope in (0.0, 0.1)
        for top in (None, 6.0, 2.0)
        for threshold in (0.0, 0.5, -1.0)
    ],
    *[(name, {"axis": 1}) for name in ("softmax", "log_softmax", "sparsemax", "glu")],
]


@pytest.mark.parametrize(
    ("name", "given"), [*[(name, {}) for name in NAMES if name != "threshold"], *ARGUMENTS]
)
def test_an_activation_gives_the_numbers_of_keras(name: str, given: dict[str, Any]) -> None:
    """Those at kinks included."""
    ours, theirs = getattr(activations, name), getattr(keras.activations, name)
    np.testing.assert_allclose(ours(X, **given), theirs(X, **given), rtol=2e-6, atol=2e-6)


def test_a_file_of_keras_with_its_activations_loads(tmp_path: Any) -> None:
    """By name, and as layers with arguments."""
    names = [name for name in NAMES if name not in ("glu", "threshold", "sparsemax")]
    x = keras.Input((6, 4))
    made = [keras.layers.Activation(name)(x) for name in names]
    made += [keras.layers.ReLU(2.0, 0.1, 0.5)(x), keras.layers.Softmax(axis=1)(x)]
    made += [keras.layers.Dense(4, activation=keras.layers.ReLU(2.0, 0.1, 0.5))(x)]
    theirs = keras.Model(x, keras.layers.Concatenate()(made))
    theirs.save(tmp_path / "m.keras")
    ours = streamrnn.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(ours(X), theirs(X), rtol=3e-6, atol=3e-6)
