"""What a custom cell must bring to be trained, and what is said if it does not."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same
from nn.training import custom_cells
from nn.training.trained import weighted
from selection import first_quick, slow

from streamrnn import Input, Sequential, layers
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError
from streamrnn.nn.training import gradient_check

X = np.random.default_rng(31).normal(size=(3, 4, 2)).astype(np.float32)


class Smoothing(layers.Cell):
    """h' = h + rate (x - h)."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape: Any) -> None:
        self.add_weight("rate", (self.units,))

    @staticmethod
    def step(x: Any, states: Any, weights: Any, y: Any) -> None:
        (h,), (rate,) = states, weights
        for u in range(h.size):
            h[u] += rate[u] * (x[u] - h[u])
            y[u] = h[u]


Backward = Callable[..., None]


def with_backward(function: Backward) -> type[Smoothing]:
    return type("Smoothing", (Smoothing,), {"step_backward": staticmethod(function)})


def right(
    x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
) -> None:
    (h,), (rate,), (dh,), (drate,) = states, weights, dstates, dweights
    for u in range(h.size):
        d = dy[u] + dh[u]
        dx[u] = rate[u] * d
        drate[u] += (x[u] - h[u]) * d
        dh[u] = (1 - rate[u]) * d


def wrong_x(*args: Any) -> None:
    right(*args)
    args[6][1] *= 1.01


def wrong_state(*args: Any) -> None:
    before = args[5][0].copy()
    right(*args)
    args[5][0][0] = before[0]


def overwrites_weights(*args: Any) -> None:
    args[7][0][:] = 0
    right(*args)


def keeps_dy(*args: Any) -> None:
    args[4][:] = 0
    right(*args)


def not_a_number(*args: Any) -> None:
    right(*args)
    args[6][0] = args[6][0] * np.inf - args[6][0] * np.inf


def writes_y(*args: Any) -> None:
    right(*args)
    args[3][:] = 0


def writes_weights(*args: Any) -> None:
    right(*args)
    args[2][0][:] = 0


def gradients(cell: layers.Layer) -> dict[str, np.ndarray]:
    model = weighted(Sequential([Input((None, 2)), layers.Dense(2), layers.RNN(cell)]))
    model.compile("sgd", "mse")
    found: dict[str, np.ndarray] = model.gradients(X, np.zeros((3, 2)))
    return found


@pytest.mark.parametrize(
    ("function", "says"),
    first_quick(
        [
            (wrong_x, r"of x at \[1\]: expected"),
            (wrong_state, r"of states\[0\] at \[0\]: expected"),
            (overwrites_weights, r"of weights\[0\] \('rate'\) at \[\d\]: expected"),
            (keeps_dy, "expected"),
            (writes_y, "writes to y, which"),
            (writes_weights, r"writes to weights\[0\], which"),
            (not_a_number, r"of x at \[0\]: expected .* received nan"),
        ],
        6,
    ),
)
@pytest.mark.filterwarnings("ignore:.*Numba cannot compile its step_backward:UserWarning")
def test_a_step_backward_that_is_no_derivative_is_refused(function: Backward, says: str) -> None:
    """The cell, the entry that differs most, what is expected and received.

    Slow: a gradient that is not a number.
    """
    with (
        np.errstate(all="ignore"),
        pytest.raises(ArgumentError, match=r"'mine' \(Smoothing\).*step_backward.*" + says),
    ):
        gradients(with_backward(function)(2, name="mine"))


def write_rate(x: Any, states: Any, weights: Any, y: Any) -> None:
    weights[0][0] += 1


def write_beyond(x: Any, states: Any, weights: Any, y: Any) -> None:
    y[2] = 1


@pytest.mark.parametrize(
    ("step", "error", "says"),
    [
        (write_rate, ArgumentError, "its step writes to a weight"),
        (write_beyond, ShapeError, r"its step reads or writes outside an array.*y is \(2,\)"),
    ],
)
def test_a_step_is_checked_in_training_too(step: Any, error: type[Exception], says: str) -> None:
    """Before it is compiled: compiled code would write there."""
    methods = {"step": staticmethod(step), "step_backward": staticmethod(right)}
    cell = type("Smoothing", (Smoothing,), methods)
    with pytest.raises(error, match=says):
        gradients(cell(2))


