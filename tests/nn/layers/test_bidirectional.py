"""Bidirectional: merges, states, masks and lengths, against the oracle and against its parts."""

from typing import Any

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.layers.kinds import assert_same, flat

from streamrnn import layers
from streamrnn.errors import ShapeError, StateError, UnsupportedError
from streamrnn.nn.layers.context import CallContext

RNG = np.random.default_rng(3)
X = RNG.normal(size=(3, 6, 4)).astype(np.float32)
MASK = np.array([[0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]], np.bool_)
MERGES = ["concat", "sum", "mul", "ave", None]


def both(merge: str | None = "concat", layer: Any = None, **options: Any) -> layers.Bidirectional:
    made = layers.Bidirectional(layer or layers.LSTM(5, **options), merge_mode=merge)
    made.build((None, None, 4))
    made.set_weights([RNG.normal(size=w.shape) * 0.5 for w in made.weights])
    return made


@given(
    merge=st.sampled_from(MERGES),
    sequences=st.booleans(),
    masked=st.booleans(),
    begun=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_agrees_with_the_oracle(
    merge: str | None, sequences: bool, masked: bool, begun: bool
) -> None:
    """All merges and return orders: outputs, then forward states, then backward states."""
    layer = both(merge, return_sequences=sequences, return_state=True)
    states = RNG.normal(size=(4, 3, 5)).astype(np.float32) if begun else None
    mask = MASK if masked else None
    y = layer(X, mask=mask, initial_state=None if states is None else list(states))
    w = layer.get_weights()
    expected, after = naive.bidirectional(
        naive.lstm(*w[:3]),
        naive.lstm(*w[3:]),
        X,
        merge,
        sequences,
        None if states is None else states.tolist(),
        mask,
    )
    outputs = [expected] if merge is not None else list(expected)
    for mine, wanted in zip(y, [*outputs, *after], strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("merge", MERGES)
def test_shapes_of_symbols_are_shapes_of_arrays(merge: str | None) -> None:
    """In number and size, for sequences and for single outputs."""
    for sequences in (True, False):
        layer = both(merge, return_sequences=sequences, return_state=True)
        symbols, arrays = layer(layers.Input((6, 4))), layer(X)
        assert [s.shape[1:] for s in symbols] == [a.shape[1:] for a in arrays]


def test_it_is_two_layers() -> None:
    """Named and wired as Keras does; the backward sequence is turned into the input's order."""
    layer = both(layer=layers.GRU(5, return_sequences=True, name="gru"))
    forward, backward = layer.forward_layer, layer.backward_layer
    assert (forward.name, backward.name) == ("forward_gru", "backward_gru")
    y = np.concatenate([forward(X), backward(X)[:, ::-1]], axis=-1)
    assert_same(layer(X), np.ascontiguousarray(y))


def test_a_backward_layer_of_its_own() -> None:
    """Another kind and size; must go backwards, and agree in what it returns."""
    own = layers.GRU(2, return_sequences=True, go_backwards=True)
    layer = layers.Bidirectional(layers.LSTM(5, return_sequences=True), backward_layer=own)
    assert layer(X).shape == (3, 6, 7)
    assert layer.count_params() == 4 * 5 * (4 + 5 + 1) + 3 * 2 * (4 + 2 + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backward_layer": layers.GRU(5)}, "one layer must have go_backwards=True"),
        (
            {"backward_layer": layers.GRU(5, go_backwards=True, return_sequences=True)},
            "return_sequences must be the same in both",
        ),
        (
            {"backward_layer": layers.GRU(4, go_backwards=True), "merge_mode": "sum"},
            "layers of equal size, received 5 and 4",
        ),
        ({"merge_mode": "max"}, "merge_mode must be one of"),
        ({"layer": layers.Dense(3)}, "expected a recurrent layer, received Dense"),
    ],
)
def test_pairs_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    """Each says which argument and what was received."""
    with pytest.raises(UnsupportedError, match=message):
        layers.Bidirectional(**{"layer": layers.GRU(5), **options})


def test_wrong_number_of_states() -> None:
    """Four for two LSTMs: forward's first."""
    with pytest.raises(ShapeError, match="expected 4 states, the forward layer's 2 first"):
        both()(X, initial_state=[np.zeros((3, 5))] * 2)


def test_lengths_of_rows_in_a_pipeline() -> None:
    """Kind whole: each row is as if it were alone with its own length, gaps or none."""
    layer = both(return_sequences=True, return_state=True)
    lengths = np.array([6, 0, 4])
    for mask in (None, MASK):
        context = CallContext(mask, kind="whole", lengths=lengths)
        y, *states = layer.apply(X, context)
        for b, length in enumerate(lengths):
            row = slice(b, b + 1)
            own = None if mask is None else mask[row, :length]
            alone, *after = layer(X[row, :length], mask=own)
            assert_same(y[row, :length], alone)
            assert_same([state[row] for state in states], after)


def test_stateful_carries_both_directions() -> None:
    """As in Keras: the backward layer too. get_state and reset reach both."""
    layer = both(stateful=True)
    first = layer(X)
    state = layer.get_state()
    second = layer(X)
    assert (first != second).any()
    layer.set_state(state)
    assert_same(layer(X), second)
    assert len(layer.states) == 4
    layer.reset_state()
    assert not any(state.any() for state in layer.states)
    assert layer.get_state() is None
    assert_same(layer(X), first)
    begun = [RNG.normal(size=(3, 5)).astype(np.float32) for _ in range(4)]
    layer.reset_state(begun)
    assert_same(flat(layer.states), begun)


@pytest.mark.parametrize("state", [3, "ab", [None], np.zeros(())])
def test_a_state_is_a_list_of_two(state: object) -> None:
    with pytest.raises(StateError, match=r"expected \[forward state, backward state\], received"):
        both(stateful=True).set_state(state)


def test_poison_stays_in_its_row() -> None:
    """NaN in one row changes no bit of the others."""
    layer = both(return_sequences=True)
    x = X.copy()
    x[1, 3] = np.nan
    assert_same(layer(x)[[0, 2]], layer(X)[[0, 2]])
