"""Gradients of Bidirectional: each way to merge, masks, states in and out."""

from typing import Any

import naive
import numpy as np
import pytest
from nn.training.test_recurrent import MASK, RNG, X, assert_gradients
from nn.training.trained import weighted
from selection import first_quick, slow

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import UnsupportedError


def halves(w: Any) -> tuple[naive.Cell, naive.Cell]:
    return naive.gru(*w[:3]), naive.simple_rnn(*w[3:])


def both(merge_mode: str | None, **options: Any) -> layers.Bidirectional:
    """A GRU forwards, a SimpleRNN backwards."""
    return layers.Bidirectional(
        layers.GRU(3, **options), merge_mode, layers.SimpleRNN(3, go_backwards=True, **options)
    )


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_gradients_under_a_mask(merge_mode: str | None, sequences: bool) -> None:
    """Of a Dense before the layer too. Without a merge mode, the outputs are joined."""
    x = Input((None, 3))
    read = layers.Dense(3)(layers.Masking()(x))
    made = both(merge_mode, return_sequences=sequences)(read)
    model = weighted(Model(x, made if merge_mode else layers.Concatenate()(made)))
    model.compile("sgd", "mse")
    y = RNG.normal(size=model(X).shape)

    def predicted(w: Any) -> Any:
        read = naive.dense(X, *w[:2])
        mode = merge_mode or "concat"
        cells = halves(w[2:])
        return naive.bidirectional(*cells, read, mode, sequences, mask_BT=MASK)[0]

    assert_gradients(model, y, predicted, MASK.tolist() if sequences else None)


@pytest.mark.parametrize("merge_mode", first_quick(["mul", None]))
def test_gradients_of_states_in_and_out(merge_mode: str | None) -> None:
    """The states of one are the initial states of the next, and part of the output.

    Slow: outputs that are not merged.
    """
    x = Input((None, 3))
    one = both("concat", return_state=True)
    _, *states = one(x)
    other = both(merge_mode, return_state=True)(layers.Masking()(x), initial_state=states)
    outputs = [other[0], other[-1]] if merge_mode else [*other[:2], other[-1]]
    model = weighted(Model(x, layers.Concatenate()(outputs)))
    model.compile("sgd", "mse")
    y = RNG.normal(size=model(X).shape)

    def predicted(w: Any) -> Any:
        _, given = naive.bidirectional(*halves(w[:6]), X, "concat", False)
        mode = merge_mode or "concat"
        made, ends = naive.bidirectional(*halves(w[6:]), X, mode, False, given, MASK)
        return [[*row, *end] for row, end in zip(made, ends[-1], strict=True)]

    assert_gradients(model, y, predicted)


def test_a_state_alone_is_trained() -> None:
    """Nothing of the output is used: neither direction gets a gradient but from its state."""
    x = Input((None, 3))
    _, forward, backward = both("sum", return_sequences=True, return_state=True)(x)
    model = weighted(Model(x, layers.Add()([forward, backward])))
    model.compile("sgd", "mse")
    y = RNG.normal(size=(4, 3))

    def predicted(w: Any) -> Any:
        _, ends = naive.bidirectional(*halves(w), X, "sum")
        return [naive.add(a, b) for a, b in zip(*ends, strict=True)]

    assert_gradients(model, y, predicted)


@slow
def test_stacks_and_peepholes_in_both_directions() -> None:
    """Slow: kernels that no other test needs."""
    cells = [layers.GRUCell(2), layers.PeepholeLSTMCell(2)]
    model = weighted(Sequential([Input((None, 3)), layers.Bidirectional(layers.RNN(cells))]))
    model.compile("sgd", "mse")

    def stack(w: Any) -> naive.Cell:
        return naive.stacked(naive.gru(*w[:3]), naive.peephole_lstm(*w[3:6], peephole=w[6:]))

    def predicted(w: Any) -> Any:
        half = len(w) // 2
        return naive.bidirectional(stack(w[:half]), stack(w[half:]), X, "concat", False)[0]

    assert_gradients(model, RNG.normal(size=(4, 4)), predicted)


def test_a_direction_that_cannot_be_trained_is_refused_by_name() -> None:
    layer = layers.Bidirectional(layers.GRU(3), backward_layer=layers.LSTM(
        3, activation="gelu", go_backwards=True, name="back"
    ))  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"'back'.*'gelu' inside a recurrent layer"):
        Sequential([Input((None, 3)), layer]).compile("sgd", "mse")


def test_each_row_is_turned_with_its_mask() -> None:
    """A masked step may hold anything: no bit changes."""
    model = weighted(Sequential([Input((None, 3)), both("mul", return_sequences=True)]))
    model.compile("sgd", "mse")
    lengths = np.array([5, 1, 3, 0])
    y, found = RNG.normal(size=(4, 5, 3)), []
    for poison in (0.0, np.nan):
        x = X.copy()
        x[np.arange(5) >= lengths[:, None]] = poison
        found.append(model.gradients(x, y, lengths=lengths))
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(gradient, found[1][name])