@slow
def test_a_right_one_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow: a cell that is compiled for it; custom cells of pipelines are compared."""
    cell, compared = with_backward(right), []
    differences = gradient_check.central_differences
    monkeypatch.setattr(
        gradient_check,
        "central_differences",
        lambda *args: compared.append(1) or differences(*args),
    )
    one = gradients(cell(2))
    assert len(compared) == 3
    assert_same(list(gradients(cell(2)).values()), list(one.values()))
    assert len(compared) == 3


@slow
def test_a_step_that_rounds_to_float32_and_has_a_kink_is_compared() -> None:
    """Slow: a step that is compiled for it."""

    class Rounding(Smoothing):
        @staticmethod
        def step(x: Any, states: Any, weights: Any, y: Any) -> None:
            (h,), (rate,) = states, weights
            z = np.zeros(h.size, np.float32)
            for u in range(h.size):
                z[u] = rate[u] * x[u] + h[u]
                h[u] = max(z[u], 0)
                y[u] = h[u]

        @staticmethod
        def step_backward(
            x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
        ) -> None:
            (rate,), (dh,), (drate,) = weights, dstates, dweights
            for u in range(y.size):
                d = dy[u] + dh[u] if y[u] > 0 else 0.0
                dx[u] = rate[u] * d
                drate[u] += x[u] * d
                dh[u] = d

    assert len(gradients(Rounding(2))) == 3


@slow
def test_large_weights_are_compared_at_some_entries() -> None:
    """Of 60 units, in well under a second each. Slow: large weights."""
    model = Sequential([Input((None, 40)), layers.RNN(custom_cells.MinimalGatedUnit(60))])
    model.compile("sgd", "mse")
    assert len(model.gradients(np.ones((1, 2, 40)), np.zeros((1, 60)))) == 3


def test_an_index_outside_an_array_is_found_before_it_crashes() -> None:
    def outside(
        x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
    ) -> None:
        dx[x.size] = 0

    with pytest.raises(ShapeError, match=r"'mine' .*step_backward reads or writes outside"):
        gradients(with_backward(outside)(2, name="mine"))


def test_functions_that_numba_cannot_compile_run_in_python() -> None:
    """With the same gradients, and a warning."""

    def plain(*args: Any) -> None:
        {}.update(a=object())
        right(*args)

    compiled = gradients(with_backward(right)(2))
    with pytest.warns(UserWarning, match="Numba cannot compile its step_backward"):
        found = gradients(with_backward(plain)(2))
    for gradient, other in zip(found.values(), compiled.values(), strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-5)


def test_a_layer_that_is_written_as_a_cell_is_trained() -> None:
    """Without a base class Cell: with state_size, step and step_backward."""

    class Bare(layers.Layer):
        state_size = 2
        step, step_backward = staticmethod(Smoothing.step), staticmethod(right)

        def build(self, input_shape: Any) -> None:
            self.add_weight("rate", (2,))
            self.built = True

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gradients(Bare())
    assert_same(list(found.values()), list(gradients(with_backward(right)(2)).values()))


def test_a_cell_without_step_backward_is_refused_by_name() -> None:
    rnn = layers.RNN(Smoothing(2), name="smooth")
    with pytest.raises(UnsupportedError, match=r"'smooth'.*cell Smoothing needs .*step_backward\("):
        Sequential([Input((None, 2)), rnn]).compile("sgd", "mse")
    frozen = Sequential([Input((None, 2)), rnn, layers.Dense(1)])
    rnn.trainable = False
    frozen.compile("sgd", "mse")
    assert len(frozen.gradients(X, np.zeros((3, 1)))) == 2


def test_a_cell_in_the_way_of_keras_is_refused_by_name() -> None:
    class Minimal(layers.Layer):
        state_size = 2

        def build(self, input_shape: Any) -> None:
            self.kernel = self.add_weight("kernel", (input_shape[-1], 2))
            self.built = True

        def call(self, inputs: Any, states: Any) -> Any:
            output = inputs @ self.kernel + states[0]
            return output, [output]

    rnn = layers.RNN([layers.GRUCell(2), Minimal()], name="stack")
    why = r"'stack'.*cell Minimal, which has `call`.*step_backward"
    with pytest.raises(UnsupportedError, match=why):
        Sequential([Input((None, 2)), rnn]).compile("sgd", "mse")


@slow
def test_a_cell_that_only_works_with_some_weights_is_compared_there() -> None:
    """Near its own weights, and at states that it reaches.

    Slow: other weights than those at random.
    """

    class Root(layers.Cell):
        units = state_size = output_size = 2

        def build(self, input_shape: Any) -> None:
            self.add_weight("rate", (2,), "ones")

        @staticmethod
        def step(x: Any, states: Any, weights: Any, y: Any) -> None:
            (h,), (rate,) = states, weights
            for u in range(2):
                h[u] = np.sqrt(rate[u]) * (1 + np.sqrt(h[u]))
                y[u] = h[u]

        @staticmethod
        def step_backward(
            x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
        ) -> None:
            (h,), (rate,), (dh,), (drate,) = states, weights, dstates, dweights
            for u in range(2):
                d = dy[u] + dh[u]
                drate[u] += d * (1 + np.sqrt(h[u])) / (2 * np.sqrt(rate[u]))
                dh[u] = d * np.sqrt(rate[u]) / (2 * np.sqrt(h[u]))

    model = Sequential([Input((None, 2)), layers.RNN(Root(), return_sequences=True)])
    model.compile("sgd", "mse")
    found = model.gradients(X[:, 1:], np.zeros((3, 3, 2)))
    assert all(np.isfinite(gradient).any() for gradient in found.values())
