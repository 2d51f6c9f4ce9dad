"""Gradients of recurrent layers under each option, against the oracle; what one call hands on.

Slow: GRU with reset_after=False, whose kernels no other quick test has.
"""

from typing import Any

import naive
import naive_backward
import numpy as np
import pytest
from nn.layers.kinds import assert_same
from nn.training.trained import weighted
from selection import first_quick, slow

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import ShapeError
from streamrnn.nn.kernels import bptt

RNG = np.random.default_rng(11)
MASK = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
X = (RNG.normal(size=(4, 5, 3)) * MASK[..., None]).astype(np.float32)
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "lstm": (layers.LSTM, naive.lstm, {}),
    "gru": (layers.GRU, naive.gru, {"reset_after": True}),
    "gru_before": (layers.GRU, naive.gru, {"reset_after": False}),
    "simple_rnn": (layers.SimpleRNN, naive.simple_rnn, {}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "sequences": {"return_sequences": True},
    "last": {},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "zeros": {"zero_output_for_mask": True, "return_sequences": True},
    "zeros last": {"zero_output_for_mask": True},
    "no bias": {"use_bias": False, "return_sequences": True},
}


EACH_KIND = pytest.mark.parametrize(
    "kind", first_quick(sorted(KINDS, key="gru_before".__eq__), len(KINDS) - 1)
)


