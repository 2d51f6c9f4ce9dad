"""RNN: a cell over a sequence; StackedRNNCells: several cells as one.

LSTM, GRU and SimpleRNN are RNNs with their own cells.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY
from itertools import islice
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.base.display import count
from streamrnn.errors import ArgumentError, ConfigError, DTypeError, ShapeError
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.cell import Cell, CellRun, as_cell
from streamrnn.nn.layers.context import CallContext, Memory, initial_states, require_all
from streamrnn.nn.layers.declared import Accepted, Argument
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.masks import Masks
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Nested, Shape, Shapes, T, leaves

_FLOAT32 = np.dtype(np.float32)


@builtin_layer
class StackedRNNCells(Cell, BuiltIn):
    """Stacked cells; the states are nested, with one entry per cell.

    A whole window runs through one cell after the other, with the same results as step by step: no
    cell sees the future.
    """

    cells: Argument[Sequence[Layer], list[Layer]] = Argument(inner=True)

    def complete(self) -> None:
        if isinstance(self.cells, Layer):
            raise ArgumentError(f"{self}: expected a list of cells, received {self.cells}")
        self.cells = list(self.cells)
        if not self.cells:
            raise ArgumentError(f"{self}: expected one cell or more, received none")
        self.runners = [as_cell(cell, self) for cell in self.cells]
        self.holds_output = self.runners[-1].holds_output
        for cell in self.cells:
            self.adopt(cell)

    def build(self, input_shape: Shape) -> None:
        for cell in self.runners:
            cell.ensure_built(input_shape)
            input_shape = (input_shape[0], cell.output_features())

    def check_input(self, shape: Shape) -> None:
        self.runners[0].check_input(shape)

    def children(self) -> dict[str, Layer]:
        return {str(i): cell for i, cell in enumerate(self.cells)}

    @property
    def state_size(self) -> list[Any]:
        """The state_size of each cell."""
        return [cell.state_size for cell in self.runners]

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return _by_cell(cell.state_shapes() for cell in self.runners)

    def state_classes(self) -> dict[str, str]:
        return _by_cell(cell.state_classes() for cell in self.runners)

    def output_features(self) -> int:
        return self.runners[-1].output_features()

    def nest(self, states: list[T]) -> list[Nested[T]]:
        nested: list[Nested[T]] = []
        for cell, part in zip(self.runners, self.split_states(states), strict=True):
            own: Nested[T] = cell.nest_in_stack(part)
            nested.append(own)
        return nested

    def split_states(self, states: list[T]) -> list[list[T]]:
        """Return the flat states of each cell."""
        remaining = iter(states)
        return [list(islice(remaining, len(cell.state_shapes()))) for cell in self.runners]

    def output_of(self, states: list[Floats]) -> Floats:
        return self.runners[-1].output_of(self.split_states(states)[-1])

    def get_initial_state(self, batch_size: int | None = None) -> list[Nested[Floats]]:
        return [
            cell.nest_in_stack(list(leaves([cell.get_initial_state(batch_size)])))
            for cell in self.runners
        ]

    def run_window(self, window: CellRun) -> None:
        x, parts = window.x_BTF, self.split_states(window.states)
        inner = window._replace(zero_masked=False)
        for cell, part in zip(self.runners[:-1], parts[:-1], strict=True):
            y = np.zeros((*x.shape[:2], cell.output_features()), np.float32)
            held = cell.blank_output(len(x))
            cell.run_window(inner._replace(x_BTF=x, states=part, held_BU=held, y_BTU=y))
            x = y
        self.runners[-1].run_window(window._replace(x_BTF=x, states=parts[-1]))


def _by_cell(of_cells: Iterable[dict[str, T]]) -> dict[str, T]:
    return {f"{i}/{name}": value for i, of in enumerate(of_cells) for name, value in of.items()}


@builtin_layer
class RNN(BuiltIn):
    """Run a cell, or a list of cells, over (batch, time, features).

    cell: built-in or custom; `help(streamrnn.layers.Cell)` shows how to write one.
    return_sequences: return the output of every step (B, T, U), else of the last step (B, U).
    return_state: return the final states after the output, nested where cells are stacked.
    go_backwards: run from the last step to the first; outputs are in that order, as in Keras.
    stateful: row i of a call continues row i of the previous call (`states`, `reset_state`).
    zero_output_for_mask: masked steps give zeros, not the previous output.
    unroll, implementation: accepted; they change no bit.
    """

    sequence_input = True
    stepwise = True
    takes_state = True

    cell: Argument[Layer | Sequence[Layer], Any] = Argument(inner=True)
    _: KW_ONLY
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    zero_output_for_mask: bool = False
    implementation: Accepted = Accepted(2)

    def complete(self) -> None:
        if isinstance(self.cell, list | tuple):
            self.cell = StackedRNNCells(self.cell)
        self.runner: Cell = as_cell(self.cell, self)
        self.memory = Memory(self)
        self.adopt(self.cell)
        self.features = self._step_units = -1  # until it is built
        self._step_states: tuple[tuple[int, ...], ...] = ()

    # ---- shapes

    def build(self, input_shape: Shape) -> None:
        self.features = self.known_features(input_shape)
        self.runner.ensure_built((input_shape[0], self.features))
        self._step_states = tuple(self.runner.state_shapes().values())
        self._step_units = self.runner.output_features()

    def check_input(self, shape: Shapes) -> None:
        if isinstance(shape, list):
            raise ShapeError(
                f"{self}: expected an array (batch, time, features), received a list of "
                f"{count(len(shape), 'array')}; pass the array itself, and states as initial_state="
            )
        self.expect_features(shape, self.features, rank=3)

    def compute_output_shape(self, input_shape: Shape) -> Nested[Shape]:
        batch, units = input_shape[0], self.runner.output_features()
        y = (*input_shape[:2], units) if self.return_sequences else (batch, units)
        if not self.return_state:
            return y
        states: list[Shape] = [(batch, *shape) for shape in self.runner.state_shapes().values()]
        return [y, *self.runner.nest(states)]

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Masks:
        """Return the mask if sequences are returned (as in Keras up to 3.15), else None."""
        passed = mask if self.return_sequences else None
        if not self.return_state:
            return passed
        return [passed] + [None] * len(self.runner.state_shapes())

    def children(self) -> dict[str, Layer]:
        return {"cell": self.cell}

    # ---- computing

    def apply(self, inputs: Floats, context: CallContext) -> Nested[Floats]:
        if context.kind == "call" and self.stateful:
            context.remember(self.memory)
        states, held = self.begin(inputs, context)
        sequences = self.return_sequences or context.kind == "stream"
        x, lengths, mask = inputs, context.lengths, context.mask
        if self.go_backwards:
            x, mask = reverse(x, lengths), None if mask is None else reverse(mask, lengths)
        batch, steps, units = x.shape[0], x.shape[1], self.runner.output_features()
        y = np.empty((batch, steps, units), np.float32) if sequences else None
        zero = self.zero_output_for_mask
        self.runner.run_window(CellRun(x, lengths, mask, states, held, y, zero, context.training))
        if y is None:
            y = (self.runner.output_of(states) if held is None else held).copy()
            if zero and mask is not None and steps:
                y[~at_end(mask, lengths)] = 0
        if context.kind == "call" and self.stateful:
            self.memory.keep(states, held)
        if not self.return_state or context.kind == "stream":
            return y
        return [y, *self.runner.nest(states)]

    def begin(self, x: Floats, context: CallContext) -> tuple[list[Floats], Floats | None]:
        """Return the states to overwrite, and the held output if the cell needs one."""
        cell, batch = self.runner, len(x)
        shapes = cell.state_shapes()
        held = cell.blank_output(batch)
        if context.kind == "stream":
            passed = [context.state(name, shape) for name, shape in shapes.items()]
            if held is not None and (last := context.state("y", held.shape[1:])) is not None:
                held = last
            return [state for state in passed if state is not None], held
        carried = context.kind == "call" and self.stateful
        if context.initial_state is not None:
            states = initial_states(self, shapes, context.initial_state, batch)
            if carried:
                self.memory.record_start(states)
            return states, held
        if carried:
            if before := self.memory.recall(batch):
                return before
            self.memory.record_start(None)
        return cell.fresh_states(self, batch), held

    def step(self, x: Floats, states: list[Floats]) -> Floats:
        """Compute one step of each row with little overhead: x float32 (B, F) -> (B, U).

        `states`, a list of C-contiguous float32 arrays (B, …) in the order of the cell's states
        (flat where cells are stacked), is overwritten with the new states. Nothing is cast: raises
        ShapeError or DTypeError where an array is not what the kernel expects, ConfigError before
        the layer is built. The layer does not change, so threads may share it.
        """
        # Quick checks; _check_step raises the error, or accepts equal dtype objects.
        rows, expected = len(x), self._step_states
        if (
            x.shape != (rows, self.features)
            or x.dtype is not _FLOAT32
            or len(states) != len(expected)
        ):
            self._check_step(x, states)
        for i, state in enumerate(states):
            if (
                state.shape != (rows, *expected[i])
                or state.dtype is not _FLOAT32
                or not state.flags.carray
            ):
                self._check_step(x, states)
        if not x.flags.c_contiguous:
            x = np.ascontiguousarray(x)
        units = self._step_units
        y = np.empty((rows, 1, units), _FLOAT32)
        held = np.zeros((rows, units), _FLOAT32) if self.runner.holds_output else None
        self.runner.run_window(CellRun(x[:, None], None, None, states, held, y))
        return y[:, 0]

    def _check_step(self, x: Array, states: list[Array]) -> None:
        """Raise an error for invalid arguments of `step`."""
        if not self.built:
            raise ConfigError(f"{self}: step needs a built layer; call build(input_shape) first")
        names = self.runner.state_shapes()
        require_all(f"{self}: step", names, states)
        wanted = {"x": (x, (self.features,))} | {
            f"state {name!r}": (state, shape)
            for (name, shape), state in zip(names.items(), states, strict=True)
        }
        for name, (array, shape) in wanted.items():
            if array.shape[:1] != x.shape[:1] or array.shape[1:] != shape:
                axes = ", ".join(["batch", *map(str, shape)])
                raise ShapeError(
                    f"{self}: step expected {name} of shape ({axes}), received {array.shape}; x "
                    f"has shape {x.shape}"
                )
            if array.dtype != np.float32:
                raise DTypeError(
                    f"{self}: step expected {name} in float32, received {array.dtype}; "
                    "step does not cast its arguments"
                )
            if array is not x and not array.flags.carray:
                raise ShapeError(
                    f"{self}: step overwrites {name}, which must be C-contiguous and writeable; "
                    "pass a copy"
                )

    def check_initial(self, states: object) -> None:
        shapes, symbols = self.runner.state_shapes(), list(leaves(states))
        require_all(self, shapes, symbols)
        for (name, shape), symbol in zip(shapes.items(), symbols, strict=True):
            sizes = tuple(symbol.shape)
            # A size of None fits any size.
            if len(sizes) != len(shape) + 1 or any(
                n not in (None, m) for n, m in zip(sizes[1:], shape, strict=True)
            ):
                axes = ", ".join(["batch", *map(str, shape)])
                raise ShapeError(
                    f"{self}: state {name!r} must have shape ({axes}), received {sizes}"
                )

    # ---- state from call to call

    @property
    def states(self) -> list[Any] | None:
        """Copies of the carried states, nested as `initial_state` accepts them.

        None before the first call; after a reset, the states that the next call starts from.
        """
        return self.memory.shown()

    def get_state(self) -> list[Any] | None:
        """Return copies of the carried states and of the held output, if there is one; or None."""
        return self.memory.states(with_held=True)

    def set_state(self, state: object) -> None:
        """Carry these states from now on, as get_state or `states` returns them; None: no state."""
        self.memory.assign(state)

    def reset_state(self, states: object = None) -> None:
        """Reset to the state before the first call, or to `states`, now and in later resets.

        The state before the first call is that call's initial_state, else the cell's own initial
        state (zeros by default), in which case the batch size may change.
        """
        self.memory.reset(states)

    reset_states = reset_state

    # ---- as part of a stream

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return "it reads its input backwards (go_backwards=True)" if self.go_backwards else None

    def bind(self, inputs: Floats, context: CallContext) -> tuple[Floats, Callable[[], object]]:
        states, held = self.begin(inputs, context)
        y = np.empty((*inputs.shape[:2], self.runner.output_features()), np.float32)
        return y, self.runner.bind_window(CellRun(inputs, None, None, states, held, y))

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        shapes = self.runner.state_shapes()
        if self.runner.holds_output:
            shapes = shapes | {"y": (self.runner.output_features(),)}
        return shapes

    def stream_classes(self) -> dict[str, str]:
        return self.runner.state_classes()

    def stream_initial(self, n: int) -> dict[str, Floats]:
        flat = self.runner.fresh_states(self, n)
        initial = dict(zip(self.runner.state_shapes(), flat, strict=True))
        if (held := self.runner.blank_output(n)) is not None:
            initial["y"] = held
        return initial


def at_end(mask: Bools, lengths: Ints | None) -> Bools:
    """Return whether the mask (B, T) keeps the last step of each row."""
    if lengths is None:
        return mask[:, -1]
    last = np.maximum(lengths - 1, 0)
    ends: Bools = mask[np.arange(len(mask)), last]
    return ends


def reverse(x: Array, lengths: Array | None) -> Array:
    """Return x with each row reversed in time within its own length; later values stay."""
    if lengths is None:
        return np.ascontiguousarray(x[:, ::-1])
    steps = np.arange(x.shape[1])
    order = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return np.ascontiguousarray(x[np.arange(len(x))[:, None], order])
