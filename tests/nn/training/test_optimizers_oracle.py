"""Twenty updates by gradients that are given, beside Keras."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

from streamrnn import optimizers
from streamrnn.nn.training.optimizer import WeightUpdate

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(4)
WEIGHT = RNG.normal(size=(4, 5)).astype(np.float32)
STEPS = [RNG.normal(size=WEIGHT.shape).astype(np.float32) for _ in range(20)]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "rmsprop": ("RMSprop", {"momentum": 0.5, "centered": True}),
    "adam": ("Adam", {}),
    "amsgrad": ("Adam", {"amsgrad": True, "beta_2": 0.9}),
    "adamw": ("AdamW", {"amsgrad": True}),
    "nadam": ("Nadam", {}),
    "adamax": ("Adamax", {"weight_decay": 0.01}),
    "adagrad": ("Adagrad", {"learning_rate": 0.05}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0}),
    "lion": ("Lion", {"weight_decay": 0.01}),
}


@pytest.mark.parametrize("name", CASES)
def test_twenty_updates(name: str) -> None:
    kind, options = CASES[name]
    theirs, ours = getattr(keras.optimizers, kind)(**options), getattr(optimizers, kind)(**options)
    variable, weight = keras.Variable(WEIGHT), WEIGHT.copy()
    theirs.build([variable])
    for gradient in STEPS:
        theirs.apply_gradients([(gradient, variable)])
        ours.change([WeightUpdate("w", weight, gradient)])
    np.testing.assert_allclose(weight, variable.numpy(), rtol=3e-6, atol=1e-6)
