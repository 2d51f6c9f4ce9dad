"""Dropout: only with training=True, one mask a call, per gate where Keras has it so, seeded."""

from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same, built

from streamrnn import Sequential, layers
from streamrnn.errors import ConfigError, ShapeError, UnsupportedError

RNG = np.random.default_rng(4)
X = RNG.normal(size=(4, 5, 3)).astype(np.float32)
KINDS = ["simple_rnn", "lstm", "gru", "gru_before"]
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@EACH_KIND
def test_without_training_no_bit_changes(kind: str) -> None:
    """Rates or none: the same numbers."""
    plain = built(kind, 5, 3, return_sequences=True)
    drops = built(kind, 5, 3, return_sequences=True, dropout=0.5, recurrent_dropout=0.5)
    assert_same(drops(X), plain(X))
    assert_same(drops(X, training=False), plain(X))
    assert (drops(X, training=True) != plain(X)).any()


@EACH_KIND
def test_one_seed_draws_alike(kind: str) -> None:
    """Two layers with one seed, call by call; a second call draws anew."""
    one, other = (built(kind, 5, 3, dropout=0.5, recurrent_dropout=0.3, seed=7) for _ in range(2))
    first = one(X, training=True)
    assert_same(first, other(X, training=True))
    second = one(X, training=True)
    assert (first != second).any()
    assert_same(second, other(X, training=True))


@EACH_KIND
def test_input_dropout_is_a_mask_on_the_inputs(kind: str) -> None:
    """One mask a row for all steps and gates, values 0 or 1 / (1 - rate)."""
    layer = built(kind, 5, 3, return_sequences=True, dropout=0.5, seed=1)
    again = built(kind, 5, 3, seed=1, dropout=0.5)
    masks, recurrent = again.cell.draw_masks(4, 3)
    assert masks.shape == (4, 1, 3)
    assert set(np.unique(masks)) == {0, 2}
    assert (recurrent == 1).all()
    plain = built(kind, 5, 3, return_sequences=True)
    np.testing.assert_allclose(layer(X, training=True), plain(X * masks), rtol=1e-5, atol=1e-6)


@EACH_KIND
def test_recurrent_dropout_has_a_mask_for_each_gate(kind: str) -> None:
    """Shapes, scaling, and the equation, step by step in float64 (b7 of Keras >= 3.8)."""
    layer = built(kind, 5, 3, dropout=0.25, recurrent_dropout=0.5, seed=3, return_sequences=True)
    gates = layer.cell.gates
    x_masks, h_masks = built(
        kind, 5, 3, dropout=0.25, recurrent_dropout=0.5, seed=3
    ).cell.draw_masks(4, 3)
    assert x_masks.shape == (4, gates, 3)
    assert h_masks.shape == (4, gates, 5)
    assert set(np.unique(h_masks)) == {0, 2}
    if gates > 1:
        assert (h_masks[:, 0] != h_masks[:, 1]).any()
    expected = EQUATIONS[kind](*layer.get_weights(), x_masks, h_masks)
    np.testing.assert_allclose(layer(X, training=True), expected, rtol=1e-5, atol=1e-5)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def masked(x: Any, kernel: Any, masks: Any, gates: int) -> list[Any]:
    """(x * mask of the gate) @ kernel of the gate, gate by gate."""
    blocks = np.split(np.asarray(kernel, np.float64), gates, axis=1)
    return [(x * masks[:, g]) @ block for g, block in enumerate(blocks)]


def simple_rnn(k: Any, r: Any, b: Any, mx: Any, mh: Any) -> Any:
    h, outputs = np.zeros((4, 5)), []
    for t in range(5):
        h = np.tanh(masked(X[:, t], k, mx, 1)[0] + masked(h, r, mh, 1)[0] + b)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def lstm(k: Any, r: Any, b: Any, mx: Any, mh: Any) -> Any:
    h, c, outputs = np.zeros((4, 5)), np.zeros((4, 5)), []
    for t in range(5):
        parts = zip(masked(X[:, t], k, mx, 4), masked(h, r, mh, 4), np.split(b, 4), strict=True)
        i, f, g, o = (sum(part) for part in parts)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)  # c is never dropped
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def gru(k: Any, r: Any, b: Any, mx: Any, mh: Any) -> Any:
    h, outputs = np.zeros((4, 5)), []
    after = b.ndim == 2
    bx, bh = (np.split(row, 3) for row in (b if after else (b, np.zeros_like(b))))
    r_h = np.split(r, 3, axis=1)[2]
    for t in range(5):
        x, inner = masked(X[:, t], k, mx, 3), masked(h, r, mh, 3)
        z = sigmoid(x[0] + bx[0] + inner[0] + bh[0])
        reset = sigmoid(x[1] + bx[1] + inner[1] + bh[1])
        past = reset * (inner[2] + bh[2]) if after else (reset * h * mh[:, 2]) @ r_h
        h = z * h + (1 - z) * np.tanh(x[2] + bx[2] + past)  # z * h is not dropped
        outputs.append(h)
    return np.stack(outputs, axis=1)


