"""Masks that arrays carry from one call of a layer to the next. (Against Keras: the oracle.)"""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from contracts.rows_layers import ON_FEATURES
from nn.layers.kinds import KINDS, assert_same, built
from selection import first_quick

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import DTypeError, ShapeError

RNG = np.random.default_rng(4)
GAPS = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]], np.bool_)
OTHER = GAPS[::-1, ::-1].copy()
FULL = RNG.normal(size=(3, 6, 4)).astype(np.float32)
X = np.where(GAPS[..., None], FULL, np.float32(0))
COMPILED = ["custom", "custom_states", "custom_stacked"]


def masked(x: Any = X) -> Any:
    """As a layer returns it."""
    return layers.Masking()(x)


@pytest.mark.parametrize(
    "kind", first_quick([*(k for k in KINDS if k not in COMPILED), *COMPILED], len(KINDS) - 3)
)
def test_a_carried_mask_is_the_mask_of_the_call(kind: str) -> None:
    """For every kind of recurrent layer, the bits of the same call with mask=.

    Slow: custom cells, which are compiled in each process.
    """
    layer = built(kind, 5, 4, return_sequences=True, return_state=True)
    made, expected = layer(masked()), layer(X, mask=GAPS)
    assert_same(made, expected)
    assert_same(made[0]._keras_mask.astype(np.float32), GAPS.astype(np.float32))
    assert all(type(state) is np.ndarray for state in _flat(made[1:]))


def _flat(tree: Any) -> list[Any]:
    return [leaf for part in tree for leaf in _flat(part)] if isinstance(tree, list) else [tree]


def test_embedded_padding_is_left_out() -> None:
    """mask_zero=True, called on an array of ids, as in a model."""
    ids = np.array([[3, 1, 0], [2, 0, 4]])
    embedding, lstm = layers.Embedding(5, 4, mask_zero=True), built("lstm", 3, 4)
    assert_same(lstm(embedding(ids)), Sequential([embedding, lstm])(ids))
    assert (lstm(embedding(ids)) != lstm(np.asarray(embedding(ids)))).any()


def test_an_explicit_mask_replaces_the_carried_one() -> None:
    """On a layer and on a model; what goes on is the explicit one."""
    lstm = built("lstm", 3, 4, return_sequences=True)
    for called in (lstm, Sequential([Input((None, 4)), lstm])):
        y = called(masked(), mask=OTHER)
        assert_same(y, lstm(X, mask=OTHER))
        np.testing.assert_array_equal(y._keras_mask, OTHER)


def test_lengths_cut_the_carried_mask() -> None:
    """A step counts if the mask has it and the row is that long, as in a model that masks."""
    lengths = np.array([6, 2, 3])
    both = GAPS & (np.arange(6) < lengths[:, None])
    lstm = built("lstm", 3, 4)
    expected = lstm(X, mask=both)
    assert_same(lstm(masked(), lengths=lengths), expected)
    assert_same(Sequential([Input((None, 4)), lstm])(masked(), lengths=lengths), expected)
    whole = Sequential([Input((None, 4)), layers.Masking(), lstm])
    assert_same(whole(X, lengths=lengths), expected)


def test_a_call_with_initial_state_keeps_to_the_carried_mask() -> None:
    """As in a model, so that a sequence may be cut between two calls. (Keras 3 forgets it.)"""
    lstm = built("lstm", 3, 4, return_state=True)
    _, *states = lstm(masked(X[:, :2]))
    assert_same(lstm(masked(X[:, 2:]), initial_state=states), lstm(masked()))


@pytest.mark.parametrize("name", ON_FEATURES)
def test_without_a_masked_step_plain_arrays_come_out(name: str) -> None:
    """No mask, or one that leaves out nothing: exactly np.ndarray."""
    layer = ON_FEATURES[name]()
    x = FULL + 5
    for mask in (None, np.ones((3, 6), np.bool_)):
        made = _flat(layer(x, mask=mask) if mask is not None else layer(x))
        assert [type(array) for array in made] == [np.ndarray] * len(made)
    assert type(masked(x)) is np.ndarray


@pytest.mark.parametrize("name", ON_FEATURES)
def test_eager_calls_mask_as_a_model_does(name: str) -> None:
    """One rule: what each layer passes on to an LSTM is what it passes on in a graph."""
    layer, lstm = ON_FEATURES[name](), layers.LSTM(3, return_sequences=True)
    if isinstance(layer, layers.LSTM):
        layer.stateful = layer.return_state = False
    model = Sequential([Input((6, 4)), layers.Masking(), layer])
    if len(model.output_shape) == 3:
        model.add(lstm)
    model.set_weights([abs(RNG.normal(size=w.shape)) * 0.5 for w in model.get_weights()])
    y = layer(masked())
    y = lstm(y) if len(model.output_shape) == 3 else y
    assert_same(y, model(X))
    assert type(y) is type(model(X))


