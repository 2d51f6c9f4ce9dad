"""Cells that are layers, as Keras code writes them. (All that recurrent layers do: kinds.KINDS.)"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import (
    LayerGatedUnit,
    LayerMoments,
    MinimalGatedUnit,
    MinimalRNNCell,
    MixesRows,
    assert_same,
    built,
    flat,
    layer_at,
)
from selection import slow

import streamrnn
from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import ModelFileError, ShapeError, UnsupportedError

RNG = np.random.default_rng(8)
X = RNG.normal(size=(9, 6, 4)).astype(np.float32)
GAPS = RNG.random((9, 6)) < 0.7


@pytest.fixture(autouse=True)
def registered() -> None:
    for cls in (MinimalRNNCell, MixesRows, LayerGatedUnit, DenseInside):
        streamrnn.register_layer(cls.__name__, cls)


def test_the_cell_of_keras_documentation() -> None:
    """As it stands there: on symbols, alone and in a list; and what it is to compute."""
    cell = MinimalRNNCell(32)
    x = Input((None, 5))
    layer = layers.RNN(cell)
    y = layer(x)
    assert y.shape == (None, 32)
    assert layer.cell is cell
    assert [w.shape for w in layer.weights] == [(5, 32), (32, 32)]
    stack = layers.RNN([MinimalRNNCell(32), MinimalRNNCell(64)])
    z = stack(x)
    assert z.shape == (None, 64)
    assert stack.count_params() == 32 * (5 + 32) + 64 * (32 + 64)
    data = RNG.normal(size=(3, 7, 5)).astype(np.float32)
    one, other = Model(x, [y, z])(data)
    assert_same([one, other], [layer(data), stack(data)])


@pytest.mark.parametrize("backwards", [False, True])
@slow
def test_it_computes_what_simple_rnn_does(backwards: bool) -> None:
    """Linear and without a bias; sequences, states, masks, initial states, both ways.

    Slow: a kernel for linear cells.
    """
    options = {"return_sequences": True, "return_state": True, "go_backwards": backwards}
    own = layers.RNN(MinimalRNNCell(5), **options)
    simple = layers.SimpleRNN(5, activation="linear", use_bias=False, **options)
    own.build((None, None, 4))
    simple.build((None, None, 4))
    simple.set_weights(own.get_weights())
    h = RNG.normal(size=(9, 5)).astype(np.float32)
    for call in ({}, {"initial_state": [h]}, {"mask": GAPS | (np.arange(6) == (5 * backwards))}):
        for mine, theirs in zip(own(X, **call), simple(X, **call), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("units", [3, 64, 70])
def test_rows_of_a_batch_have_the_bits_they_have_alone(units: int) -> None:
    """BLAS gives a row of nine other bits than one row; the batch must not be seen."""
    layer = layers.RNN(MinimalRNNCell(units), return_sequences=True)
    wide = RNG.normal(size=(9, 6, units)).astype(np.float32)
    together = layer(wide)
    assert_same(together, np.concatenate([layer(wide[b : b + 1]) for b in range(9)]))


def test_a_body_that_mixes_rows_sees_one() -> None:
    """A mean over the batch is one over a batch of one: streams never meet."""
    layer = layers.RNN(MixesRows(5), return_sequences=True)
    poisoned = X.copy()
    poisoned[0] = np.nan
    assert_same(layer(poisoned)[1:], layer(X)[1:])


class DelayLine(layers.Layer):
    """Gives the input of two steps ago: each state is handed on to the next."""

    state_size = (4, 4)
    output_size = 4

    def call(self, inputs, states):
        return states[1], (inputs, states[0])


def test_states_handed_on_are_not_overwritten_first() -> None:
    """What `call` returns may be what it was given."""
    y, first, second = layers.RNN(DelayLine(), return_sequences=True, return_state=True)(X)
    assert_same(y[:, 2:], X[:, :-2])
    assert_same([first, second], [X[:, -1], X[:, -2]])
    assert not y[:, :2].any()


def test_a_body_may_write_into_its_arguments() -> None:
    """They are its own: neither the caller's array nor the state it started from changes."""

    class Writes(layers.Layer):
        state_size = 4

        def call(self, inputs, states):
            inputs *= 2
            states[0] += inputs
            return inputs, [states[0]]

    x, h = X.copy(), np.ones((9, 4), np.float32)
    y, after = layers.RNN(Writes(), return_state=True)(x, initial_state=h)
    assert_same([x, h], [X, np.ones((9, 4), np.float32)])
    assert_same(y, X[:, -1] * 2)
    np.testing.assert_allclose(after, 1 + 2 * X.sum(1), rtol=1e-5, atol=1e-5)