@pytest.fixture(autouse=True)
def many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part for each step; the contracts of layers have one for all."""
    monkeypatch.setattr(bptt, "PART", 1)


def assert_gradients(model: Model, y: Any, predicted: Any, mask: Any = None) -> None:
    """`predicted(weights)`: the oracle's outputs for X, of nested lists."""
    weights = [naive.lists(w) for w in model.weights]

    def loss() -> float:
        return naive_backward.mean_squared_error(y.tolist(), predicted(weights), mask)

    found = model.gradients(X, y)
    assert len(found) == len(weights)
    for number, (name, gradient) in enumerate(found.items()):
        wanted = np.array(naive_backward.central(loss, weights, number))
        assert np.abs(gradient - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.parametrize("options", OPTIONS)
@EACH_KIND
def test_gradients_under_a_mask(kind: str, options: str) -> None:
    """Of a Dense before the layer too: the gradient of its inputs."""
    (layer, cell, own), given = KINDS[kind], OPTIONS[options]
    model = Sequential(
        [Input((None, 3)), layers.Masking(), layers.Dense(3), layer(6, **own, **given)]
    )
    model.compile("sgd", "mse")
    y = RNG.normal(size=weighted(model)(X).shape)
    sequences = given.get("return_sequences", False)
    ways = {k: given[k] for k in ("go_backwards", "zero_output_for_mask") if k in given}

    def predicted(w: Any) -> Any:
        x = naive.dense(X, *w[:2])
        made = naive.layer(cell(*w[2:], **own), x, mask_BT=MASK, **ways)
        return made[0] if sequences else made[1]

    assert_gradients(model, y, predicted, MASK.tolist() if sequences else None)


@pytest.mark.parametrize("kind", first_quick(["lstm", "gru", "gru_before", "simple_rnn"]))
def test_gradients_of_initial_states(kind: str) -> None:
    """An encoder hands its states to a decoder: masked steps, and a row without any.

    Slow: other layers; quick tests have their gradients under masks.
    """
    layer, cell, own = KINDS[kind]
    x = Input((None, 3))
    _, *states = layer(6, return_state=True, **own)(x)
    read = layers.Masking()(x)
    model = weighted(Model(x, layer(6, **own)(read, initial_state=states)))
    model.compile("sgd", "mse")
    y = RNG.normal(size=(4, 6))

    def predicted(w: Any) -> Any:
        half = len(w) // 2
        _, _, ends = naive.layer(cell(*w[:half], **own), X)
        return naive.layer(cell(*w[half:], **own), X, states=ends, mask_BT=MASK)[1]

    assert_gradients(model, y, predicted)


@pytest.mark.parametrize(
    ("kind", "outer", "inner"),
    [
        ("lstm", "hard_sigmoid", "relu"),
        ("gru", "sigmoid", "softsign"),
        ("lstm", "linear", "elu"),
        ("gru", "relu6", "selu"),
    ],
)
@slow
def test_gradients_of_other_activations(kind: str, outer: str, inner: str) -> None:
    """Cells have one function for the slope of an activation: each is in one of them.

    Slow: pairs of activations that no contract of a layer has, each compiled for itself.
    """
    (layer, cell, own) = KINDS[kind]
    names = {"activation": inner, "recurrent_activation": outer}
    model = weighted(Sequential([Input((None, 3)), layer(6, **own, **names)]))
    model.compile("sgd", "mse")
    y = RNG.normal(size=(4, 6))
    assert_gradients(model, y, lambda w: naive.layer(cell(*w, **own, **names), X)[1])


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
@EACH_KIND
def test_gradients_under_dropout(kind: str, rate: str) -> None:
    """The factors of a lane are rows of the weights, scaled: as if no factor were drawn."""
    layer, _, own = KINDS[kind]
    model = weighted(Sequential([Input((None, 3)), layer(6, **own, **{rate: 0.5}, seed=2)]))
    model.compile("sgd", "mse")
    y = RNG.normal(size=(1, 6))
    x = RNG.normal(size=(1, 5, 3)).astype(np.float32)
    drawn = model.gradients(x, y, training=True)
    number = 0 if rate == "dropout" else 1
    weights = model.get_weights()
    # A row of the weights that is multiplied by 0 has no gradient.
    zero = ~list(drawn.values())[number].any(axis=1)
    assert 0 < zero.sum() < len(zero)
    scaled = [w.copy() for w in weights]
    scaled[number] = np.where(zero[:, None], 0, 2 * weights[number])
    model.set_weights(scaled)
    plain = model.gradients(x, y)
    for i, (name, gradient) in enumerate(plain.items()):
        factor = np.where(zero, 0, 2)[:, None] if i == number else 1
        np.testing.assert_allclose(drawn[name], gradient * factor, rtol=2e-4, atol=2e-6)


@EACH_KIND
def test_gradients_of_initial_states_under_dropout(kind: str) -> None:
    """As if rows of the recurrent weights were scaled, as above."""
    layer, _, own = KINDS[kind]
    x = Input((None, 3))
    _, *states = layer(6, return_state=True, **own)(x)
    decoder = layer(6, recurrent_dropout=0.5, seed=2, **own)
    model = weighted(Model(x, decoder(x, initial_state=states)))
    model.compile("sgd", "mse")
    y, data = RNG.normal(size=(1, 6)), RNG.normal(size=(1, 5, 3)).astype(np.float32)
    drawn = model.gradients(data, y, training=True)
    weights = model.get_weights()
    number = len(weights) // 2 + 1
    zero = ~list(drawn.values())[number].any(axis=1)
    assert 0 < zero.sum() < len(zero)
    weights[number] = np.where(zero[:, None], 0, 2 * weights[number])
    model.set_weights(weights)
    plain = model.gradients(data, y)
    for name in list(plain)[: number - 1]:
        np.testing.assert_allclose(drawn[name], plain[name], rtol=2e-4, atol=2e-6)


def test_dropout_depends_on_lane_and_update_alone() -> None:
    """A lane has the same factors in any batch of an update, and new ones in the next."""
    model = weighted(Sequential([Input((None, 3)), layers.LSTM(6, dropout=0.5)]))
    model.compile("sgd", "mse")
    x, y = RNG.normal(size=(1, 5, 3)), np.zeros((1, 6))
    alone = model.gradients(x, y, training=True)
    weight = [1.0, 0.0, 0.0]
    beside = model.gradients(np.repeat(x, 3, 0), np.repeat(y, 3, 0), weight, training=True)
    for name, gradient in alone.items():
        np.testing.assert_allclose(3 * beside[name], gradient, rtol=1e-6, atol=1e-9)
    model.optimizer.iterations = 1
    later = model.gradients(x, y, training=True)
    assert any((later[name] != gradient).any() for name, gradient in alone.items())


def test_a_stateful_layer_carries_its_state_between_batches() -> None:
    """Outputs are those of a longer sequence, and gradients stop at the start of a call."""
    model = weighted(
        Sequential(
            [Input((None, 3), batch_size=4), layers.GRU(5, stateful=True, return_sequences=True)]
        )
    )
    model.compile("sgd", "mse")
    model.optimizer.learning_rate = 0.0
    whole = model(X)
    model.reset_states()
    y = np.zeros((4, 2, 5))
    model.train_on_batch(X[:, :2], y)
    states = model.get_state()
    assert_same(model.layers[0].states[0], whole[:, 1])
    gradients = model.gradients(X[:, 2:4], y)
    assert_same(model.layers[0].states[0], states[model.layers[0].name][0])
    value = model.test_on_batch(X[:, 2:4], y)
    assert value == pytest.approx(float((whole[:, 2:4] ** 2).mean()), rel=1e-5)
    model.reset_states()
    fresh = model.gradients(X[:, 2:4], y)
    assert any((fresh[name] != gradient).any() for name, gradient in gradients.items())


def test_a_batch_that_is_refused_leaves_states_and_weights() -> None:
    model = weighted(Sequential([Input((None, 3)), layers.LSTM(4, stateful=True)]))
    model.compile("adam", "mse")
    model.train_on_batch(X, np.zeros((4, 4)))
    before, weights = model.layers[0].states, model.get_weights()
    with pytest.raises(ShapeError, match=r"y must have shape \(4, 4\), received \(4, 3\)"):
        model.train_on_batch(X, np.zeros((4, 3)))
    assert_same(model.layers[0].states, before)
    assert_same(model.get_weights(), weights)
