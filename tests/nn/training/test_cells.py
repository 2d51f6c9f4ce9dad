"""Gradients of cells in RNN: peepholes, layer normalisation, stacks, custom cells.

Slow: other cells, each compiled for itself.
"""

from typing import Any

import naive
import numpy as np
import pytest
from nn.layers.kinds import assert_same
from nn.training import custom_cells
from nn.training.test_recurrent import MASK, OPTIONS, RNG, X, assert_gradients
from nn.training.trained import streamed, weighted
from selection import first_quick, slow

from streamrnn import Input, Model, Sequential, layers, optimizers, set_threads
from streamrnn.errors import UnsupportedError
from streamrnn.models import StepRunner
from streamrnn.nn.kernels import cell as cell_kernel
from streamrnn.nn.kernels import team, threads

LENGTHS = np.array([5, 0, 3, 1])


def nested() -> Any:
    """A stack in a stack."""
    inner = layers.StackedRNNCells([layers.GRUCell(2), layers.LayerNormLSTMCell(3)])
    return [layers.SimpleRNNCell(2), inner]


CELLS: dict[str, tuple[Any, Any]] = {
    "peephole": (
        lambda: layers.PeepholeLSTMCell(3),
        lambda w: naive.peephole_lstm(*w[:3], peephole=w[3:]),
    ),
    "layer_norm": (lambda: layers.LayerNormLSTMCell(3), lambda w: naive.layer_norm_lstm(*w)),
    "stack": (
        lambda: [layers.LSTMCell(3), layers.GRUCell(2, reset_after=False), layers.LSTMCell(2)],
        lambda w: naive.stacked(
            naive.lstm(*w[:3]), naive.gru(*w[3:6], reset_after=False), naive.lstm(*w[6:])
        ),
    ),
    "nested": (
        nested,
        lambda w: naive.stacked(
            naive.simple_rnn(*w[:3]),
            naive.stacked(naive.gru(*w[3:6]), naive.layer_norm_lstm(*w[6:])),
        ),
    ),
    "custom": (
        lambda: custom_cells.MinimalGatedUnit(3),
        # Held for masked steps are zeros before the first output, not the initial h.
        lambda w: naive.custom(naive.minimal_gated_unit(*w).step, [3], 3),
    ),
    "custom, held output": (lambda: custom_cells.Echo(2), lambda w: custom_cells.naive_echo(*w)),
    "custom in a stack": (
        lambda: [custom_cells.Echo(2), layers.PeepholeLSTMCell(2), custom_cells.Echo(2)],
        lambda w: naive.stacked(
            custom_cells.naive_echo(*w[:2]),
            naive.peephole_lstm(*w[2:5], peephole=w[5:8]),
            custom_cells.naive_echo(*w[8:]),
        ),
    ),
}
SEQUENCES = {"return_sequences": True}
NO_BIAS = {
    "peephole": (
        lambda: layers.PeepholeLSTMCell(3, use_bias=False),
        lambda w: naive.peephole_lstm(w[0], w[1], None, w[2:]),
    ),
    "layer_norm": (
        lambda: layers.LayerNormLSTMCell(3, use_bias=False),
        lambda w: naive.layer_norm_lstm(*w[:2], None, *w[2:]),
    ),
}
OF_FIRST = [(next(iter(CELLS)), options) for options in OPTIONS if options != "no bias"]
OTHERS = [(name, options) for name in CELLS for options in OPTIONS if options != "no bias"] + [
    (name, "no bias") for name in NO_BIAS
]
COMPILED = ["peephole", "layer_norm"]
EACH_CELL = pytest.mark.parametrize(
    "name", first_quick([*COMPILED, *sorted({*CELLS} - {*COMPILED})], len(COMPILED))
)
CASES = OF_FIRST + [case for case in OTHERS if case not in OF_FIRST]


@pytest.mark.parametrize(("name", "options"), first_quick(CASES, len(OF_FIRST)))
def test_gradients_under_a_mask(name: str, options: str) -> None:
    """Of a Dense before the layer too: the gradient of its inputs. Slow: all cells but the first,
    each compiled for itself."""
    cell, oracle = (NO_BIAS if options == "no bias" else CELLS)[name]
    given = {key: value for key, value in OPTIONS[options].items() if key != "use_bias"}
    model = Sequential(
        [Input((None, 3)), layers.Masking(), layers.Dense(3), layers.RNN(cell(), **given)]
    )
    model.compile("sgd", "mse")
    y = RNG.normal(size=weighted(model)(X).shape)
    sequences = given.get("return_sequences", False)
    ways = {k: given[k] for k in ("go_backwards", "zero_output_for_mask") if k in given}

    def predicted(w: Any) -> Any:
        made = naive.layer(oracle(w[2:]), naive.dense(X, *w[:2]), mask_BT=MASK, **ways)
        return made[0] if sequences else made[1]

    assert_gradients(model, y, predicted, MASK.tolist() if sequences else None)


