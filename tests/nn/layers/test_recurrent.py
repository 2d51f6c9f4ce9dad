"""Every recurrent layer against the oracle, and the properties that no cut may break.

Slow: GRU with reset_after=False; the contracts of layers have it.
"""

from typing import Any

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.layers.kinds import KINDS, assert_same, built, flat, oracle
from selection import first_quick

from streamrnn import layers
from streamrnn.errors import ConfigError, DTypeError, ShapeError

SIZES = st.sampled_from([1, 2, 5, 8, 17, 20])
SEEDS = st.integers(0, 2**32 - 1)
EACH_KIND = pytest.mark.parametrize(
    "kind", first_quick(sorted(KINDS, key="gru_before".__eq__), len(KINDS) - 1)
)
QUICK = settings(max_examples=12, deadline=None)


def window(seed: int, rows: int, steps: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and a mask with gaps anywhere."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, steps, features)).astype(np.float32)
    return x, rng.random((rows, steps)) < rng.choice([0.2, 0.6, 1.0])


def start(layer: layers.RNN, rows: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(rows, *shape)).astype(np.float32)
        for shape in layer.runner.state_shapes().values()
    ]


@EACH_KIND
@given(data=st.data())
@QUICK
def test_agrees_with_the_oracle(kind: str, data: st.DataObject) -> None:
    """Any size, mask, direction and initial state: outputs and states within 1e-5."""
    units, features = data.draw(SIZES), data.draw(st.sampled_from([1, 3, 7]))
    rows, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    masked, begun = data.draw(st.booleans()), data.draw(st.booleans())
    options = {
        "return_sequences": data.draw(st.booleans()),
        "go_backwards": data.draw(st.booleans()),
        "zero_output_for_mask": data.draw(st.booleans()),
        "unroll": data.draw(st.booleans()),
    }
    seed = data.draw(SEEDS)
    layer = built(kind, units, features, seed, return_state=True, **options)
    x, mask = window(seed, rows, steps, features)
    cell = oracle(kind, layer, units)
    states = start(layer, rows, seed) if begun else None
    y, *after = layer(x, initial_state=states, mask=mask if masked else None)

    for b in range(rows):
        own = None if states is None else _nested([state[b].tolist() for state in states], layer)
        outputs, _, expected = naive.sequence(
            cell,
            x[b],
            own,
            mask[b] if masked else None,
            go_backwards=options["go_backwards"],
            zero_output_for_mask=options["zero_output_for_mask"],
        )
        wanted = outputs if options["return_sequences"] else outputs[-1]
        np.testing.assert_allclose(y[b], wanted, rtol=1e-5, atol=1e-5)
        for state, value in zip(flat(after), _leaves(expected, layer), strict=True):
            np.testing.assert_allclose(state[b], value, rtol=1e-5, atol=1e-5)


def _nested(states: list, layer: layers.RNN) -> list:
    """One row's states as the oracle has them: a list a cell, also where a layer gives one bare."""
    nested = layer.runner.nest(states)
    if not _is_stacked(layer):
        return nested
    return [[part] if isinstance(part[0], float) else part for part in nested]


def _leaves(states: list, layer: layers.RNN) -> list:
    """The oracle's states of one row, flat."""
    return [s for part in states for s in part] if _is_stacked(layer) else states


def _is_stacked(layer: layers.RNN) -> bool:
    return isinstance(layer.cell, layers.StackedRNNCells)


@EACH_KIND
@given(seed=SEEDS, cut=st.integers(0, 9), units=SIZES, rows=st.integers(1, 5))
@QUICK
def test_cut_anywhere_same_bits(kind: str, seed: int, cut: int, units: int, rows: int) -> None:
    """Two calls that hand the state over equal one, with gaps in both, for stateful layers."""
    x, mask = window(seed, rows, 9, 3)
    options = {"stateful": True, "return_sequences": True, "return_state": True}
    whole = built(kind, units, 3, seed, **options)
    cut_up = built(kind, units, 3, seed, **options)
    y, *states = whole(x, mask=mask)
    first = cut_up(x[:, :cut], mask=mask[:, :cut])
    second = cut_up(x[:, cut:], mask=mask[:, cut:])
    assert_same(np.concatenate([first[0], second[0]], axis=1), y)
    assert_same(second[1:], states)
    assert_same(cut_up.get_state(), whole.get_state())


@EACH_KIND
@given(seed=SEEDS, rows=st.integers(2, 13), units=SIZES)
@QUICK
def test_a_batch_equals_its_rows(kind: str, seed: int, rows: int, units: int) -> None:
    """Each row of a batch has the bits that it has alone."""
    layer = built(kind, units, 5, seed, return_sequences=True, return_state=True)
    x, mask = window(seed, rows, 4, 5)
    states = start(layer, rows, seed)
    together = flat(layer(x, initial_state=states, mask=mask))
    for b in range(rows):
        row = slice(b, b + 1)
        alone = layer(x[row], initial_state=[s[row] for s in states], mask=mask[row])
        assert_same([result[row] for result in together], alone)


