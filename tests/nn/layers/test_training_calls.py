"""Calls with training=True: as Keras computes them (tests/golden/make_training.py), or refused."""

import json
from ast import literal_eval
from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
from golden.cases import build
from nn.layers.kinds import assert_same

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import ConfigError, ModelMismatchError
from streamrnn.models import SequenceRunner, StepRunner

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "training.json").read_text())
CASES = {name: case for name, case in GOLDEN.items() if isinstance(case, dict)}
X = np.random.default_rng(4).normal(size=(4, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_a_call_in_training_gives_the_outputs_and_the_weights_of_keras(name: str) -> None:
    case = CASES[name]
    built = [build(layers, spec) for spec in literal_eval(case["layers"])]
    layer = built[0] if len(built) == 1 else Sequential(built)
    x = np.array(case["x"], np.float32)
    layer.build(x.shape)
    layer.set_weights([np.array(w) for w in case["weights"]])
    layer.trainable = not case["frozen"]
    mask = {} if case["mask"] is None else {"mask": np.array(case["mask"])}
    y = layer(x, training=True, **mask)
    np.testing.assert_allclose(y, np.array(case["y"]), rtol=1e-5, atol=1e-5)
    for mine, after in zip(layer.get_weights(), case["after"], strict=True):
        np.testing.assert_allclose(mine, np.array(after), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_moments_of_a_batch_are_those_of_plain_python(masked: bool) -> None:
    """Three calls: each moves the moving mean and variance on."""
    rng = np.random.default_rng(5)
    mask = rng.random((4, 5)) < 0.6 if masked else None
    layer = layers.BatchNormalization(momentum=0.8)
    layer.build((None, None, 3))
    moving_mean, moving_variance = [0.0] * 3, [1.0] * 3
    for _ in range(3):
        x = rng.normal(2, 3, X.shape).astype(np.float32)
        mean, variance = naive.moments(x, mask)
        y = naive.batch_normalization(x.tolist(), mean, variance)
        np.testing.assert_allclose(layer(x, mask=mask, training=True), y, rtol=1e-5, atol=1e-5)
        moving_mean = naive.moved(moving_mean, mean, 0.8)
        moving_variance = naive.moved(moving_variance, variance, 0.8)
        np.testing.assert_allclose(layer.moving_mean, moving_mean, rtol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, moving_variance, rtol=1e-5)


class Inner(layers.Layer):
    """Written for Keras: it says nothing of `training` to the layers inside."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm, self.drop = layers.BatchNormalization(), layers.Dropout(0.5, seed=1)

    def call(self, inputs: Any) -> Any:
        return self.drop(self.norm(inputs))


class InnerCell(Inner):
    """One as a cell."""

    state_size = 3

    def call(self, inputs: Any, states: Any) -> Any:  # type: ignore[override]
        return self.drop(inputs) + states[0], states


@pytest.mark.parametrize("layer", [Inner(), layers.RNN(InnerCell())])
def test_layers_inside_a_call_have_its_training(layer: Any) -> None:
    """As in Keras; the next call has its own again."""
    outside = layer(X)
    assert (layer(X, training=True) != outside).any()
    assert_same(layer(X), layer(X))


def test_training_set_on_a_layer_is_set_on_those_inside() -> None:
    """As in Keras: a frozen model has no batch moments, in no layer inside."""
    norm = layers.BatchNormalization()
    model = Sequential([Input((None, 3)), Sequential([layers.Dense(3), norm])])
    model.trainable = False
    assert not norm.trainable
    assert_same(model(X, training=True), model(X))
    model.trainable = True
    assert (model(X, training=True) != model(X)).any()


def test_monte_carlo_dropout_does_not_move_statistics() -> None:
    """Refused by name; frozen, as the message says, only dropout is drawn."""
    norm = layers.BatchNormalization(name="norm")
    inner = layers.TimeDistributed(norm)
    model = Sequential([Input((None, 3)), layers.Dropout(0.5), inner])
    with pytest.raises(ConfigError, match=r"layer 'norm' .*trainable = False"):
        model.predict(X, training=True, samples=3)
    assert not norm.moving_mean.any()
    norm.trainable = False
    assert model.predict(X, training=True, samples=3)[1].any()


@pytest.mark.parametrize("runner", [StepRunner, SequenceRunner])
def test_a_pipeline_refuses_a_call_that_is_always_in_training(runner: Any) -> None:
    """Its outputs would be random, or mix streams; the message names the layer inside a model."""
    x = Input((None, 3))
    inner = Model(x, layers.Dropout(0.5, name="drop")(x, training=True), name="inner")
    y = Input((None, 3))
    with pytest.raises(ModelMismatchError, match=r"layer 'inner/drop' \(Dropout\) .*training=True"):
        runner(Model(y, inner(y)))
