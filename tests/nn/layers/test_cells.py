"""Cells by themselves, stacked cells, and cells of the user's own."""

import pickle
from typing import Any

import naive
import numpy as np
import pytest
from nn.layers.kinds import MinimalGatedUnit, PlainGatedUnit, assert_same
from selection import slow

import streamrnn
from streamrnn import Input, Model, layers
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError

RNG = np.random.default_rng(1)
X = RNG.normal(size=(3, 6, 4)).astype(np.float32)


@pytest.mark.parametrize("cell", [layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell])
def test_a_cell_is_one_step_of_its_layer(cell: type[Any]) -> None:
    """cell(x, states) -> (output, states), step by step, equals the layer."""
    one = cell(5)
    layer = layers.RNN(one, return_sequences=True, return_state=True)
    y, *after = layer(X)
    states = one.get_initial_state(3)
    for t in range(6):
        output, states = one(X[:, t], states)
        assert_same(output, y[:, t])
    assert_same(states, after)


def test_stacked_cells_are_layers_on_top_of_each_other() -> None:
    """RNN([a, b]) equals b over a; states come nested, one list a cell."""
    cells = [layers.LSTMCell(5), layers.GRUCell(3)]
    y, first, second = layers.RNN(cells, return_state=True)(X)
    below, h, c = layers.RNN(cells[0], return_sequences=True, return_state=True)(X)
    above, top = layers.RNN(cells[1], return_state=True)(below)
    assert_same(y, above)
    assert_same([first, second], [[h, c], [top]])
    stack = layers.StackedRNNCells(cells)
    assert stack.state_size == [[5, 5], 3]
    assert_same(layers.RNN(stack)(X), y)


def test_parameters_of_stacked_cells() -> None:
    """Each cell reads the units of the one before it; three weights a cell, in order."""
    layer = layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)])
    layer.build((None, None, 4))
    assert layer.count_params() == 4 * 5 * (4 + 5 + 1) + 3 * 3 * (5 + 3 + 2)
    assert [w.shape for w in layer.weights][:4] == [(4, 20), (5, 20), (20,), (5, 9)]


@slow
def test_a_compiled_cell_equals_the_same_in_numpy() -> None:
    """One unit, both ways of writing it. Slow: a cell that no other test compiles."""
    compiled = layers.RNN(MinimalGatedUnit(5), return_sequences=True)
    plain = layers.RNN(PlainGatedUnit(5), return_sequences=True)
    for layer in (compiled, plain):
        layer.build((None, None, 4))
    plain.set_weights(compiled.get_weights())
    np.testing.assert_allclose(compiled(X), plain(X), rtol=1e-5, atol=1e-6)


@slow
def test_a_layer_of_a_compiled_cell_is_pickled_after_its_use() -> None:
    """As before it: what a step is compiled to is made again. Slow: as the test before."""
    layer = layers.RNN(MinimalGatedUnit(5))
    y = layer(X)
    assert_same(pickle.loads(pickle.dumps(layer))(X), y)


