"""Layers of activation given as an argument keep their parameters, or are refused."""

from typing import Any

import numpy as np
import pytest

from streamrnn import layers
from streamrnn.errors import UnsupportedError

X = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    "activation",
    [
        layers.LeakyReLU(0.9),
        layers.ELU(0.3),
        layers.ReLU(max_value=2.0),
        layers.ReLU(negative_slope=0.5),
        layers.Softmax(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_parameters_are_kept(activation: Any) -> None:
    """As an object, as Keras's config, and after a round trip."""
    config = {"class_name": type(activation).__name__, "config": activation.get_config()}
    for given in (activation, config):
        dense = layers.Dense(3, activation=given, kernel_initializer="identity")
        again = layers.Dense.from_config(dense.get_config())
        for layer in (dense, again, layers.Activation(given)):
            np.testing.assert_allclose(layer(X), activation(X), rtol=1e-6)


def test_what_cannot_be_kept_is_refused() -> None:
    """By class and parameter."""
    for given, message in (
        (layers.ReLU(threshold=1.0), "ReLU with .*'threshold': 1.0"),
        ({"class_name": "PReLU", "config": {"name": "relu"}}, "activation PReLU"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            layers.LSTM(3, activation=given)