def test_the_output_has_the_size_of_the_first_state_unless_it_says_so() -> None:
    """As in Keras: `units` is whatever the class means by it."""

    class Doubles(layers.Layer):
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units
            self.state_size = [2 * units, 1]

        def call(self, inputs, states):
            return states[0], states

    assert layers.RNN(Doubles(3))(Input((None, 4))).shape == (None, 6)
    cell = LayerMoments(5)
    cell.output_size = np.int64(2)
    assert layers.RNN(cell)(X).shape == (9, 2)


def test_states_begin_where_the_cell_says() -> None:
    """get_initial_state, called with its argument by name, also in a stream."""

    class Counts(layers.Layer):
        state_size = 1

        def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
            assert inputs is None
            return np.full((batch_size, 1), 5, np.float32)

        def call(self, inputs, states):
            return states[0], [states[0] + 1]

    model = Sequential([Input((None, 4)), layers.RNN(Counts(), name="rnn")])
    assert_same(model(X[:2]), np.full((2, 1), 10, np.float32))
    initial = streamrnn.models.StepRunner(model).initial_state(3)
    assert_same(initial["rnn/s0"], np.full((3, 1), 5, np.float32))


@slow
def test_a_stack_gives_the_one_state_of_such_a_cell_bare() -> None:
    """As Keras: an array where state_size is an int, a list where it or its start is a list.

    Slow: a stack of cells that is compiled for it.
    """

    class Starts(MinimalRNNCell):
        def get_initial_state(self, batch_size=None):
            return [np.zeros((batch_size, self.units), np.float32)]

    class Listed(MinimalRNNCell):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)
            self.state_size = [units]

    cells = [MinimalRNNCell(2), MinimalGatedUnit(3), Starts(4), Listed(5), layers.GRUCell(6)]
    stack = layers.RNN(cells, return_state=True, stateful=True)
    states = stack(X)[1:]
    nested = [np.shape(s) if isinstance(s, np.ndarray) else [a.shape for a in s] for s in states]
    assert nested == [(9, 2), (9, 3), [(9, 4)], [(9, 5)], [(9, 6)]]
    assert_same(stack.states, states)
    fresh = layers.RNN(cells)
    assert_same(fresh(X, initial_state=states), stack(X)[0])
    symbols = layers.RNN(cells, return_state=True)(Input((None, 4)))
    assert [s.shape for s in flat_symbols(symbols)] == [(None, n) for n in (6, 2, 3, 4, 5, 6)]


def flat_symbols(tree: Any) -> list[Any]:
    return [s for part in tree for s in flat_symbols(part)] if isinstance(tree, list) else [tree]


def test_a_cell_is_called_for_one_step_by_itself() -> None:
    """cell(inputs, states), whatever the batch, as a Cell is."""
    cell, layer = MinimalRNNCell(5), None
    layer = layers.RNN(cell, return_sequences=True)
    y = layer(X)
    states: Any = [np.zeros((9, 5), np.float32)]
    for t in range(6):
        output, states = cell(X[:, t], states)
        assert_same(output, y[:, t])
    with pytest.raises(ShapeError, match="the number of states must be 1 "):
        cell(X[:, 0], [])
    with pytest.raises(UnsupportedError, match="takes no mask"):
        cell(X[:, 0], states, mask=GAPS)
    with pytest.raises(UnsupportedError, match="takes no initial_state"):
        layers.Dense(3)(X[:, 0], states)


def test_a_layer_may_have_the_compiled_step_of_a_cell() -> None:
    """A static method `step`; another method of that name is nothing of ours."""

    class Compiled(layers.Layer):
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.state_size = self.units = units

        build = MinimalGatedUnit.build
        step = staticmethod(MinimalGatedUnit.step)

    class Otherwise(MinimalRNNCell):
        def step(self) -> None:
            raise AssertionError

    own, cell = layers.RNN(Compiled(5)), built("custom", 5, 4)
    own.build((None, None, 4))
    own.set_weights(cell.get_weights())
    assert_same(own(X), cell(X))
    assert layers.RNN(Otherwise(3))(X).shape == (9, 3)