class PeepholeLSTM(layers.Cell):
    """Gers et al. 2002: gates that see the cell state, through a fourth weight."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.state_size = [units, units]

    def build(self, input_shape: Any) -> None:
        self.add_weight("kernel", (input_shape[-1], 4 * self.units))
        self.add_weight("recurrent_kernel", (self.units, 4 * self.units), "orthogonal")
        self.add_weight("bias", (4 * self.units,), "random_normal")
        self.add_weight("peephole", (3, self.units), "random_normal")

    @staticmethod
    def step(x, states, weights, y):
        (h, c), (kernel, recurrent, bias, peephole) = states, weights
        units = h.size
        z = bias.copy()
        for g in range(4 * units):
            for k in range(x.size):
                z[g] += x[k] * kernel[k, g]
            for k in range(units):
                z[g] += h[k] * recurrent[k, g]
        for u in range(units):
            i = 1 / (1 + np.exp(-(z[u] + peephole[0, u] * c[u])))
            f = 1 / (1 + np.exp(-(z[units + u] + peephole[1, u] * c[u])))
            c[u] = f * c[u] + i * np.tanh(z[2 * units + u])
            o = 1 / (1 + np.exp(-(z[3 * units + u] + peephole[2, u] * c[u])))
            h[u] = o * np.tanh(c[u])
            y[u] = h[u]


@slow
def test_a_peephole_lstm() -> None:
    """A cell with two states and a weight that no built-in cell has, against the oracle.

    Slow: a cell that is compiled for it; the contracts of layers have peepholes.
    """
    layer = layers.RNN(PeepholeLSTM(5), return_sequences=True, return_state=True)
    y, h, c = layer(X)
    outputs, _, states = naive.layer(naive.peephole_lstm(*layer.get_weights()), X)
    np.testing.assert_allclose(y, outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([h, c], states, rtol=1e-5, atol=1e-6)


def test_a_step_that_numba_refuses_runs_in_python_and_says_so() -> None:
    """The numbers are right, the warning names the cell and comes once."""

    class Odd(layers.Cell):
        units = state_size = 2

        @staticmethod
        def step(x, states, weights, y):
            (h,) = states
            for u in range(h.size):
                h[u] += sum(x.tolist())
                y[u] = h[u]

    layer = layers.RNN(Odd(name="odd"), return_sequences=True)
    with pytest.warns(UserWarning, match=r"'odd' \(Odd\).*cannot compile.*in Python"):
        y = layer(X)
    np.testing.assert_allclose(y[..., 0], np.cumsum(X.sum(-1), axis=1), rtol=1e-4, atol=1e-5)
    layer(X)


def test_a_step_that_reaches_outside_an_array_is_refused() -> None:
    """Compiled code would write there; for each combination of sizes the first step finds it."""

    class Reaches(layers.Cell):
        units = 3

        def build(self, input_shape: Any) -> None:
            self.add_weight("kernel", (4, 3))

        @staticmethod
        def step(x, states, weights, y):
            (h,), (kernel,) = states, weights
            for u in range(3):
                for k in range(x.size):
                    h[u] += x[k] * kernel[k, u]
                y[u] = h[u]

    assert layers.RNN(Reaches())(X).shape == (3, 3)
    wider = np.zeros((3, 6, 5), np.float32)
    with pytest.raises(ShapeError, match=r"'far' \(Reaches\).*outside an array.*x is \(5,\)"):
        layers.RNN(Reaches(name="far"))(wider)


class Scratch(layers.Cell):
    """Keeps an intermediate result in its inputs."""

    units = state_size = 4

    def build(self, input_shape: Any) -> None:
        self.add_weight("rate", (4,), "ones")

    @staticmethod
    def step(x, states, weights, y):
        (h,), (rate,) = states, weights
        for u in range(h.size):
            x[u] *= 2
            h[u] += x[u] * rate[u]
            y[u] = h[u]

    @staticmethod
    def step_backward(x, states, weights, y, dy, dstates, dx, dweights):
        (h,), (rate,), (dh,), (drate,) = states, weights, dstates, dweights
        for u in range(h.size):
            dh[u] += dy[u]
            dx[u] = 2 * rate[u] * dh[u]
            drate[u] += 2 * x[u] * dh[u]


@slow
def test_a_step_may_change_its_inputs() -> None:
    """They are also the caller's, and those of other layers.

    Slow: a step and its gradient that are compiled for it.
    """
    inputs, rows, sums = Input((None, 4)), X.copy(), 2 * np.cumsum(X, axis=1)
    layer = layers.RNN(Scratch(), return_sequences=True)
    model = Model(inputs, [layer(inputs), layers.Identity()(inputs)])
    for y, same in (model(rows), model.predict(rows)):
        np.testing.assert_allclose(y, sums, rtol=1e-5, atol=1e-5)
        assert (same == X).all()
    model.compile("sgd", "mse")
    assert model.train_on_batch(rows, [sums, X]) == pytest.approx([0, 0, 0], abs=1e-8)
    assert (rows == X).all()


def test_a_step_writes_to_no_weight_and_is_static() -> None:
    class Writes(Scratch):
        @staticmethod
        def step(x, states, weights, y):
            (rate,) = weights
            rate[0] += 1

    class Unbound(Scratch):
        def step(self, x, states, weights, y):  # type: ignore[override]
            y[:] = x

    with pytest.raises(ArgumentError, match=r"writes.*its step writes to a weight"):
        layers.RNN(Writes())(X)
    with pytest.raises(ArgumentError, match=r"unbound.*its step must be a @staticmethod of \(x, "):
        layers.RNN(Unbound())(X)


def test_a_custom_cell_sees_training_only_in_keras_way() -> None:
    """`call` gets the flag of the layer's call."""
    seen = []

    class Watches(PlainGatedUnit):
        def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
            seen.append(training)
            return super().call(inputs, states)

    layer = layers.RNN(Watches(2))
    layer(X[:1, :1])
    layer(X[:1, :1], training=True)
    assert seen == [False, True]