@pytest.mark.parametrize("name", first_quick(["layer_norm", *sorted({*CELLS} - {"layer_norm"})]))
def test_gradients_of_initial_states(name: str) -> None:
    """An encoder hands its states, nested, to a decoder: masked steps, and a row without any.

    Slow: the other cells, each compiled for itself.
    """
    cell, oracle = CELLS[name]
    x = Input((None, 3))
    y, *states = layers.RNN(cell(), return_state=True)(x)
    decoded = layers.RNN(cell())(layers.Masking()(x), initial_state=states)
    model = weighted(Model(x, layers.Add()([y, decoded])))
    model.compile("sgd", "mse")
    truth = RNG.normal(size=(4, y.shape[-1]))

    def predicted(w: Any) -> Any:
        half = len(w) // 2
        _, last, ends = naive.layer(oracle(w[:half]), X)
        made = naive.layer(oracle(w[half:]), X, states=ends, mask_BT=MASK)[1]
        return [naive.add(a, b) for a, b in zip(last, made, strict=True)]

    assert_gradients(model, truth, predicted)


@EACH_CELL
def test_a_window_of_a_fit_has_the_bits_of_scoring(name: str) -> None:
    """With lengths, from carried states: outputs, and all states."""
    cell, _ = CELLS[name]
    model = weighted(Sequential([Input((None, 3)), layers.RNN(cell(), return_sequences=True)]))
    runner = StepRunner(model)
    states, scored = runner.initial_state(4), runner.initial_state(4)
    for lengths in (LENGTHS, LENGTHS[::-1].copy(), None):
        x = RNG.normal(size=(4, 5, 3)).astype(np.float32)
        (expected,) = runner.run([x], lengths, scored)
        output, _ = streamed(model, x, np.zeros_like(expected), lengths, states)
        present = np.arange(5) < (5 if lengths is None else lengths[:, None])
        present = np.broadcast_to(present, (4, 5))
        assert_same(output[present], expected[present])
        assert_same(list(states.values()), list(scored.values()))


@EACH_CELL
def test_a_call_in_training_has_the_bits_of_a_call(name: str) -> None:
    """Masked, and stateful: outputs, nested states, and what is carried to the next call."""
    cell, _ = CELLS[name]
    layer = layers.RNN(cell(), return_sequences=True, stateful=True, zero_output_for_mask=True)
    model = weighted(Sequential([Input((None, 3), batch_size=4), layers.Masking(), layer]))
    expected = [model(X), model(X)]
    carried = layer.get_state()
    model.reset_state()
    model.compile(optimizers.SGD(0.0), "mse")
    for y in expected:
        assert model.train_on_batch(X, np.asarray(y)) == 0.0
    assert_same(_flat(layer.get_state()), _flat(carried))


def _flat(states: Any) -> list[np.ndarray]:
    if isinstance(states, list):
        return [array for state in states for array in _flat(state)]
    return [states]


@EACH_CELL
def test_the_gradient_stops_at_a_carried_state(name: str) -> None:
    """A window of a fit has the gradients of a stateful layer's second call."""
    cell, _ = CELLS[name]
    layer = layers.RNN(cell(), return_sequences=True, stateful=True)
    model = weighted(Sequential([Input((None, 3), batch_size=4), layer]))
    one, other = RNG.normal(size=(2, 4, 5, 3)).astype(np.float32)
    y = RNG.normal(size=(4, 5, layer.runner.output_features()))
    states = StepRunner(model).initial_state(4)
    streamed(model, one, y, None, states)
    _, found = streamed(model, other, y, LENGTHS, states)
    model.compile(optimizers.SGD(0.0), "mse")
    model.train_on_batch(one, y)
    for key, gradient in model.gradients(other, y, lengths=LENGTHS).items():
        np.testing.assert_allclose(found[key], gradient, rtol=1e-5, atol=1e-7)


