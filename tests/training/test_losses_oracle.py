"""Losses and their derivatives beside Keras and JAX."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")

import jax
import keras

from streamrnn import losses

RNG = np.random.default_rng(8)
X = RNG.normal(size=(5, 4, 3)).astype(np.float32)
Y = RNG.normal(size=X.shape).astype(np.float32)
SHARES = RNG.random(X.shape).astype(np.float32) * 0.9 + 0.05
BITS = RNG.integers(0, 2, X.shape).astype(np.float32)
ONE_HOT = np.eye(3, dtype=np.float32)[RNG.integers(0, 3, X.shape[:2])]
WEIGHTS = RNG.random(X.shape[:2]).astype(np.float32)

CASES: dict[str, tuple[dict[str, Any], np.ndarray, np.ndarray]] = {
    "MeanSquaredError": ({}, Y, X),
    "MeanAbsoluteError": ({}, Y, X),
    "MeanAbsolutePercentageError": ({}, Y, X),
    "MeanSquaredLogarithmicError": ({}, Y, X),
    "LogCosh": ({}, Y, X * 20),
    "Huber": ({"delta": 0.7}, Y, X),
    "Poisson": ({}, BITS * 3, SHARES * 5),
    "CosineSimilarity": ({}, Y, X),
    "KLDivergence": ({}, ONE_HOT, SHARES),
    "Hinge": ({}, BITS, X),
    "SquaredHinge": ({}, BITS * 2 - 1, X),
    "CategoricalHinge": ({}, ONE_HOT, X),
    "BinaryCrossentropy": ({"label_smoothing": 0.1}, BITS, SHARES),
    "CategoricalCrossentropy": ({"label_smoothing": 0.1}, ONE_HOT, SHARES),
    "BinaryCrossentropy of logits": ({"label_smoothing": 0.1, "from_logits": True}, BITS, X),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_that_of_keras(name: str) -> None:
    """Without weights, and with those of steps."""
    options, y, p = CASES[name]
    kind = name.split()[0]
    theirs, ours = getattr(keras.losses, kind)(**options), getattr(losses, kind)(**options)
    for weight in (None, WEIGHTS):
        wanted, slope = jax.value_and_grad(lambda p, w=weight: theirs(y, p, w))(p)
        found, made = ours.with_slope(ours.truth(y, p), p, weight, None)
        assert found == pytest.approx(float(wanted), rel=1e-5)
        np.testing.assert_allclose(made, slope, rtol=1e-4, atol=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("name", ["mse", "MAE", "mape", "MSLE", "bce", "kld", "huber", "log_cosh"])
def test_a_short_name_is_that_of_keras(name: str) -> None:
    wanted = keras.losses.get(name)(SHARES, SHARES[::-1]).mean()
    assert losses.loss_of(name)(SHARES, SHARES[::-1]) == pytest.approx(float(wanted), rel=1e-5)
