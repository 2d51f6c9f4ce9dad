"""The base of cells: what a recurrent layer does in one step.

Three ways to write a cell of your own for `RNN(cell)`:

* **Compiled**: give it a static method `step(x, states, weights, y)` that Numba can compile. It
  sees one stream: `x` (F,), `states` a tuple of arrays in the shapes of `state_size` to be
  overwritten, `weights` a tuple in the order of `add_weight`, `y` (output_size,) to be written.
  Plain loops and `math` functions compile best, with the units innermost, which makes them vector
  code (at 64 units 0.5 µs a step, not 3.5). It is as cut-free as the built-in cells: what a stream
  gives does not depend on the batch, the chunk or the thread it is computed in. Compiled code does
  not check indices: the first step runs once in Python, which does, and with the environment
  variable STREAMRNN_BOUNDSCHECK=1 all of them are checked.
* **Keras's way**: a method `call(inputs, states)`, with `training=False` if it wants it, on arrays
  (rows, F) and a list of (rows, …) that returns (output, new states). It runs in NumPy, one row and
  one step at a time so that no result depends on the batch: some 5 to 20 µs a row and step, where a
  compiled step of the same size takes less than one.
* A `step` that Numba refuses runs in Python, with a warning that says what Numba said.

A minimal gated unit (Zhou et al. 2016, arXiv 1603.09420), compiled:

>>> import math
>>> import numpy as np
>>> from streamrnn import layers
>>> class MinimalGatedUnit(layers.Cell):
...     def __init__(self, units, **kwargs):
...         super().__init__(**kwargs)
...         self.units = self.state_size = self.output_size = units
...
...     def build(self, input_shape):
...         self.add_weight("kernel", (input_shape[-1], 2 * self.units))
...         self.add_weight("recurrent_kernel", (self.units, 2 * self.units), "orthogonal")
...         self.add_weight("bias", (2 * self.units,), "zeros")
...
...     @staticmethod
...     def step(x, states, weights, y):
...         (h,), (kernel, recurrent, bias) = states, weights
...         units = h.size
...         z = bias.copy()
...         for k in range(x.size):
...             for u in range(2 * units):
...                 z[u] += x[k] * kernel[k, u]
...         for k in range(units):
...             for u in range(units):
...                 z[u] += h[k] * recurrent[k, u]
...         for u in range(units):  # f = sigmoid(x Kf + h Rf + bf)
...             z[u] = 1 / (1 + math.exp(-z[u]))
...         for k in range(units):
...             for u in range(units, 2 * units):
...                 z[u] += z[k] * h[k] * recurrent[k, u]
...         for u in range(units):  # h' = (1 - f) h + f tanh(x Kh + (f h) Rh + bh)
...             y[u] = (1 - z[u]) * h[u] + z[u] * math.tanh(z[units + u])
...         h[:] = y
...
...     def get_config(self):
...         return {**super().get_config(), "units": self.units}
>>> layers.RNN(MinimalGatedUnit(4), return_sequences=True)(np.zeros((2, 5, 3))).shape
(2, 5, 4)

A cell gives the same bits on any CPU, unless it calls the C library in float64 (`math.exp` of a
float64) or computes in NumPy: their last bit may differ from one CPU to another.

With `streamrnn.register_layer("MinimalGatedUnit", MinimalGatedUnit)` a model that has it can be
saved and loaded.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.errors import ShapeError
from streamrnn.layers.layer import ArgumentError, Layer
from streamrnn.layers.run import Array, Floats, Run

StateSize = int | Sequence[int | tuple[int, ...]]


class Cell(Layer):
    """One step of a recurrent layer. See the module for how to write one.

    state_size: an int, or a list with one entry (int or shape) a state.
    output_size: the size of what a step gives; `units`, else the first state's, if not set.
    """

    units: int
    state_size: Any
    output_size: int

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._driver: Any = None

    # ---- what comes in and out

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """State name -> shape of one stream's. A custom cell's are s0, s1, …"""
        shapes = state_shapes_of(self)
        return {f"s{i}": shape for i, shape in enumerate(shapes)}

    def output_features(self) -> int:
        """The size of what a step gives."""
        for attribute in ("output_size", "units"):
            size = getattr(self, attribute, None)
            if isinstance(size, int):
                return size
        return state_shapes_of(self)[0][-1]

    def nest(self, states: list[Any]) -> list[Any]:
        """Flat states in the structure that Keras returns: a list, nested where cells stack."""
        return states

    @property
    def holds_output(self) -> bool:
        """Must the last output be carried for masked steps, because no state equals it?"""
        return True

    def output_of(self, states: list[Floats]) -> Floats:
        """The state that is the last output; only for cells that do not hold it."""
        return states[0]

    def get_initial_state(self, batch_size: int | None = None) -> Any:
        """States of rows that have not begun: an array or list of arrays (batch_size, …).

        Override it for a start other than zeros.
        """
        return [
            np.zeros((batch_size or 0, *shape), np.float32)
            for shape in self.state_shapes().values()
        ]

    # ---- computing

    def run_window(
        self,
        x_BTF: Floats,
        lengths_B: Array | None,
        mask_BT: Array | None,
        states: list[Floats],
        held_BU: Floats | None,
        y_BTU: Floats | None,
        *,
        zero_masked: bool = False,
        training: bool = False,
    ) -> None:
        """Run all steps of a window. States (and the held output) are changed in place.

        y_BTU is written where a step is present; None if only the end is wanted.
        """
        # Here and not above: this kernel needs Numba as soon as it is imported, a model whose cells
        # are built in only once it computes.
        from streamrnn.kernels import cell as kernel

        assert held_BU is not None
        weights = tuple(self._weights.values())
        step = getattr(self, "step", None)
        if step is None:
            call = _rowwise(self, training)
            kernel.run_plain(
                call, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked
            )
            return
        if self._driver is None:
            self._driver = kernel.compiled(step, str(self))
        self._driver(x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked)

    def apply(self, inputs: Any, run: Run, *, mask: Any = None, initial_state: Any = None) -> Any:
        raise ShapeError(
            f"{self}: a cell is called with the step's inputs and its states: "
            "cell(inputs, states); wrap it in layers.RNN for sequences"
        )

    def __call__(  # type: ignore[override]
        self, inputs: Any, states: Any, *, training: bool = False
    ) -> tuple[Floats, list[Any]]:
        """One step: inputs (B, F), states a list of (B, …) -> (output (B, U), new states)."""
        x = self._cast(inputs)
        if x.ndim != 2:
            raise ShapeError(f"{self}: expected inputs (batch, features), received {x.shape}")
        self.ensure_built((None, x.shape[1]))
        self.check_input(x.shape)
        flat = begun_states(str(self), self.state_shapes(), states, len(x))
        held = np.zeros((len(x), self.output_features()), np.float32) if self.holds_output else None
        y = np.empty((len(x), 1, self.output_features()), np.float32)
        self.run_window(x[:, None], None, None, flat, held, y, training=training)
        return y[:, 0], self.nest(flat)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.output_features())


def state_shapes_of(cell: Any) -> list[tuple[int, ...]]:
    """The shapes of a cell's states from its state_size, or its units."""
    size = getattr(cell, "state_size", None)
    if size is None:
        size = getattr(cell, "units", None)
    if size is None:
        raise ArgumentError(f"{cell}: a cell must have state_size or units")
    sizes = list(size) if isinstance(size, list | tuple) else [size]
    return [tuple(s) if isinstance(s, list | tuple) else (int(s),) for s in sizes]