@EACH_CELL
def test_bits_do_not_depend_on_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes are divided however little work there is."""
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(cell_kernel, "MIN_THREADED_STEPS", 0)
    monkeypatch.setattr(team, "MOST_BACK_OFF", 0)
    monkeypatch.setattr(team, "_team", team._Team())
    model = weighted(Sequential([Input((None, 3)), layers.Dense(3), layers.RNN(CELLS[name][0]())]))
    model.compile("sgd", "mse")
    x = RNG.normal(size=(21, 5, 3)).astype(np.float32)
    y, found = np.zeros(model(x).shape), []
    for count in (1, 2, 5):
        set_threads(count)
        found.append(list(model.gradients(x, y).values()))
    set_threads(0)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@EACH_CELL
def test_poison_in_a_lane_moves_no_state_of_another(name: str) -> None:
    """As an input, and as the truth, of a window; one without steps has no gradient."""
    model = weighted(Sequential([Input((None, 3)), layers.RNN(CELLS[name][0](), **SEQUENCES)]))
    runner, found = StepRunner(model), []
    x = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    y = RNG.normal(size=model(x).shape)
    for poison in (0.0, np.nan):
        x[2, 1], y[2, 1] = poison, poison
        states = runner.initial_state(4)
        streamed(model, x, y, None, states)
        found.append(states)
    others = np.arange(4) != 2
    assert any(np.isnan(state[2]).any() for state in found[1].values())
    for key, state in found[1].items():
        assert_same(state[others], found[0][key][others])
    _, gradients = streamed(model, x[:, :0], y[:, :0], None, found[0])
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("cell", [layers.PeepholeLSTMCell, layers.LayerNormLSTMCell])
def test_gradients_under_dropout(cell: Any, rate: str) -> None:
    """The factors of a lane are rows of the weights, scaled: as if no factor were drawn.

    Also of the initial states, by the weights of the layer that they come from.
    """
    x = Input((None, 3))
    first = layers.LSTM(6, return_state=True)(x)
    layer = layers.RNN(cell(6, **{rate: 0.5}, seed=2))
    model = weighted(Model(x, layer(x, initial_state=first[1:])))
    model.compile("sgd", "mse")
    y = RNG.normal(size=(1, 6))
    data = RNG.normal(size=(1, 5, 3)).astype(np.float32)
    drawn = model.gradients(data, y, training=True)
    number = 3 if rate == "dropout" else 4
    weights = model.get_weights()
    zero = ~list(drawn.values())[number].any(axis=1)
    assert 0 < zero.sum() < len(zero)
    scaled = [w.copy() for w in weights]
    scaled[number] = np.where(zero[:, None], 0, 2 * weights[number])
    model.set_weights(scaled)
    for i, (name, gradient) in enumerate(model.gradients(data, y).items()):
        factor = np.where(zero, 0, 2)[:, None] if i == number else 1
        np.testing.assert_allclose(drawn[name], gradient * factor, rtol=5e-4, atol=5e-6)


@pytest.mark.parametrize(
    ("kind", "outer", "inner"),
    [("peephole", "hard_sigmoid", "relu"), ("layer_norm", "sigmoid", "softsign")],
)
@slow
def test_gradients_of_other_activations(kind: str, outer: str, inner: str) -> None:
    """Slow: pairs of activations that no contract of a layer has, each compiled for itself."""
    names = {"activation": inner, "recurrent_activation": outer}
    cell = layers.PeepholeLSTMCell if kind == "peephole" else layers.LayerNormLSTMCell
    model = weighted(Sequential([Input((None, 3)), layers.RNN(cell(3, **names))]))
    model.compile("sgd", "mse")

    def predicted(w: Any) -> Any:
        oracle = naive.layer_norm_lstm(*w, **names)
        if kind == "peephole":
            oracle = naive.peephole_lstm(*w[:3], peephole=w[3:], **names)
        return naive.layer(oracle, X)[1]

    assert_gradients(model, RNG.normal(size=(4, 3)), predicted)


@pytest.mark.parametrize("name", first_quick(["layer_norm", "custom", "stack"]))
def test_cells_below_frozen_ones_are_trained(name: str) -> None:
    """And a frozen cell has no gradient. Slow: the other cells, each compiled for itself."""
    cells = [layers.GRUCell(3), CELLS[name][0](), layers.LSTMCell(2)]
    if name == "stack":
        cells[1] = layers.StackedRNNCells(cells[1])
    model = weighted(Sequential([Input((None, 3)), layers.RNN(cells)]))
    model.compile("sgd", "mse")
    y = RNG.normal(size=(4, 2))
    whole = model.gradients(X, y)
    cells[0].trainable = cells[2].trainable = False
    model.compile("sgd", "mse")
    middle = model.gradients(X, y)
    assert 0 < len(middle) < len(whole)
    assert_same(list(middle.values()), [whole[key] for key in middle])


@pytest.mark.parametrize("make", [layers.PeepholeLSTMCell, layers.LayerNormLSTMCell])
def test_an_activation_that_has_no_derivative_from_its_value_is_refused(make: Any) -> None:
    rnn = layers.RNN([layers.GRUCell(2), make(2, activation="gelu")], name="stacked")
    with pytest.raises(UnsupportedError, match=r"'stacked'.*'gelu' inside a recurrent layer"):
        Sequential([Input((None, 3)), rnn]).compile("sgd", "mse")
