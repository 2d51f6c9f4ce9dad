"""Attention and Dot: bits, calls, and what they refuse."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fresh import python
from kernelcases import WIDTHS
from selection import slow

from streamrnn import Input, Model, layers
from streamrnn.errors import ArgumentError, ModelMismatchError, ShapeError, UnsupportedError
from streamrnn.models import SequenceRunner, StepRunner
from streamrnn.nn.kernels import set_threads, team, threads

RNG = np.random.default_rng(3)
X, Y = (RNG.normal(size=(9, steps, 5)).astype(np.float32) for steps in (7, 11))
LAYERS: dict[str, Callable[[], Any]] = {
    "Attention": lambda: layers.Attention(use_scale=True),
    "Attention/concat": lambda: layers.Attention(score_mode="concat"),
    "AdditiveAttention": layers.AdditiveAttention,
    "MultiHeadAttention": lambda: layers.MultiHeadAttention(2, 3),
    "Dot": lambda: layers.Dot(2, normalize=True),
}


def outputs() -> list[np.ndarray]:
    """What each layer returns, with weights that are not random."""
    found = []
    for make in LAYERS.values():
        layer = make()
        layer.build([X.shape, Y.shape])
        layer.set_weights([np.linspace(0.5, 1, w.size).reshape(w.shape) for w in layer.weights])
        found.append(layer([X, Y]))
    return found


def digest() -> str:
    return hashlib.sha256(b"".join(y.tobytes() for y in outputs())).hexdigest()


def test_bits_do_not_depend_on_the_rows_beside_or_on_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(team, "MOST_BACK_OFF", 0)
    monkeypatch.setattr(team, "_team", team._Team())
    found = []
    try:
        for count in (1, 2, 5):
            set_threads(count)
            found.append(digest())
    finally:
        set_threads(0)
    assert len(set(found)) == 1
    for make, together in zip(LAYERS.values(), outputs(), strict=True):
        layer = make()
        layer.build([X.shape, Y.shape])
        layer.set_weights([np.linspace(0.5, 1, w.size).reshape(w.shape) for w in layer.weights])
        for row in range(len(X)):
            one = slice(row, row + 1)
            np.testing.assert_array_equal(layer([X[one], Y[one]]), together[one])


@pytest.mark.parametrize("width", WIDTHS)
@slow
def test_bits_do_not_depend_on_the_width_of_vectors(width: str) -> None:
    """Nor does a kernel reach outside an array. Slow: compiled for each width."""
    code = "from nn.layers.test_attention import digest; print(digest())"
    assert python("-c", code, **WIDTHS[width]).stdout.strip() == digest()


@pytest.mark.parametrize("name", LAYERS)
def test_sequences_of_any_length_run_in_one_batch(name: str) -> None:
    """Each as it runs alone, whatever stands past its end."""
    x, lengths = Input((None, 5)), np.array([7, 3, 0, 1, 7, 5, 5, 6, 2])
    y = layers.Attention()([x, LAYERS[name]()([x, x])]) if name != "Dot" else x
    runner = SequenceRunner(Model(x, layers.LSTM(3, return_sequences=True)(y)))
    (together,) = runner.run([X], lengths)
    for row, length in enumerate(lengths):
        (alone,) = runner.run([np.ascontiguousarray(X[row : row + 1, :length])])
        np.testing.assert_array_equal(together[row, :length], alone[0])


def test_a_query_sees_no_later_step() -> None:
    """Neither in a call on arrays nor in a model, whose other calls of the layer see all."""
    layer, x = layers.Attention(), Input((None, 5))
    later = X.copy()
    later[:, 4:] = 9
    model = Model(x, [layer([x, x], use_causal_mask=True), layer([x, x])])
    for call in (lambda a: layer([a, a], use_causal_mask=True), lambda a: model(a)[0]):
        np.testing.assert_array_equal(call(later)[:, :4], call(X)[:, :4])
    np.testing.assert_array_equal(model(X)[1], layer([X, X]))
    assert (model(X)[1] != model(X)[0]).any()
    again = Model.from_config(model.get_config())
    np.testing.assert_array_equal(again(X)[0], model(X)[0])


def test_masks_are_of_queries_and_values_and_the_first_is_passed_on() -> None:
    q, v = RNG.random((2, 9, 7)) < 0.7
    v[:, 0] = True
    layer = layers.Attention()
    y = layer([X, X], mask=[q, v])
    other = np.where(v[..., None], X, 7)
    np.testing.assert_array_equal(layer([X, other, other], mask=[q, v, None]), y)
    np.testing.assert_array_equal(y._keras_mask, q)
    assert (np.asarray(y)[~q] == 0).all()


def test_a_mask_of_pairs_hides_values_from_queries() -> None:
    """On arrays and in a model: (B, T, S), one for all rows, or one for each head."""
    layer, x = layers.MultiHeadAttention(2, 3), Input((7, 5))
    y, past = layer(X, X, use_causal_mask=True), np.tri(7, dtype=bool)
    for mask in (past, past[None], np.broadcast_to(past, (9, 2, 7, 7))):
        np.testing.assert_array_equal(layer(X, X, attention_mask=mask), y)
    mask = Input((7, 7))
    model = Model([x, mask], layer(x, x, attention_mask=mask))
    np.testing.assert_array_equal(model([X, np.broadcast_to(past, (9, 7, 7))]), y)
    key_mask = np.arange(7) < RNG.integers(1, 7, (9, 1))
    hidden = layer(X, X, X, mask=[None, None, key_mask])
    np.testing.assert_array_equal(hidden, layer([X, X], mask=[None, key_mask]))


def test_what_is_refused() -> None:
    x, v, two = Input((None, 5), name="x"), Input((4,)), Input((None, 4))
    layer = layers.Attention(name="a")
    for inputs in (x, [x], [x, x, x, x], [x, v]):
        with pytest.raises(ShapeError, match=r"'a' .*expected a list \[queries, values\] or"):
            layer(inputs)
    with pytest.raises(ShapeError, match=r"'a' .*expected 5 features on the last axis"):
        layer([x, two])
    with pytest.raises(ShapeError, match=r"'a' .*a key for each value"):
        layer([X, X, Y])
    for kind in (layers.Attention(name="a"), layers.MultiHeadAttention(2, 3, name="a")):
        with pytest.raises(ShapeError, match=r"'a' .*expected as many rows in each"):
            kind([X, X[:8]])
    with pytest.raises(ShapeError, match=r"'d' .*must have as many rows and the same size along"):
        layers.Dot(1, name="d")([X, X[:8]])
    with pytest.raises(ArgumentError, match=r"'a' .*score_mode must be one of dot, concat"):
        layers.Attention(score_mode="sum", name="a")
    with pytest.raises(
        ArgumentError, match=r"'a' .*its call takes no argument 'return_attention_scores'"
    ):
        layer([x, x], return_attention_scores=True)
    with pytest.raises(ArgumentError, match=r"'d' .*takes no argument 'use_causal_mask'"):
        layers.Dense(1, name="d")(x, use_causal_mask=True)
    for option in ({"attention_axes": 2}, {"sliding_window": 3}, {"use_gate": True}):
        with pytest.raises(ArgumentError, match=rf"'m' .*{next(iter(option))}.*"):
            layers.MultiHeadAttention(2, 3, name="m", **option)
    for axes in ((1, 2, 2), "1"):
        with pytest.raises((ShapeError, ArgumentError), match=r"'dot' .*, received "):
            layers.Dot(axes, name="dot")([x, x])
    with pytest.raises(ShapeError, match=r"'dot' .*expected two inputs"):
        layers.Dot(1, name="dot")([x, x, x])
    with pytest.raises(ShapeError, match=r"'dot' .*the same size along axes=2"):
        layers.Dot(2, name="dot")([x, two])


def test_the_numbers_of_steps_are_checked_where_they_are_known() -> None:
    """A model that takes sequences of any length."""
    one, other = Input((None, 5)), Input((None, 5))
    model = Model([one, other], layers.Attention(name="a")([one, one, other]))
    assert model([X, X]).shape == X.shape
    with pytest.raises(ShapeError, match=r"'a' .*a key for each value"):
        model([X, Y])
    model = Model([one, other], layers.Dot(1, name="d")([one, other]))
    with pytest.raises(ShapeError, match=r"'d' .*the same size along axes=1"):
        model([X, Y])


@pytest.mark.parametrize("name", LAYERS)
def test_carried_state_and_training_are_refused_by_name(name: str) -> None:
    layer, x = LAYERS[name](), Input((6, 5))
    model = Model(x, layers.LSTM(2)(layer([layers.Dense(5)(x), x])))
    with pytest.raises(ModelMismatchError, match=f"{layer.name!r}.*needs the whole time axis"):
        StepRunner(model)
    with pytest.raises(UnsupportedError, match=f"{layer.name!r}.*training is not supported"):
        model.compile("sgd", "mse")


def test_the_layers_behind_can_be_trained() -> None:
    """What is before an attention and has weights is frozen."""
    x = Input((7, 5))
    first, y = layers.Dense(5, trainable=False), layers.AdditiveAttention(trainable=False)
    model = Model(x, layers.LSTM(2)(y([first(x), x])))
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(X, np.ones((9, 2)), verbose=0)
    changed = [(a != b).any() for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False] * 3 + [True] * 3
