"""Losses and their derivatives beside Keras and JAX."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")

import jax
import keras

import streamrnn
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


def _power(ops: Any) -> Any:
    """|p - t| ** 1.5, written for either library."""

    def power(y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y_pred - y_true) ** 1.5, axis=-1)

    return power


def _power_slope(y_true: Any, y_pred: Any) -> Any:
    error = y_pred - y_true
    return 1.5 * np.sign(error) * np.abs(error) ** 0.5 / y_pred.shape[-1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("as_class", [False, True])
def test_a_loss_of_a_user_trains_as_in_keras(as_class: bool, masked: bool, weighted: bool) -> None:
    """Losses by epoch and weights after it, with masks and weights of steps."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8, 4, 3)).astype(np.float32)
    x[2:, 3] = 0
    y = rng.normal(size=(8, 4, 2)).astype(np.float32)
    weight = {"sample_weight": rng.random((8, 4)).astype(np.float32)} if weighted else {}
    start: list[Any] = []
    ends = []
    for library, ops in ((keras, keras.ops), (streamrnn, np)):
        power = _power(ops)
        power.gradient = _power_slope
        loss = power
        if as_class:
            base: Any = library.losses.Loss
            body = {"call": lambda _, t, p, power=power: power(t, p)}
            if library is streamrnn:
                body["gradient"] = lambda _, t, p: _power_slope(t, p)
            loss = type("Power", (base,), body)()
        model = library.Sequential(
            [
                library.Input((4, 3)),
                *([library.layers.Masking()] if masked else []),
                library.layers.GRU(3, return_sequences=True),
                library.layers.Dense(2),
            ]
        )
        start = start or model.get_weights()
        model.set_weights(start)
        model.compile(library.optimizers.SGD(0.1), loss, metrics=[power])
        history = model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0, **weight)
        ends.append((history.history, model.get_weights()))
    (theirs, their_weights), (ours, our_weights) = ends
    assert list(ours) == list(theirs) == ["loss", "power"]
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-4)
    if not masked:  # a metric here leaves masked steps out; in Keras only if it is weighted
        np.testing.assert_allclose(ours["power"], theirs["power"], rtol=1e-4)
    for one, other in zip(our_weights, their_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