def nothing(**attributes: Any) -> layers.Layer:
    return type("Some", (layers.Layer,), attributes)(name="some")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (nothing(), "received Some, which has no call and no state_size"),
        (nothing(call=lambda self, x, s: (x, s)), "which has no state_size"),
        (nothing(state_size=3), "which has no call"),
        (layers.Dense(3), "received Dense, which has no call and no state_size"),
        (layers.LSTM(3), "received LSTM, which has no call and no state_size"),
        (np.tanh, "received ufunc, which is not a layer"),
        ([MinimalRNNCell(3), "cell"], "received str, which is not a layer"),
    ],
)
def test_what_is_no_cell_is_refused_for_what_it_lacks(cell: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        layers.RNN(cell)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"state_size": [3, [(2,), (4,)]]}, r"'some'.*state_size.*cannot be nested any deeper"),
        ({"state_size": "three"}, r"'some'.*state_size must be an int"),
        (
            {"state_size": [(2,), (3, 4)], "output_size": [(2,), (3, 4)]},
            r"'some'.*output_size must be an int, received \[\(2,\), \(3, 4\)\]",
        ),
    ],
)
def test_nested_sizes_are_refused_by_name(attributes: Any, message: str) -> None:
    """States of any shape are taken; deeper structures and several outputs are not."""
    cell = nothing(call=lambda self, x, s: (x, s), **attributes)
    with pytest.raises(UnsupportedError, match=message):
        layers.RNN(cell)(X)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x, s: (x[:, :1], s), r"'some'.*its output in shape \(1, 1\), expected \(1, 4\)"),
        (lambda x, s: (x, [x[0]]), r"'some'.*its state 0 in shape \(4,\), expected \(1, 4\)"),
        (lambda x, s: (x, [*s, *s]), "'some'.*states that call returns must be 1, received 2"),
        (
            lambda x, s: x,
            r"'some'.*returned one array of shape \(1, 4\), expected a pair: \(output",
        ),
        (lambda x, s: None, "'some'.*returned None, expected a pair"),
        (lambda x, s: (x, s, s), "'some'.*returned 3 values, expected a pair"),
        (lambda x, s: (x, None), "'some'.*returned an output and None, expected a pair"),
        (lambda x, s: (x, 1.0), "'some'.*an output and a value of type float, expected a pair"),
    ],
)
def test_what_call_returns_is_checked(returned: Any, message: str) -> None:
    cell = nothing(call=lambda self, x, s: returned(x, s), state_size=4)
    with pytest.raises(ShapeError, match=message):
        layers.RNN(cell)(X)


def test_what_call_raises_itself_is_what_is_raised() -> None:
    """With the user's own line in its traceback: `states` is a list, in Keras too."""
    cell = nothing(call=lambda self, x, s: (x, s + 1), state_size=4)
    with pytest.raises(TypeError, match="can only concatenate list") as caught:
        layers.RNN(cell)(X)
    assert caught.traceback[-1].path == Path(__file__)


# ---- saved and loaded


def test_a_registered_cell_is_saved_and_loaded_by_its_arguments(tmp_path: Any) -> None:
    """It writes no get_config, as in Keras's documentation; the file has what it was made with."""
    model = Sequential(
        [
            Input((None, 4)),
            layers.Bidirectional(
                layers.RNN(
                    [MinimalRNNCell(3, name="first"), LayerGatedUnit(units=np.int64(2))],
                    return_sequences=True,
                )
            ),
            layers.RNN(MinimalRNNCell(3, trainable=False)),
        ]
    )
    model.save(tmp_path / "model.safetensors")
    again = streamrnn.load_model(tmp_path / "model.safetensors")
    assert_same(again(X), model(X))
    assert again.fingerprint() == model.fingerprint()
    assert not layer_at(again, 1).cell.trainable
    config = layers.serialize(layer_at(model, 1).cell)["config"]
    assert config == {"units": 3, "name": config["name"], "trainable": False}


def test_an_argument_that_no_file_can_hold_is_refused(tmp_path: Any) -> None:
    """By name, when the model is saved: not when it is loaded."""

    class Odd(MinimalRNNCell):
        def __init__(self, units, squash, **kwargs):
            super().__init__(units, **kwargs)

    streamrnn.register_layer("Odd", Odd)
    model = Sequential([Input((None, 4)), layers.RNN(Odd(3, np.tanh, name="odd"))])
    model(X)
    with pytest.raises(UnsupportedError, match=r"'odd' \(Odd\).*squash=.*give Odd a get_config"):
        model.save(tmp_path / "model.safetensors")


