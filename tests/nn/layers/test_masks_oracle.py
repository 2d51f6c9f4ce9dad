"""Masks between calls on arrays, beside Keras itself."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras
from keras.src.backend import get_keras_mask
from nn.layers.kinds import flat

import streamrnn
from streamrnn import layers

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(3)
X = RNG.normal(size=(3, 6, 4)).astype(np.float32)
X[0, 4:] = X[1, 2] = X[2, :3] = 0
OTHER = RNG.normal(size=(3, 6, 4)).astype(np.float32)
OTHER[0, 3:] = OTHER[2] = 0
IDS = np.array([[3, 1, 4, 0, 0, 0], [2, 0, 1, 4, 0, 3], [1, 2, 3, 4, 1, 2]])
FULL = RNG.normal(size=(3, 6, 4)).astype(np.float32)

Steps = Callable[[Any], list[Any]]

CHAINS: dict[str, tuple[np.ndarray, Steps]] = {
    "masking": (X, lambda k: [k.Masking(), k.LSTM(3)]),
    "embedding": (IDS, lambda k: [k.Embedding(5, 4, mask_zero=True), k.GRU(3)]),
    "no mask": (IDS, lambda k: [k.Embedding(5, 4), k.GRU(3)]),
    "two deep": (X, lambda k: [k.Masking(), k.LSTM(3, return_sequences=True), k.SimpleRNN(2)]),
    "after the end": (X, lambda k: [k.Masking(), k.LSTM(6), k.RepeatVector(2), k.GRU(2)]),
    "backwards": (X, lambda k: [k.Masking(), k.GRU(3, go_backwards=True)]),
    "zeros": (
        X,
        lambda k: [
            k.Masking(),
            k.GRU(3, return_sequences=True, zero_output_for_mask=True),
            k.LSTM(2, return_sequences=True),
        ],
    ),
    "states": (X, lambda k: [k.Masking(), k.LSTM(3, return_sequences=True, return_state=True)]),
    "stack": (
        X,
        lambda k: [
            k.Masking(),
            k.RNN([k.LSTMCell(3), k.GRUCell(2)], return_sequences=True, return_state=True),
        ],
    ),
    "both ways": (
        X,
        lambda k: [
            k.Masking(),
            k.Bidirectional(k.LSTM(3, return_sequences=True)),
            k.Bidirectional(k.GRU(2), merge_mode="sum"),
        ],
    ),
    "two outputs": (
        X,
        lambda k: [k.Masking(), k.Bidirectional(k.GRU(2, return_sequences=True), merge_mode=None)],
    ),
    "step by step": (
        X,
        lambda k: [
            k.Masking(),
            k.TimeDistributed(k.Dense(4)),
            k.Dense(4, activation="tanh"),
            k.Dropout(0.5),
            k.LayerNormalization(),
            k.BatchNormalization(),
            k.Activation("relu"),
            k.ReLU(),
            k.Rescaling(2.0, 0.1),
            k.LSTM(3),
        ],
    ),
    "convolution": (X, lambda k: [k.Masking(), k.Conv1D(4, 2, padding="causal"), k.LSTM(3)]),
    "reshape": (X, lambda k: [k.Masking(), k.Reshape((3, 8)), k.LSTM(3)]),
    "flatten": (X, lambda k: [k.Masking(), k.Flatten(), k.Dense(2)]),
}


def assert_agree(ours: Any, theirs: Any) -> None:
    """Numbers within 1e-5; and the same mask, where it leaves out a step."""
    found, wanted = _leaves(ours), _leaves(theirs)
    assert len(found) == len(wanted)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, np.asarray(other), rtol=1e-5, atol=1e-5)
        mask = get_keras_mask(other)
        if mask is None or np.asarray(mask).all():
            assert type(mine) is np.ndarray
        else:
            np.testing.assert_array_equal(mine._keras_mask, np.asarray(mask))


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [tree]


def twins(make: Steps, x: Any, seed: int = 0) -> tuple[list[Any], list[Any]]:
    """The layers in both libraries, called once and given the same weights."""
    theirs, ours = make(keras.layers), make(layers)
    rng = np.random.default_rng(seed)
    y, z = x, x
    for one, other in zip(theirs, ours, strict=True):
        y, z = one(y), other(z)
        weights = [abs(rng.normal(size=w.shape)) * 0.5 for w in one.get_weights()]
        one.set_weights(weights)
        other.set_weights(weights)
    return theirs, ours


@pytest.mark.parametrize("name", CHAINS)
def test_layers_called_one_by_one_on_arrays_agree_with_keras(name: str) -> None:
    """After each call: the numbers, and the mask that goes on."""
    x, make = CHAINS[name]
    theirs, ours = twins(make, x)
    y: Any = x
    z: Any = x
    for one, other in zip(theirs, ours, strict=True):
        y, z = one(y), other(z)
        assert_agree(z, y)


MERGES = ["Add", "Subtract", "Average", "Multiply", "Maximum", "Minimum", "Concatenate"]


@pytest.mark.parametrize("inputs", [(X, OTHER), (OTHER, X), (X, FULL), (FULL, X)])
@pytest.mark.parametrize("name", MERGES)
def test_merged_arrays_agree_with_keras(name: str, inputs: Any) -> None:
    """Two arrays with masks, one of them all true or none; then a recurrent layer."""
    theirs, ours = [], []
    for found, k in ((theirs, keras.layers), (ours, layers)):
        a, b = (k.Masking()(x) if x is not FULL else x for x in inputs)
        found.append(getattr(k, name)()([a, b]))
    assert_agree(ours, theirs)
    one, other = keras.layers.GRU(3), layers.GRU(3)
    other.build(ours[0].shape)
    last = one(theirs[0])
    other.set_weights(one.get_weights())
    assert_agree(other(ours[0]), last)


def test_concatenated_in_time() -> None:
    """The masks are joined along time as well; all true where there was none."""
    for inputs in ((X, OTHER), (FULL, X)):
        made = []
        for k in (layers, keras.layers):
            a, b = (k.Masking()(x) if x is not FULL else x for x in inputs)
            made.append(k.Concatenate(axis=1)([a, b]))
        assert_agree(*made)


@pytest.mark.parametrize("functional", [False, True])
def test_a_model_takes_and_gives_masks_on_arrays_as_keras(functional: bool) -> None:
    """Sequential and Model: what comes in masked goes through, and goes out with the sequence."""
    made = []
    for library in (streamrnn, keras):
        k = library.layers
        inner = [k.Dense(4), k.GRU(4, return_sequences=True)]
        if functional:
            x = library.Input((None, 4))
            model: Any = library.Model(x, inner[1](inner[0](x)))
        else:
            model = library.Sequential([library.Input((None, 4)), *inner])
        made.append((model, k.Masking()(X), k.LSTM(3)))
    (ours, x, last), (theirs, x_k, last_k) = made
    ours.set_weights(theirs.get_weights())
    assert_agree(ours(x), theirs(x_k))
    assert_agree(ours(X), theirs(X))
    end = last_k(theirs(x_k))
    last.build((None, None, 4))
    last.set_weights(last_k.get_weights())
    assert_agree(last(ours(x)), end)
    # Both take plain arrays to predict.
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x_k, verbose=0), atol=1e-5)
    assert type(ours.predict(x)) is np.ndarray


def test_a_model_of_two_inputs_takes_a_mask_from_each() -> None:
    """In a list and in a dictionary; and a model that masks gives the mask with its output."""
    made = []
    for library in (streamrnn, keras):
        k = library.layers
        a, b = library.Input((None, 4), name="a"), library.Input((None, 4), name="b")
        model = library.Model([a, b], k.GRU(3, return_sequences=True)(k.Concatenate()([a, b])))
        masking = library.Sequential([library.Input((None, 4)), k.Masking()])
        made.append((model, masking(X), k.Masking()(OTHER)))
    (ours, a, b), (theirs, a_k, b_k) = made
    ours.set_weights(theirs.get_weights())
    assert_agree([a, b], [a_k, b_k])
    expected = theirs([a_k, b_k])
    assert_agree(ours([a, b]), expected)
    assert_agree(ours({"b": b, "a": a}), expected)
    assert_agree(ours([a, FULL]), theirs([a_k, keras.ops.convert_to_tensor(FULL)]))


def test_what_is_computed_from_an_array_has_no_mask_as_in_keras() -> None:
    """Twice the output, or all but its first step: the layer behind sees every step."""
    for change in (lambda y: y * 2, lambda y: y[:, 1:], lambda y: y + y, lambda y: -y):
        (masking, lstm), (ours, mine) = twins(lambda k: [k.Masking(), k.LSTM(3)], X)
        assert_agree(mine(change(ours(X))), lstm(change(masking(X))))


def test_an_explicit_mask_beats_the_carried_one_as_in_keras() -> None:
    """And is what goes on."""
    mask = RNG.random((3, 6)) < 0.6
    make: Steps = lambda k: [k.Masking(), k.LSTM(3, return_sequences=True)]  # noqa: E731
    (masking, lstm), (ours, mine) = twins(make, X)
    assert_agree(mine(ours(X), mask=mask), lstm(masking(X), mask=mask))


def test_masked_calls_of_a_stateful_layer_agree_with_keras() -> None:
    """The state goes from call to call past masked steps."""
    make: Steps = lambda k: [k.Masking(), k.LSTM(3, stateful=True, return_sequences=True)]  # noqa: E731
    (masking, lstm), (ours, mine) = twins(make, X)
    lstm.reset_state()
    mine.reset_state()
    for part in (X[:, :3], X[:, 3:]):
        mine_y, theirs_y = mine(ours(part)), lstm(masking(part))
        np.testing.assert_allclose(mine_y, np.asarray(theirs_y), atol=1e-5)
    for state, other in zip(flat(mine.states), flat(lstm.states), strict=True):
        np.testing.assert_allclose(state, np.asarray(other), atol=1e-5)