@slow
def test_a_custom_cell_is_saved_once_it_is_registered(tmp_path: Any) -> None:
    """Unregistered, saving says what to call; registered, the file comes back the same.

    Slow: a cell that is compiled for it.
    """

    class Mine(MinimalGatedUnit):
        pass

    model = streamrnn.Sequential([layers.Input((None, 4)), layers.RNN(Mine(3), name="mine")])
    with pytest.raises(UnsupportedError, match="register_layer"):
        model.save(tmp_path / "model.safetensors")
    streamrnn.register_layer("Mine", Mine)
    model.save(tmp_path / "model.safetensors")
    assert_same(streamrnn.load_model(tmp_path / "model.safetensors")(X), model(X))


@pytest.mark.parametrize("thing", [layers.Dense(3), "cell", None, [layers.LSTMCell(2), 3]])
def test_what_is_no_cell_is_refused(thing: Any) -> None:
    """RNN says what it expected."""
    with pytest.raises(UnsupportedError, match="cell"):
        layers.RNN(thing)


def test_cells_check_what_they_are_called_with() -> None:
    """A sequence instead of a step; too few states."""
    cell = layers.LSTMCell(5)
    with pytest.raises(ShapeError, match=r"expected inputs \(batch, features\)"):
        cell(X, cell.get_initial_state(3))
    with pytest.raises(ShapeError, match="the number of states must be 2 "):
        cell(X[:, 0], cell.get_initial_state(3)[:1])


class KeepsItsKernel(layers.Cell):
    """Keras's way of a weight: an attribute, set in build."""

    def __init__(self, units: int, wrong: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.wrong = wrong

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight("kernel", (input_shape[-1], self.units))

    def call(self, inputs: Any, states: Any) -> Any:
        h = inputs @ self.kernel + states[0]
        cut = h[:, :1]
        return (cut if self.wrong == "output" else h), [cut if self.wrong == "state" else h]


def test_a_weight_kept_as_an_attribute_follows_set_weights() -> None:
    """And a `call` without `training` runs, with or without the flag in the layer's call."""
    layer = layers.RNN(KeepsItsKernel(3))
    layer(X)
    new = RNG.normal(size=(4, 3)).astype(np.float32)
    layer.set_weights([new])
    assert_same(layer.cell.kernel, new)
    assert not layer.cell.kernel.flags.writeable
    np.testing.assert_allclose(layer(X, training=True), X.sum(1) @ new, rtol=1e-4, atol=1e-5)


def test_weights_may_be_set_from_views_of_themselves() -> None:
    """They are copied before the first of them is written."""
    layer = layers.BatchNormalization()
    layer.build((None, 4))
    layer.set_weights(RNG.normal(size=(4, 4)))
    before = layer.get_weights()
    layer.set_weights(layer.weights[::-1])
    assert_same(layer.get_weights(), before[::-1])


@pytest.mark.parametrize("wrong", ["output", "state"])
def test_a_call_that_returns_another_width_is_refused(wrong: str) -> None:
    """It would be broadcast over the units."""
    layer = layers.RNN(KeepsItsKernel(3, wrong, name="it"))
    with pytest.raises(ShapeError, match=rf"'it'.*its {wrong}.*\(1, 1\), expected \(1, 3\)"):
        layer(X)
