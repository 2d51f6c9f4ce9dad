"""Cell, the base of cells: one step of a recurrent layer."""

import inspect
from collections.abc import Callable
from functools import partial
from operator import index
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import cell as kernel
from streamrnn.nn.layers.context import CallContext, initial_states, resolve_training
from streamrnn.nn.layers.keras_call import row_by_row
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.structure import Nested, Shape, T


class CellRun(NamedTuple):
    """A window for a cell to run on; `states`, `held_BU` and `y_BTU` are changed in place.

    y_BTU is written at all steps of a row's length, masked ones included; None if only the final
    states are wanted.
    """

    x_BTF: Floats
    lengths_B: Array | None
    mask_BT: Array | None
    states: list[Floats]
    held_BU: Floats | None
    y_BTU: Floats | None
    zero_masked: bool = False
    training: bool = False


class Cell(Layer):
    """One step of a recurrent layer: the base of the built-in cells, and of custom cells.

    There are two ways to write a cell for `RNN(cell)`. The way decides how the cell runs, and so
    the bits of its results: a cell is never compiled in one run and interpreted in the next.
    `streamrnn guide custom` has examples of both.

    **Keras's way**: any `layers.Layer` with `state_size` (an int, or a list with an int or a shape
    for each state) and a method `call(inputs, states)`, optionally with `training=False`, that
    returns the output and the new states. `output_size` (an int) is needed only if it differs from
    the first state's size, `get_initial_state(batch_size=None)` only if the initial states are not
    zeros. Matrix products are NumPy's: write `@` or `np.matmul` in place of `ops.matmul`.

    `call` runs in Python, on one row and one step at a time: `inputs` (1, F), `states` a list of
    arrays (1, ...), all of them copies. So sequences can be cut anywhere, and no stream sees
    another, even if `call` takes a mean over the batch (here a batch of one). That costs 5 to 20 µs
    per row and step. `call` may depend only on its arguments and the weights. NumPy and its BLAS
    determine the bits of the results: they are the same in every run on one machine with the same
    number of BLAS threads, but may differ on another CPU.

    **Compiled**: a Cell (or a Layer with `state_size`) with a static method
    `step(x, states, weights, y)` that Numba can compile. `step` sees one stream: `x` (F,), a copy,
    `states` a tuple of arrays in the shapes of `state_size` to be overwritten, `weights` a tuple in
    the order of `add_weight`, `y` (output_size,) to be written. Plain loops and `math` functions
    compile best; an assignment of an array (`h[:] = y`) takes seconds longer to compile than a
    loop. Loops become vector code if the innermost loop is over the units (at 64 units, 0.5 µs a
    step instead of 3.5). As with the built-in cells, sequences can be cut anywhere, and the bits
    are the same on any CPU unless `step` calls the C library in float64 (`math.exp` of a float64).
    Compiled code does not check indices: the first step also runs once in Python, which checks
    them; with the environment variable STREAMRNN_BOUNDSCHECK=1 all steps are checked. A step that
    Numba cannot compile runs in Python, with a warning.

    **In training** a compiled cell needs a second static method, the derivative of its `step`:
    `step_backward(x, states, weights, y, dy, dstates, dx, dweights)`. It is compiled as `step` is,
    and sees one step of one stream:

    - `x`, `weights`, and `y`, the output of the step, are only read; `states` are the states
      *before* the step.
    - `dy` is the gradient of `y`. Where `y` is also a state, this state's gradient is in `dstates`.
    - `dstates`, a tuple in the shapes of `states`, has the gradients of the states *after* the
      step, to be replaced by the gradients of the states before it.
    - `dx` (F,), all zeros, is to be overwritten with the gradient of `x`.
    - `dweights` is a tuple in the shapes of `weights`: add this step's gradients to its arrays.

    Before its first use, `step_backward` is compared with central differences of `step` in float64,
    near the cell's weights: if they differ, ArgumentError names the entry that differs most. A
    cell with `call`, or without step_backward, cannot be trained; it can be frozen
    (trainable=False) if no layer before it is trained.

    A Cell may set `state_size` in `build`; `output_size` defaults to `units`.

    **Saving and loading** a model with either kind of cell needs its class registered:
    `streamrnn.register_layer("MinimalRNNCell", MinimalRNNCell)`. A class without `get_config` is
    restored from the arguments it was made with. Layers in a cell's attributes, lists and dicts
    included, are part of the cell: their weights are saved and loaded with the cell's.
    """

    supports_masking = False

    units: int
    state_size: Any
    output_size: int
    call: Any
    holds_output: bool = True
    """Whether the last output is carried for masked steps, because no state equals it."""
    _driver: Callable[..., None] | None = None

    # ---- sizes and states

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return state name -> its shape for one stream. A custom cell's states are s0, s1, …."""
        shapes = state_shapes_of(self)
        return {f"s{i}": shape for i, shape in enumerate(shapes)}

    def state_classes(self) -> dict[str, str]:
        """Return state -> class name; states of different classes cannot replace each other."""
        return dict.fromkeys(self.state_shapes(), type(self).__name__)

    def output_features(self) -> int:
        """Return the size of a step's output."""
        for attribute in ("output_size", "units"):
            size = getattr(self, attribute, None)
            if isinstance(size, int):
                return size
        return state_shapes_of(self)[0][-1]

    def nest(self, states: list[T]) -> list[Nested[T]]:
        """Nest flat states as Keras returns them: a list; for stacked cells, an entry per cell."""
        return [*states]

    def nest_in_stack(self, states: list[T]) -> Nested[T]:
        """Nest the states of a cell in a stack: a list, or a single state without a list.

        As in Keras, there is no list where state_size is an int, unless get_initial_state returns
        one.
        """
        size = getattr(self, "state_size", None)
        bare = isinstance(size, int) and not isinstance(self.own_initial_state(1), list | tuple)
        return states[0] if bare else self.nest(states)

    def blank_output(self, rows: int) -> Floats | None:
        """Return zeros as the last output of new rows; None unless the cell holds its output."""
        return np.zeros((rows, self.output_features()), np.float32) if self.holds_output else None

    def output_of(self, states: list[Floats]) -> Floats:
        """Return the state that is the last output; only for cells with holds_output=False."""
        return states[0]

    def get_initial_state(self, batch_size: int | None = None) -> Any:
        """Return the states of new rows, (batch_size, …): an array or a list, by default zeros."""
        return [
            np.zeros((batch_size or 0, *shape), np.float32)
            for shape in self.state_shapes().values()
        ]

    def fresh_states(self, owner: object, rows: int) -> list[Floats]:
        """Return the states of new rows, flat and checked: (rows, …) each."""
        return initial_states(owner, self.state_shapes(), self.get_initial_state(rows), rows)

    def own_initial_state(self, batch_size: int) -> Any:
        """Return the result of the cell's own get_initial_state, None if it has none."""
        own = type(self).get_initial_state is not Cell.get_initial_state
        return self.get_initial_state(batch_size) if own else None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_driver"}

    # ---- building

    def ensure_built(self, input_shape: Any) -> None:
        if self.built:
            return
        if inspect.ismethod(getattr(self, "step", None)):
            raise ArgumentError(
                f"{self}: its step must be a @staticmethod of (x, states, weights, y)"
            )
        super().ensure_built(input_shape)
        if not all(child.built for child in self.children().values()):
            # Layers used in `call` are built by the first step, but the weights of a file are set
            # before the first step: run a step now.
            with np.errstate(all="ignore"):
                self(np.zeros((1, input_shape[-1]), np.float32), self.get_initial_state(1))

    # ---- computing

    def run_window(self, window: CellRun) -> None:
        """Run all steps of a window."""
        x_BTF, lengths_B, mask_BT, states, held_BU, y_BTU, zero_masked, training = window
        assert held_BU is not None
        weights = tuple(weight.value for weight in self._weights.values())
        step = getattr(self, "step", None)
        if step is None:
            one = row_by_row(self, self.call, training)
            kernel.run_plain(
                one, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked
            )
            return
        if self._driver is None:
            self._driver = kernel.driver_of(step, str(self))
        self._driver(x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked)

    def bind_window(self, window: CellRun) -> Callable[[], object]:
        """Return a function that runs a window's steps on the values that its arrays then have."""
        return np.errstate(all="ignore")(partial(self.run_window, window))

    def apply(self, inputs: Array, context: CallContext) -> Array:
        raise ShapeError(
            f"{self}: a cell is called with the step's inputs and its states: "
            "cell(inputs, states); wrap it in layers.RNN for sequences"
        )

    def __call__(  # type: ignore[override]
        self, inputs: Any, states: Any, *, training: bool | None = None
    ) -> tuple[Floats, list[Any]]:
        """Run one step: inputs (B, F), states a list of (B, …) -> (output (B, U), new states)."""
        x = self._cast(inputs)
        if x.ndim != 2:
            raise ShapeError(f"{self}: expected inputs (batch, features), received {x.shape}")
        self.ensure_built((None, x.shape[1]))
        self.check_input(x.shape)
        flat = initial_states(self, self.state_shapes(), states, len(x))
        held, training = self.blank_output(len(x)), resolve_training(training)
        y = np.empty((len(x), 1, self.output_features()), np.float32)
        self.run_window(CellRun(x[:, None], None, None, flat, held, y, training=training))
        return y[:, 0], self.nest(flat)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.output_features())