@EACH_KIND
@given(seed=SEEDS, units=SIZES)
@QUICK
def test_masked_steps_change_no_other(kind: str, seed: int, units: int) -> None:
    """Steps of NaN put in anywhere, and masked, leave all other outputs and the states."""
    rng = np.random.default_rng(seed)
    layer = built(kind, units, 3, seed, return_sequences=True, return_state=True)
    x, _ = window(seed, 2, 5, 3)
    states = start(layer, 2, seed)
    y, *after = layer(x, initial_state=states)
    places = np.sort(rng.choice(9, 5, replace=False))
    stretched = np.full((2, 9, 3), np.nan, np.float32)
    stretched[:, places] = x
    mask = np.zeros((2, 9), np.bool_)
    mask[:, places] = True
    longer, *longer_after = layer(stretched, initial_state=states, mask=mask)
    assert_same(longer[:, places], y)
    assert_same(longer_after, after)


@EACH_KIND
def test_poison_stays_in_its_row(kind: str) -> None:
    """NaN and infinity in one row change no bit of the others."""
    layer = built(kind, 6, 3, return_sequences=True, return_state=True)
    x, _ = window(1, 5, 6, 3)
    clean = flat(layer(x))
    poisoned = x.copy()
    poisoned[2, 1], poisoned[2, 4] = np.nan, np.inf
    others = [0, 1, 3, 4]
    for before, after in zip(clean, flat(layer(poisoned)), strict=True):
        assert_same(after[others], before[others])
        assert np.isnan(after[2]).any() or kind in ("custom_states", "custom_layer_states")


@EACH_KIND
def test_unroll_and_implementation_change_no_bit(kind: str) -> None:
    """Both are accepted; zero_output_for_mask means the same with unroll (Keras ignores it)."""
    x, _ = window(2, 3, 5, 4)
    mask = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], np.bool_)
    for zeros in (False, True):
        options = {"return_sequences": True, "zero_output_for_mask": zeros}
        plain = built(kind, 5, 4, **options)
        unrolled = built(kind, 5, 4, **options, unroll=True, implementation=1)
        assert_same(plain(x, mask=mask), unrolled(x, mask=mask))
        if zeros:
            assert not plain(x, mask=mask)[~mask].any()


@EACH_KIND
def test_leading_masked_steps_repeat_the_state_the_row_began_with(kind: str) -> None:
    """With a non-zero initial state that is h (for a custom cell, zeros): the cut-free rule."""
    layer = built(kind, 5, 4, return_sequences=True)
    x, _ = window(3, 2, 4, 4)
    mask = np.array([[0, 0, 1, 1], [0, 0, 0, 0]], np.bool_)
    states = start(layer, 2, 7)
    y = layer(x, initial_state=states, mask=mask)
    if layer.runner.holds_output:
        assert not y[:, :2].any()
        assert not y[1].any()
    else:
        held = layer.cell.output_of(states)
        assert_same(y[:, 0], held)
        assert_same(y[:, 1], held)
        assert_same(y[1, 3], held[1])


@EACH_KIND
def test_lengths_are_masks_of_the_ends(kind: str) -> None:
    """lengths= equals the mask; a row of length 0 keeps its state's bytes."""
    layer = built(kind, 5, 4, return_sequences=True, return_state=True)
    x, _ = window(4, 4, 6, 4)
    lengths = np.array([6, 0, 3, 1])
    states = start(layer, 4, 7)
    by_length = layer(x, initial_state=states, lengths=lengths)
    by_mask = layer(x, initial_state=states, mask=np.arange(6) < lengths[:, None])
    assert_same(by_length, by_mask)
    for before, after in zip(states, flat(by_length[1:]), strict=True):
        assert_same(before[1], after[1])


@EACH_KIND
@pytest.mark.parametrize(("rows", "steps"), [(0, 4), (3, 0), (0, 0)])
def test_no_rows_and_no_steps(kind: str, rows: int, steps: int) -> None:
    """Shapes are right, and without steps the states are those given."""
    layer = built(kind, 5, 4, return_sequences=True, return_state=True)
    states = start(layer, rows, 1)
    y, *after = layer(np.zeros((rows, steps, 4), np.float32), initial_state=states)
    assert y.shape == (rows, steps, layer.runner.output_features())
    assert_same(after, states)


@EACH_KIND
def test_a_step_is_a_call_of_one_step(kind: str) -> None:
    """`step` overwrites the states it is given and returns the output: the bits of a call."""
    layer = built(kind, 5, 4, return_state=True)
    x, _ = window(5, 3, 1, 4)
    states = start(layer, 3, 1)
    y, *after = layer(x, initial_state=states)
    mine = [state.copy() for state in states]
    assert_same(layer.step(x[:, 0], mine), y)
    assert_same(mine, after)