EQUATIONS: dict[str, Any] = {"simple_rnn": simple_rnn, "lstm": lstm, "gru": gru, "gru_before": gru}


@EACH_KIND
def test_a_rate_of_one(kind: str) -> None:
    """SimpleRNN drops everything, GRU and LSTM nothing, as in Keras."""
    plain, drops = built(kind, 5, 3), built(kind, 5, 3, dropout=1.0)
    expected = plain(X * 0) if kind == "simple_rnn" else plain(X)
    assert_same(drops(X, training=True), expected)


def test_dropout_layer() -> None:
    """Inert without training; with it zeros and 1 / (1 - rate), redrawn each call, seeded."""
    layer, twin = layers.Dropout(0.25, seed=5), layers.Dropout(0.25, seed=5)
    ones = np.ones((100, 100), np.float32)
    assert_same(layer(X), X)
    first = layer(ones, training=True)
    assert_same(first, twin(ones, training=True))
    assert (first != layer(ones, training=True)).any()
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.75])
    assert abs((first == 0).mean() - 0.25) < 0.02
    assert_same(layers.Dropout(0.0)(X, training=True), X)
    assert not layers.Dropout(1.0)(X, training=True).any()


def test_dropout_shared_over_time() -> None:
    """noise_shape and SpatialDropout1D: one mask for all steps of a row."""
    for layer in (layers.Dropout(0.5, noise_shape=(None, 1, None)), layers.SpatialDropout1D(0.5)):
        y = layer(np.ones((6, 7, 8)), training=True)
        assert (y == y[:, :1]).all()
        assert len(np.unique(y)) == 2


def test_a_shorter_noise_shape_is_of_the_last_axes() -> None:
    """As Keras broadcasts it; without training, no noise_shape is read."""
    y = layers.Dropout(0.5, noise_shape=(8,))(np.ones((6, 7, 8)), training=True)
    assert (y == y[:1, :1]).all()
    assert len(np.unique(y)) == 2
    assert_same(layers.Dropout(0.5, noise_shape=(9,))(X), X)


@pytest.mark.parametrize("noise_shape", [(4, 5), (4, 5, 3, 1), (5, 5, 3), (None, 1)])
def test_a_noise_shape_that_does_not_fit(noise_shape: tuple[int | None, ...]) -> None:
    layer = layers.Dropout(0.5, noise_shape=noise_shape, name="it")
    with pytest.raises(ShapeError, match=r"'it' .*noise_shape=.* does not fit inputs of shape \(4"):
        layer(X, training=True)


@pytest.mark.parametrize("training", [False, True])
def test_spatial_dropout_is_of_sequences(training: bool) -> None:
    with pytest.raises(ShapeError, match=r"'it' .*expected \(batch, time, features\), received sh"):
        layers.SpatialDropout1D(0.5, name="it")(X[0], training=training)


def test_training_reaches_every_layer_of_a_model() -> None:
    """Nested ones and Bidirectional too; and not without it."""
    for drops in (
        layers.LSTM(4, dropout=0.5),
        layers.Bidirectional(layers.GRU(4, recurrent_dropout=0.5)),
        Sequential([layers.Input((None, 3)), layers.Dropout(0.5), layers.SimpleRNN(4)]),
        layers.RNN([layers.LSTMCell(4), layers.GRUCell(3, dropout=0.5)]),
        layers.TimeDistributed(layers.Dropout(0.5)),
    ):
        model = Sequential([layers.Input((None, 3)), drops])
        assert_same(model(X), model.predict(X))
        assert (model(X, training=True) != model(X)).any()


def test_monte_carlo_dropout() -> None:
    """predict(training=True, samples=n): mean and standard deviation of n draws."""
    model = Sequential([layers.Input((None, 3)), layers.Dropout(0.5, seed=1), layers.LSTM(4)])
    twin = Sequential.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    mean, deviation = model.predict(X, training=True, samples=5)
    drawn = np.stack([twin(X, training=True) for _ in range(5)])
    np.testing.assert_allclose(mean, drawn.mean(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(deviation, drawn.std(axis=0), rtol=1e-4, atol=1e-7)
    assert (deviation > 0).all()
    with pytest.raises(ConfigError, match="needs training=True"):
        model.predict(X, samples=5)


def test_a_call_can_keep_dropout_on() -> None:
    """Dropout(…)(x, training=True) on a symbol drops in every pass, as in Keras 2."""
    x = layers.Input((3,))
    model = layers.Dropout(0.5)(x, training=True)
    from streamrnn import Model

    y = Model(x, model)(np.ones((50, 3)))
    assert set(np.unique(y)) == {0, 2}


@pytest.mark.parametrize("rate", [-0.1, 1.5, "half", True])
def test_rates_that_are_none(rate: Any) -> None:
    """Refused with the layer's name and what was received."""
    for make in (
        lambda: layers.Dropout(rate, name="lost"),
        lambda: layers.LSTM(3, dropout=rate, name="lost"),
        lambda: layers.GRU(3, recurrent_dropout=rate, name="lost"),
    ):
        with pytest.raises(UnsupportedError, match=r"'lost'.* between 0 and 1. Received"):
            make()
