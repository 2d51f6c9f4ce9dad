"""Layers of activation given as an argument keep their parameters, or are refused."""

from typing import Any

import numpy as np
import pytest
from selection import first_quick

from streamrnn import activations, layers
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError

X = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    "activation",
    first_quick(
        [
            layers.LeakyReLU(0.9),
            layers.ELU(0.3),
            layers.Softmax(),
            layers.ReLU(2.0, 0.5, 1.0),
            layers.ReLU(max_value=2.0),
            layers.ReLU(negative_slope=0.5),
            layers.ReLU(threshold=1.0),
        ],
        4,
    ),
    ids=lambda layer: type(layer).__name__,
)
def test_parameters_are_kept(activation: Any) -> None:
    """As an object, as Keras's config, and after a round trip. Slow: ReLU with one parameter."""
    config = {"class_name": type(activation).__name__, "config": activation.get_config()}
    for given in (activation, config):
        dense = layers.Dense(3, activation=given, kernel_initializer="identity")
        again = layers.Dense.from_config(dense.get_config())
        for layer in (dense, again, layers.Activation(given)):
            np.testing.assert_allclose(layer(X), activation(X), rtol=1e-6)


def test_what_cannot_be_kept_is_refused() -> None:
    """By class and parameter."""
    for given, message in (
        (layers.Softmax(axis=1), "Softmax with .*'axis': 1"),
        ({"class_name": "PReLU", "config": {"name": "relu"}}, "activation PReLU"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            layers.LSTM(3, activation=given)


def test_functions_that_no_layer_takes_say_why() -> None:
    for given, message in (
        ("glu", "'glu' is not supported in layers: it halves the last axis"),
        (activations.threshold, "'threshold' is not supported in layers: it needs two arguments"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            layers.Dense(4, activation=given)


def test_invalid_parameters_are_refused() -> None:
    """In a call and in a layer."""
    with pytest.raises(ArgumentError, match=r"celu: alpha must be greater than 0, received 0\.0"):
        activations.celu(X, alpha=0)
    with pytest.raises(ArgumentError, match="soft_shrink: threshold must be 0 or more"):
        layers.Dense(4, activation=["soft_shrink", -1])
    with pytest.raises(ShapeError, match="glu: expected an even size on axis -1"):
        activations.glu(X)
    with pytest.raises(ShapeError, match="softmax: axis=2 is out of range"):
        activations.softmax(X, axis=2)
    with pytest.raises(ArgumentError, match="axis=0 is the batch"):
        layers.Softmax(axis=0)(X)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_several_axes_are_one_row(name: str) -> None:
    function = getattr(activations, name)
    x = np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)
    as_row = function(x.transpose(1, 0, 2).reshape(3, 8)).reshape(3, 2, 4).transpose(1, 0, 2)
    np.testing.assert_array_equal(function(x, axis=(0, -1)), as_row)
    with pytest.raises(ShapeError, match=r"axis=\(0, 3\) must be one or more axes"):
        function(x, axis=(0, 3))


def test_a_masked_value_has_no_share() -> None:
    x = np.array([[1, 2, 5], [1, 1, 1]], np.float32)
    found = layers.Softmax()(x, mask=[[True, True, False], [False] * 3])
    two = np.exp([1.0, 2.0])
    np.testing.assert_allclose(found, [[*two / two.sum(), 0], [0, 0, 0]], rtol=1e-6)
    of_steps = layers.Softmax()(x[:, None], mask=[[True], [False]])
    np.testing.assert_array_equal(of_steps, layers.Softmax()(x[:, None]))
    with pytest.raises(ShapeError, match="a mask must be broadcastable"):
        layers.Softmax()(x[:1], mask=np.ones((2, 3), bool))