def begun_states(
    who: str, shapes: dict[str, tuple[int, ...]], states: Any, batch: int
) -> list[Floats]:
    """Fresh float32 copies of the states a caller gives, flat, checked one by one.

    Raises ShapeError where the number or a shape differs: nothing is broadcast.
    """
    from streamrnn.layers.casts import cast_floats
    from streamrnn.layers.symbol import leaves

    given = [states] if isinstance(states, np.ndarray) else list(leaves(states))
    if len(given) != len(shapes):
        raise ShapeError(
            f"{who}: expected {len(shapes)} states ({', '.join(shapes)}), received {len(given)}"
        )
    flat = []
    for (name, shape), value in zip(shapes.items(), given, strict=True):
        array = cast_floats(f"{who}: state {name!r}", value)
        if array.shape != (batch, *shape):
            raise ShapeError(
                f"{who}: state {name!r} must have shape {(batch, *shape)}, received {array.shape}"
                + (f"; give each of the {batch} rows its state" if array.shape[:1] == (1,) else "")
            )
        flat.append(array.copy())
    return flat


def _require_row(cell: Any, what: str, value: Any, place: Floats) -> None:
    if np.shape(value) != (1, *place.shape):
        raise ShapeError(
            f"{cell}: call returned its {what} in shape {np.shape(value)}, expected "
            f"{(1, *place.shape)}, one row as its inputs"
        )


def _rowwise(cell: Any, training: bool) -> Any:
    """Keras's cell.call as a step of one stream, so that no result depends on the batch."""

    parameters = inspect.signature(cell.call).parameters.values()
    takes = any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters)
    options = {"training": training} if takes else {}

    def step(x: Floats, states: tuple[Floats, ...], weights: Any, y: Floats) -> None:
        rows = [state[None] for state in states]
        output, new = cell.call(x[None], cell.nest(rows), **options)
        new = [new] if isinstance(new, np.ndarray) else list(new)
        if len(new) != len(states):
            raise ShapeError(f"{cell}: call returned {len(new)} states, expected {len(states)}")
        _require_row(cell, "output", output, y)
        y[:] = output[0]
        for i, (state, value) in enumerate(zip(states, new, strict=True)):
            _require_row(cell, f"state {i}", value, state)
            state[...] = value[0]

    return step
