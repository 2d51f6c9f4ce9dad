"""The noise layers: what they draw, in a call and in training."""

from typing import Any

import numpy as np
import pytest

from streamrnn import Input, Sequential, layers
from streamrnn.errors import ArgumentError

X = np.random.default_rng(1).normal(size=(4, 500, 50)).astype(np.float32)
NOISY = [
    layers.GaussianNoise(0.3, seed=1),
    layers.GaussianDropout(0.2, seed=1),
    layers.AlphaDropout(0.2, seed=1),
    layers.AlphaDropout(0.2, noise_shape=(None, 1, None), seed=1),
    layers.SpatialDropout1D(0.2, seed=1),
]


@pytest.mark.parametrize("layer", NOISY, ids=lambda layer: type(layer).__name__)
def test_noise_is_drawn_with_training_alone(layer: Any) -> None:
    """By the layer's own generator: the same seed, the same noise; the next call draws on."""
    again = layers.deserialize(layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(layer(X), X)
    first, second = again(X, training=True), again(X, training=True)
    assert first.dtype == np.float32
    assert (first != second).any()
    np.testing.assert_array_equal(
        layers.deserialize(layers.serialize(layer))(X, training=True), first
    )


def test_gaussian_noise_has_mean_0_and_its_deviation() -> None:
    noise = layers.GaussianNoise(0.3, seed=2)(X, training=True) - X
    assert abs(noise.mean()) < 0.003
    assert abs(noise.std() - 0.3) < 0.003
    within = np.mean(np.abs(noise) < 0.3)  # 68.27 % of a normal distribution
    assert abs(within - 0.6827) < 0.005


def test_gaussian_dropout_has_mean_1_and_variance_of_its_rate() -> None:
    """rate / (1 - rate) (Srivastava et al. 2014)."""
    factors = layers.GaussianDropout(0.2, seed=2)(np.ones_like(X), training=True)
    assert abs(factors.mean() - 1) < 0.005
    assert abs(factors.var() - 0.25) < 0.005


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    """Two values for each element; on normal inputs mean 0 and variance 1 stay."""
    y = layers.AlphaDropout(0.2, seed=2)(X, training=True)
    assert abs(y.mean()) < 0.01
    assert abs(y.var() - 1) < 0.02
    dropped = -1.7580993408473766
    a = ((1 - 0.2) * (1 + 0.2 * dropped**2)) ** -0.5
    b = -a * dropped * 0.2
    kept = np.isclose(y, a * X + b, atol=1e-5)
    assert np.isclose(y[~kept], a * dropped + b, atol=1e-5).all()
    assert abs(kept.mean() - 0.8) < 0.01


@pytest.mark.parametrize("layer", [NOISY[3], NOISY[4]])
def test_one_mask_for_all_steps(layer: Any) -> None:
    """Features are dropped from a row altogether, or not at all."""
    ones = layer(np.ones_like(X), training=True)
    assert (ones == ones[:, :1]).all()
    assert len(np.unique(ones)) == 2


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"`stddev`\. Expected a float value between 0 and 1"):
        layers.GaussianNoise(1.5)
    for layer in (layers.GaussianDropout(1.0), layers.AlphaDropout(1.0)):
        with pytest.raises(ArgumentError, match="use a smaller rate"):
            layer(X, training=True)


@pytest.mark.parametrize("layer", NOISY, ids=lambda layer: type(layer).__name__)
def test_a_fit_draws_the_same_noise_again(layer: Any) -> None:
    """Each step other noise; the same seed gives the same bits of weights."""

    def fitted(seed: int | None) -> np.ndarray:
        noisy = type(layer).from_config({**layer.get_config(), "seed": seed})
        model = Sequential([Input((None, 50)), noisy, layers.Dense(1, name="dense")])
        model.set_weights([np.full((50, 1), 0.1), np.zeros(1)])
        model.compile("sgd", "mse")
        for _ in range(2):
            model.train_on_batch(X[:, :9], np.zeros((4, 9, 1), np.float32))
        return model.get_weights()[0]

    np.testing.assert_array_equal(fitted(3), fitted(3))
    assert (fitted(3) != fitted(4)).any()
