"""BatchNormalization in training: gradients through the moments of a window, and moving moments."""

from typing import Any

import naive
import naive_backward
import numpy as np
import pytest
from contracts.models import naive_lists, with_weights

from streamrnn import Input, Sequential, layers

LENGTHS = np.array([5, 0, 3, 1])
MASK = np.arange(5) < LENGTHS[:, None]
X, TRUTH = np.random.default_rng(4).normal(size=(2, 4, 5, 3)).astype(np.float32)


def model(**options: Any) -> Sequential:
    made = Sequential([Input((None, 3)), layers.Dense(3), layers.BatchNormalization(**options)])
    with_weights(made).compile("sgd", "mse")
    return made


def loss(weights: Any, mask: Any, *, center: bool, scale: bool, epsilon: float) -> float:
    kernel, bias, *others = weights
    y = naive.dense(naive.lists(X), kernel, bias)
    gamma = others.pop(0) if scale else None
    beta = others.pop(0) if center else None
    y = naive.batch_normalization(y, *naive.moments(y, mask), gamma, beta, epsilon=epsilon)
    return naive_backward.mean_squared_error(TRUTH.tolist(), y, mask)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("center", "scale"), [(True, True), (True, False), (False, False)])
def test_gradients_go_through_the_moments(center: bool, scale: bool, masked: bool) -> None:
    """They are the differences of the oracle; what was asked for them changes no weight."""
    options: Any = {"center": center, "scale": scale, "epsilon": 0.1}
    made = model(**options)
    before, weights = made.get_weights(), naive_lists(made.get_weights())
    mask = MASK.tolist() if masked else None
    found = made.gradients(X, TRUTH, lengths=LENGTHS if masked else None, training=True)
    assert len(found) == 2 + center + scale
    for number, (name, gradient) in enumerate(found.items()):
        wanted = np.array(
            naive_backward.central(lambda: loss(weights, mask, **options), weights, number)
        )
        np.testing.assert_allclose(gradient, wanted, rtol=1e-3, atol=2e-5, err_msg=name)
    for one, other in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_window_moves_the_moving_moments() -> None:
    made = model(momentum=0.75)
    kernel, bias, _, _, *moving = naive_lists(made.get_weights())
    moments = naive.moments(naive.dense(naive.lists(X), kernel, bias), MASK.tolist())
    made.train_on_batch(X, TRUTH, lengths=LENGTHS)
    for now, before, moment in zip(made.get_weights()[-2:], moving, moments, strict=True):
        np.testing.assert_allclose(now, naive.moved(before, moment, 0.75), rtol=1e-5)


def test_a_window_of_masked_steps_has_no_gradient() -> None:
    made = model()
    found = made.gradients(X, TRUTH, lengths=np.zeros(4, int), training=True)
    assert all((gradient == 0).all() for gradient in found.values())