@pytest.mark.parametrize(
    ("x", "states", "error", "message"),
    [
        (
            np.zeros((2, 5), "f"),
            [np.zeros((2, 3), "f")] * 2,
            ShapeError,
            r"x of shape \(batch, 4\)",
        ),
        (np.zeros((2, 1, 4), "f"), [np.zeros((2, 3), "f")] * 2, ShapeError, "x of shape"),
        (np.zeros((2, 4), "d"), [np.zeros((2, 3), "f")] * 2, DTypeError, "x in float32"),
        (np.zeros((2, 4), "f"), [np.zeros((2, 3), "f")], ShapeError, "must be 2 .* received 1"),
        (np.zeros((2, 4), "f"), [np.zeros((2, 2), "f")] * 2, ShapeError, r"state 'h' .*\(2, 2\)"),
        (np.zeros((2, 4), "f"), [np.zeros((1, 3), "f")] * 2, ShapeError, r"state 'h' .*\(1, 3\)"),
        (np.zeros((2, 4), "f"), [np.zeros((2, 3), "d")] * 2, DTypeError, "state 'h' in float32"),
        (np.zeros((2, 4), "f"), [np.zeros((3, 2), "f").T] * 2, ShapeError, "C-contiguous"),
    ],
)
def test_a_step_refuses_what_the_kernel_would_overrun(
    x: Any, states: Any, error: type[Exception], message: str
) -> None:
    """Wrong shapes would be written past their end."""
    layer = layers.LSTM(3, name="it")
    with pytest.raises(ConfigError, match=r"'it'.*built"):
        layer.step(x, states)
    layer.build((None, None, 4))
    with pytest.raises(error, match=f"'it'.*{message}"):
        layer.step(x, states)


def test_a_step_may_be_cut_from_a_window() -> None:
    """x[:, t] is not contiguous."""
    layer = built("lstm", 5, 4, return_sequences=True)
    x, _ = window(5, 3, 6, 4)
    y, states = layer(x), [np.zeros((3, 5), np.float32), np.zeros((3, 5), np.float32)]
    for t in range(6):
        assert_same(layer.step(x[:, t], states), y[:, t])


def test_rnn_of_a_cell_is_the_layer() -> None:
    """RNN(LSTMCell(10)) equals LSTM(10) bit for bit: they run the same code."""
    x, mask = window(6, 3, 7, 4)
    for cell, layer in (
        (layers.LSTMCell, layers.LSTM),
        (layers.GRUCell, layers.GRU),
        (layers.SimpleRNNCell, layers.SimpleRNN),
    ):
        one = layers.RNN(cell(10), return_sequences=True, return_state=True)
        other = layer(10, return_sequences=True, return_state=True)
        for made in (one, other):
            made.build((None, None, 4))
        other.set_weights(one.get_weights())
        assert_same(one(x, mask=mask), other(x, mask=mask))


BUILT_IN = {
    "simple_rnn": (naive.simple_rnn, {}),
    "lstm": (naive.lstm, {}),
    "gru": (naive.gru, {}),
    "gru_before": (naive.gru, {"reset_after": False}),
}
# Each pair is a kernel of its own, compiled in a second or two: one kind for most of them. All
# activations by themselves: test_config; in Dense: test_golden.
INSIDE = {
    "softmax": ["simple_rnn", "lstm", "gru_before"],
    "relu": ["gru"],
    "silu": ["lstm"],
    "softplus": ["simple_rnn"],
    "exponential": ["simple_rnn"],
}


INSIDE_KINDS = [(name, kind) for name, kinds in INSIDE.items() for kind in kinds]


@pytest.mark.parametrize(("activation", "kind"), first_quick(INSIDE_KINDS, 3))
def test_activations_inside_a_layer(activation: str, kind: str) -> None:
    """As activation and as recurrent_activation, against the oracle; small, so that exp stays.
    Slow: activations that are compiled into the kernel."""
    x = window(7, 2, 3, 3)[0] * 0.3
    cell, more = BUILT_IN[kind]
    options = {"activation": activation}
    if kind != "simple_rnn":
        options["recurrent_activation"] = activation
    layer = built(kind, 5, 3, return_sequences=True, **options)
    layer.set_weights([w * 0.5 for w in layer.get_weights()])
    expected, _, _ = naive.layer(cell(*layer.get_weights(), **options, **more), x)
    np.testing.assert_allclose(layer(x), expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru", "gru_before"])
def test_without_bias(kind: str) -> None:
    """use_bias=False has two weights and the numbers of a zero bias."""
    x, _ = window(8, 2, 4, 3)
    bare = built(kind, 5, 3, use_bias=False)
    with_zeros = built(kind, 5, 3)
    bias = with_zeros.get_weights()[2] * 0
    with_zeros.set_weights([*bare.get_weights(), bias])
    assert len(bare.weights) == 2
    assert_same(bare(x), with_zeros(x))


def test_lstm_bias_starts_with_an_open_forget_gate() -> None:
    """unit_forget_bias sets the forget gate's bias to 1, and leaves the rest as initialised."""
    for initializer, expected in (("zeros", [0, 1, 0, 0]), ("ones", [1, 1, 1, 1])):
        layer = layers.LSTM(2, bias_initializer=initializer)
        layer.build((None, None, 3))
        np.testing.assert_array_equal(layer.weights[2], np.repeat(expected, 2))
    closed = layers.LSTM(2, unit_forget_bias=False)
    closed.build((None, None, 3))
    assert not closed.weights[2].any()