def state_shapes_of(cell: object) -> list[tuple[int, ...]]:
    """Return the shapes of a cell's states, from its state_size or its units."""
    size = getattr(cell, "state_size", None)
    if size is None:
        size = getattr(cell, "units", None)
    if size is None:
        raise ArgumentError(f"{cell}: a cell must have state_size or units")
    sizes = list(size) if isinstance(size, list | tuple) else [size]
    try:
        return [tuple(map(index, s)) if isinstance(s, list | tuple) else (index(s),) for s in sizes]
    except TypeError:
        raise ArgumentError(
            f"{cell}: state_size must be an int, or a list with an int or a shape for each state, "
            f"received {size!r}; states cannot be nested any deeper"
        ) from None


class LayerCell(Cell):
    """Runs a layer that is written as a cell, with the layer's weights and name."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(name=layer.name)
        self.layer = layer
        self._weights = layer._weights
        self.call = getattr(layer, "call", None)
        self.step = _step_of(layer)

    def __str__(self) -> str:
        return str(self.layer)

    @property
    def state_size(self) -> Any:
        """The state_size of the layer."""
        return self.layer.state_size  # type: ignore[attr-defined]

    def children(self) -> dict[str, Layer]:
        return self.layer.children()

    def build(self, input_shape: Shape) -> None:
        self.layer.ensure_built(input_shape)

    def check_input(self, shape: Shape) -> None:
        self.layer.check_input(shape)

    def state_classes(self) -> dict[str, str]:
        return dict.fromkeys(self.state_shapes(), type(self.layer).__name__)

    def output_features(self) -> int:
        size = getattr(self.layer, "output_size", None)
        if size is None:
            return state_shapes_of(self)[0][-1]
        try:
            return index(size)
        except TypeError:
            raise ArgumentError(
                f"{self}: output_size must be an int, received {size!r}; a step gives one output "
                "(batch, output_size)"
            ) from None

    def get_initial_state(self, batch_size: int | None = None) -> Any:
        own = self.own_initial_state(batch_size or 0)
        return super().get_initial_state(batch_size) if own is None else own

    def own_initial_state(self, batch_size: int) -> Any:
        own = getattr(self.layer, "get_initial_state", None)
        return None if own is None else own(batch_size=batch_size)


def _step_of(layer: Layer) -> Callable[..., None] | None:
    """Return the static method `step`; None if `step` is missing or another kind of method."""
    step = inspect.getattr_static(layer, "step", None)
    return step.__func__ if isinstance(step, staticmethod) else None


def as_cell(cell: object, owner: object) -> Cell:
    """Return a Cell as it is, or an adapter for a layer written as one. Raises ArgumentError."""
    if isinstance(cell, Cell):
        return cell
    why = "which is not a layer"
    if isinstance(cell, Layer):
        missing = []
        if not hasattr(cell, "call") and _step_of(cell) is None:
            missing.append("call")
        if getattr(cell, "state_size", None) is None:
            missing.append("state_size")
        if not missing:
            return LayerCell(cell)
        why = f"which has no {' and no '.join(missing)}"
    raise ArgumentError(
        f"{owner}: a cell must be a layers.Cell, or a layers.Layer with call(inputs, states) and "
        f"state_size, or a list of such cells; received {type(cell).__name__}, {why}"
    )