class DenseInside(layers.Layer):
    """Layers in attributes and in a list, which Keras finds by itself."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.mix = layers.Dense(units, name="mix")
        self.deep = [layers.Dense(units, "tanh", name="a"), layers.Dense(units, name="b")]

    def call(self, inputs, states):
        h = self.mix(np.concatenate([inputs, states[0]], axis=1))
        for layer in self.deep:
            h = layer(h)
        return h, [h]


def test_layers_inside_a_cell_are_part_of_it(tmp_path: Any) -> None:
    """Their weights are there once the graph is, are counted, set, saved and loaded."""
    layer = layers.RNN(DenseInside(3), name="rnn")
    model = Sequential([Input((None, 4)), layer])
    assert list(layer.named_weights()) == [
        f"cell/{where}/{name}"
        for where in ("mix", "deep/0", "deep/1")
        for name in ("kernel", "bias")
    ]
    assert model.count_params() == (7 * 3 + 3) + 2 * (3 * 3 + 3)
    model.set_weights([RNG.normal(size=w.shape) for w in model.get_weights()])
    model.save(tmp_path / "model.safetensors")
    assert_same(streamrnn.load_model(tmp_path / "model.safetensors")(X), model(X))
    assert_same(model(X), np.concatenate([model(X[b : b + 1]) for b in range(9)]))


def test_a_file_that_lacks_the_weights_of_a_layer_inside_is_refused(tmp_path: Any) -> None:
    """Not begun with new ones."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    Sequential([Input((None, 4)), layers.RNN(DenseInside(3), name="rnn")]).save(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys() if "deep/1" not in name}  # noqa: SIM118
    save_file(arrays, path, metadata)
    with pytest.raises(ModelFileError, match="deep/1"):
        streamrnn.load_model(path)


def test_keras_arguments_of_add_weight_are_taken() -> None:
    """Those that matter only to training; a dtype other than float32 is refused."""

    class Weighs(MinimalRNNCell):
        def build(self, input_shape):
            self.kernel = self.add_weight(
                name="kernel",
                shape=(input_shape[-1], self.units),
                dtype=self.dtype,
                regularizer=None,
                constraint=None,
                trainable=False,
            )
            self.recurrent_kernel = self.kernel[: self.units]

        dtype = "float32"

    layer = layers.RNN(Weighs(3))
    assert layer(X).shape == (9, 3)
    assert layer.trainable_params() == 0
    Weighs.dtype = "float16"
    with pytest.raises(UnsupportedError, match="dtype must be 'float32'"):
        layers.RNN(Weighs(3))(X)


def test_bidirectional_and_time_distributed_take_it() -> None:
    """The way back is a copy with weights of its own; an RNN on each step of (B, T, K, F)."""
    layer = layers.Bidirectional(layers.RNN(MinimalRNNCell(3), return_sequences=True))
    y = layer(X, mask=GAPS)
    there, back = layer.forward_layer, layer.backward_layer
    one, other = (part(X, mask=GAPS) for part in (there, back))
    assert_same(y, np.concatenate([one, other[:, ::-1]], axis=-1))
    assert (there.get_weights()[0] != back.get_weights()[0]).any()
    inner = layers.RNN(MinimalRNNCell(3))
    nested = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
    y = layers.TimeDistributed(inner)(nested)
    assert_same(y, np.stack([inner(nested[:, t]) for t in range(3)], axis=1))


def test_masked_steps_repeat_the_output_also_where_no_state_is_it() -> None:
    """And carry it from call to call, as for every cell whose output is no state."""
    layer = layers.RNN(LayerMoments(3), return_sequences=True, stateful=True)
    y = layer(X, mask=GAPS)
    for b, t in zip(*np.nonzero(~GAPS[:, 1:]), strict=True):
        assert_same(y[b, t + 1], y[b, t])
    layer.reset_state()
    assert_same(
        np.concatenate(
            [layer(X[:, :2], mask=GAPS[:, :2]), layer(X[:, 2:], mask=GAPS[:, 2:])], axis=1
        ),
        y,
    )
    assert len(flat(layer.states)) == 2