COMPUTED: dict[str, Callable[[Any], Any]] = {
    "slice": lambda y: y[:, 1:],
    "whole slice": lambda y: y[:],
    "index": lambda y: y[0],
    "chosen": lambda y: y[y > 0],
    "iterated": lambda y: next(iter(y)),
    "product": lambda y: y * 2,
    "reflected": lambda y: 1 + y,
    "of two": lambda y: y + y,
    "negative": lambda y: -y,
    "comparison": lambda y: y > 0,
    "matmul": lambda y: y @ np.ones((4, 2), np.float32),
    "ufunc": np.tanh,
    "reduced": lambda y: y.sum(axis=1),
    "mean": lambda y: y.mean(axis=1),
    "max": lambda y: y.max(axis=1),
    "several axes": lambda y: np.sum(y, axis=(0, 1)),
    "reshape": lambda y: y.reshape(3, -1),
    "transposed": lambda y: y.T,
    "swapaxes": lambda y: y.swapaxes(0, 1),
    "astype": lambda y: y.astype(np.float64),
    "view": lambda y: y.view(np.uint32),
    "repeat": lambda y: y.repeat(2, axis=1),
    "take": lambda y: y.take([0], axis=1),
    "ravel": lambda y: y.ravel(),
    "squeeze": lambda y: y.squeeze(),
    "real": lambda y: y.real,
    "flip": lambda y: np.flip(y, 1),
    "roll": lambda y: np.roll(y, 1, axis=1),
    "where": lambda y: np.where(y > 0, y, 0),
    "concatenate": lambda y: np.concatenate([y, y], axis=1),
    "stack": lambda y: np.stack((y, y)),
    "einsum": lambda y: np.einsum("btf->bt", y),
    "like": np.zeros_like,
    "sort": lambda y: np.sort(y, axis=1),
    "clip": lambda y: np.clip(y, 0, 1),
    "pad": lambda y: np.pad(y, ((0, 0), (1, 0), (0, 0))),
    "asarray": np.asarray,
    "array": np.array,
    "contiguous": np.ascontiguousarray,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_from_an_array_has_no_mask(name: str) -> None:
    """Nobody but who computes it knows which steps it has: a plain array, of the same bits."""
    made = COMPUTED[name](masked())
    assert type(made) is np.ndarray
    np.testing.assert_array_equal(made, COMPUTED[name](np.asarray(masked())))


def test_arithmetic_in_place_gives_a_plain_array() -> None:
    """`y *= 2` binds y to the result, which shares the memory."""
    y = kept = masked()
    y *= 2
    assert type(y) is np.ndarray
    assert_same(y, X * 2)
    assert np.shares_memory(y, kept)


@pytest.mark.parametrize(
    "copied",
    [lambda y: y.copy(), copy.copy, copy.deepcopy, lambda y: pickle.loads(pickle.dumps(y))],
    ids=["method", "copy", "deepcopy", "pickle"],
)
def test_a_copy_of_the_array_carries_its_mask(copied: Callable[[Any], Any]) -> None:
    """Also to another process; its values are its own."""
    y = masked()
    other = copied(y)
    assert type(other) is layers.MaskedArray
    np.testing.assert_array_equal(other._keras_mask, GAPS)
    lstm = built("lstm", 3, 4)
    assert_same(lstm(other), lstm(y))
    other[:] = 0
    assert_same(y, X)


def test_nobody_changes_a_mask_behind_its_array() -> None:
    """It is a copy of what a caller gave, and read-only."""
    mask = GAPS.copy()
    y = built("lstm", 3, 4, return_sequences=True)(X, mask=mask)
    mask[:] = True
    np.testing.assert_array_equal(y._keras_mask, GAPS)
    with pytest.raises(ValueError, match="read-only"):
        y._keras_mask[0] = True
    with pytest.raises(AttributeError):
        y._keras_mask = OTHER


def test_values_written_into_an_array_leave_its_mask() -> None:
    """The mask says which steps count, not what is in them."""
    y = masked()
    y[:, 0] = 7
    np.testing.assert_array_equal(y._keras_mask, GAPS)


def test_a_model_takes_the_masks_of_its_inputs_and_gives_those_of_its_outputs() -> None:
    """By list, by name, one input masked and one not; nested models too."""
    a, b = Input((None, 4), name="a"), Input((None, 4), name="b")
    gru = built("gru", 3, 4, return_sequences=True)
    inner = Sequential([Input((None, 4)), layers.ReLU()])
    model = Model([a, b], [gru(layers.Add()([inner(a), b])), layers.GRU(2)(b)])
    other = np.where(OTHER[..., None], FULL, np.float32(0))
    expected = model([X, other], mask=[GAPS, OTHER])
    for inputs in ([masked(), masked(other)], {"b": masked(other), "a": masked()}):
        made = model(inputs)
        assert_same(made, expected)
        np.testing.assert_array_equal(made[0]._keras_mask, GAPS | OTHER)
        assert type(made[1]) is np.ndarray
    assert_same(model([X, masked(other)]), model([X, other], mask=[None, OTHER]))
    one = Sequential([Input((None, 4)), gru])
    assert_same([one([masked()]), one(masked())], [gru(masked())] * 2)


def test_predict_reads_plain_arrays() -> None:
    """As in Keras: the mask is given as mask=."""
    model = Sequential([Input((None, 4)), built("lstm", 3, 4, return_sequences=True)])
    made = model.predict(masked())
    assert type(made) is np.ndarray
    assert_same(made, model(X))
    assert_same(model.predict(X, mask=GAPS), model(masked()))


@pytest.mark.parametrize("merge", [layers.Add, layers.Multiply, layers.Maximum])
def test_masks_given_to_a_merging_layer_are_one_an_input(merge: Any) -> None:
    """In a list, or one for all; on arrays and on symbols."""
    inputs = [X, FULL]
    carrying = merge()([masked(), layers.MaskedArray.of(FULL, OTHER)])
    given = merge()(inputs, mask=[GAPS, OTHER])
    assert_same(given, carrying)
    np.testing.assert_array_equal(given._keras_mask, GAPS | OTHER)
    a, b = Input((None, 4)), Input((None, 4))
    m, n = Input((None,), dtype="bool"), Input((None,), dtype="bool")
    graph = Model([a, b, m, n], merge()([a, b], mask=[m, n]))
    assert_same(graph([*inputs, GAPS, OTHER]), carrying)
    assert_same(merge()(inputs, mask=GAPS), merge()(inputs, mask=[GAPS, GAPS]))
    assert_same(merge()(inputs, mask=GAPS.tolist()), merge()(inputs, mask=[GAPS, GAPS]))
    assert type(merge()(inputs, mask=[GAPS, None])) is np.ndarray


def test_wrong_masks_of_a_merging_layer() -> None:
    """With the layer's name: another number, another shape, no booleans."""
    add = layers.Add(name="add")
    with pytest.raises(ShapeError, match=r"'add'.*expected 2 masks, received 1"):
        add([X, X], mask=[GAPS])
    with pytest.raises(ShapeError, match=r"'add'.*mask must have shape \(3, 6\)"):
        add([X, X], mask=[GAPS, GAPS[:, :5]])
    with pytest.raises(DTypeError, match=r"'add'.*mask must be bool"):
        add([X, X], mask=[GAPS, GAPS.astype(int)])


def test_masks_of_single_values_go_on_too() -> None:
    """Ids without a time axis have masks (B,), which merging layers use."""
    ids, others = np.array([0, 2, 1]), np.array([1, 0, 2])
    table = RNG.normal(size=(3, 4)).astype(np.float32)
    embedding = layers.Embedding(3, 4, mask_zero=True)
    embedding.build((None,))
    embedding.set_weights([table])
    symbols = [Input((), dtype="int64"), Input((), dtype="int64")]
    product = layers.Multiply()
    model = Model(symbols, product([embedding(s) for s in symbols]))
    expected = np.where(ids[:, None] == 0, 1, table[ids])
    expected *= np.where(others[:, None] == 0, 1, table[others])
    arrays = [embedding(ids), embedding(others)]
    assert_same([model([ids, others]), product(arrays)], [expected.astype(np.float32)] * 2)
    dense = Sequential([Input((4,)), layers.Dense(2)])
    assert_same(dense(embedding(ids)), dense(table[ids]))


class MasksInside(layers.Layer):
    """A layer that calls others on arrays, one of which masks."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: list[type] = []

    def apply(self, inputs: Any, context: Any) -> Any:
        self.seen.append(type(inputs))
        return layers.Masking()(layers.Identity()(inputs))


def test_a_layer_of_ones_own_may_call_layers_that_mask() -> None:
    """Its output carries the mask, on arrays and in a graph; it is given plain arrays itself."""
    lstm, own = built("lstm", 3, 4), MasksInside()
    expected = lstm(X, mask=GAPS)
    assert_same(lstm(own(X)), expected)
    assert_same(lstm(own(masked())), expected)
    assert_same(Sequential([Input((None, 4)), own, lstm])(X), expected)
    assert own.seen == [np.ndarray] * 3


def test_other_arguments_may_carry_masks_which_do_not_matter() -> None:
    """Initial states, a cell's step, the short step: values only."""
    lstm = built("lstm", 4, 4, return_sequences=True)
    y = layers.MaskedArray.of(FULL[:, 0].copy(), GAPS[:, 0].copy())
    states = [FULL[:, 1].copy(), FULL[:, 2].copy()]
    carrying = [layers.MaskedArray.of(s, GAPS[:, 0]) for s in states]
    assert_same(lstm(FULL, initial_state=carrying), lstm(FULL, initial_state=states))
    assert_same(lstm.cell(y, carrying)[0], lstm.cell(np.asarray(y), states)[0])
    expected = lstm.step(np.asarray(y), [s.copy() for s in states])
    assert_same(lstm.step(y, carrying), expected)
