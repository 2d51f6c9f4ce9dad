"""What a layer's call receives besides inputs, and the state that a layer carries between calls."""

from collections.abc import Collection, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.base.display import count
from streamrnn.errors import ShapeError, StateError
from streamrnn.nn.layers.arguments import cast_floats
from streamrnn.nn.layers.structure import T, leaves

CallKind = Literal["call", "stream", "whole"]

_training: ContextVar[bool] = ContextVar("training", default=False)


def resolve_training(training: bool | None) -> bool:
    """Return `training` of a call; None stands for the enclosing call's, or False outside one."""
    return _training.get() if training is None else bool(training)


@contextmanager
def set_inside(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Set a context variable inside the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def training_inside(training: bool) -> AbstractContextManager[None]:
    """Set `training` for calls of layers inside the block that do not pass it."""
    return set_inside(_training, training)


@dataclass(slots=True, eq=False)
class CallContext:
    """The arguments of one layer's call, and of the pass through the model around it.

    mask           bool (B, T), False where a step is left out; None if no step is. For
                   several inputs, a list with a mask (or None) for each.
    initial_state  states to start from, as the caller passed them, or None.
    training       whether layers compute as in training; dropout, for instance, is applied.
    kind           "call": a call from Python; layers with stateful=True carry their state.
                   "stream": each row continues a stream, from the caller's `states`, which are
                   changed in place.
                   "whole": each row is a complete sequence, from zero states.
                   The last two kinds keep no state in a layer: threads may share a model.
    lengths        number of steps of each row, int64 (B,), or None where all rows have all steps.
                   Only for "stream" and "whole": a call turns lengths into a mask.
    path           names of the models around the layer and of the layer, each followed by a
                   slash; "" for the layer or model that was called from Python.
    options        further arguments of the call, by name: the layer's `call_options`.
    before         each Memory that this pass changes, by its id, with the state before the pass.

    In `with context:`, an exception restores the states that `remember` saved: a failing call
    leaves no stateful layer half advanced.
    """

    mask: Any = None
    initial_state: Any = None
    training: bool = False
    kind: CallKind = "call"
    lengths: Ints | None = None
    states: Mapping[str, Floats] | None = None
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    before: dict[int, tuple["Memory", dict[str, Any]]] = field(default_factory=dict)

    def remember(self, memory: "Memory") -> None:
        """Save the state that a Memory carries, before this pass changes it."""
        self.before.setdefault(id(memory), (memory, dict(vars(memory))))

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if kind is not None:
            for memory, attributes in self.before.values():
                vars(memory).update(attributes)

    def of_layer(
        self,
        name: str,
        mask: Any,
        initial_state: Any,
        training: bool | None,
        options: Mapping[str, Any],
    ) -> "CallContext":
        """Return the context of a layer inside a model; training=None keeps this context's."""
        return CallContext(
            mask,
            initial_state,
            self.training if training is None else training,
            self.kind,
            self.lengths,
            self.states,
            f"{self.path}{name}/",
            options,
            self.before,
        )

    def state(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """Return a view (B, *shape) of the caller's state of the layer at `path`, or None."""
        assert self.states is not None
        flat = self.states.get(self.path + name)
        return flat if flat is None or len(shape) == 1 else flat.reshape(len(flat), *shape)


class Memory:
    """The carried states of one layer, its held output, and the states that a reset restores.

    The carried states fix the number of rows, until a reset leaves no state. Arrays of states are
    replaced, never changed in place. owner: the layer, an RNN.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._states: list[Floats] | None = None
        self._held: Floats | None = None
        self._origin: list[Floats] | None = None
        self._rows_before_reset = 0

    def record_start(self, states: list[Floats] | None) -> None:
        """Set the origin to the states that a first call received; later, check their rows."""
        if self._states is None:
            self._origin = None if states is None else _copies(states)
        elif states is not None:
            self._check_rows(len(states[0]))

    def recall(self, batch: int) -> tuple[list[Floats], Floats | None] | None:
        """Return copies of the carried states and output, for a call to overwrite, or None."""
        if self._states is None:
            return None
        self._check_rows(batch)
        return _copies(self._states), None if self._held is None else self._held.copy()

    def keep(self, states: list[Floats], held: Floats | None) -> None:
        """Carry the states that a call ended with."""
        self._states = _copies(states)
        self._held = None if held is None else held.copy()

    def states(self, *, with_held: bool = False) -> list[Any] | None:
        """Return copies of the carried states, nested as the cell nests them, or None."""
        if self._states is None:
            return None
        nested = self._owner.runner.nest(_copies(self._states))
        return [*nested, self._held.copy()] if with_held and self._held is not None else nested

    def shown(self) -> list[Any] | None:
        """Return `states` or, after a reset to none, the states that the next call starts from."""
        if self._states is not None or not self._rows_before_reset:
            return self.states()
        cell = self._owner.runner
        nested: list[Any] = cell.nest(cell.fresh_states(self._owner, self._rows_before_reset))
        return nested

    def assign(self, state: object) -> None:
        """Carry `state` from now on, or nothing if it is None. Raises ShapeError, StateError."""
        self._require_stateful()
        if state is None:
            self._states = self._held = None
            return
        values = list(leaves(state))
        shapes, cell = self._owner.runner.state_shapes(), self._owner.runner
        if cell.holds_output and len(values) == len(shapes) + 1:
            shapes = shapes | {"y": (cell.output_features(),)}
        if not values or np.ndim(values[0]) == 0:
            raise ShapeError(
                f"{self._owner}: expected a list of arrays (batch, …), received {values!r:.80}"
            )
        flat = initial_states(self._owner, shapes, values, len(values[0]))
        self._states = flat[: len(cell.state_shapes())]
        with_held = len(flat) > len(self._states)
        self._held = flat[-1] if with_held else cell.blank_output(len(values[0]))

    def reset(self, states: object) -> None:
        """Reset to `states`, the new origin; None: to the origin or, without one, to no state."""
        self._require_stateful()
        if states is not None:
            self.assign(states)
            assert self._states is not None
            self._origin = _copies(self._states)
            return
        if self._states is not None:
            self._rows_before_reset = len(self._states[0])
        self._states = self._held = None
        if self._origin is not None:
            self._states = _copies(self._origin)
            self._held = self._owner.runner.blank_output(len(self._origin[0]))

    def reset_rows(self, rows: Bools) -> None:
        """Reset some rows to the origin or, without one, to the initial state of the cell.

        rows: (B,) bool. Without a carried state, nothing is done. Raises ShapeError if the
        state has another number of rows.
        """
        if self._states is None or not rows.any():
            return
        self._check_rows(len(rows))
        fresh = self._origin
        if fresh is None:
            fresh = self._owner.runner.fresh_states(self._owner, len(rows))
        self._states = _copies(self._states)
        for state, start in zip(self._states, fresh, strict=True):
            state[rows] = start[rows]
        if self._held is not None:
            self._held = self._held.copy()
            self._held[rows] = 0

    def _require_stateful(self) -> None:
        if not self._owner.stateful:
            raise StateError(
                f"{self._owner}: it carries no state; make the layer with stateful=True"
            )

    def _check_rows(self, batch: int) -> None:
        assert self._states is not None
        rows = len(self._states[0])
        if rows != batch:
            raise ShapeError(
                f"{self._owner}: it carries the state of {count(rows, 'row')} (its batch size), "
                f"received {batch}; row i continues row i of the previous call. Call reset_state() "
                "to start over, or set_state(None) if the first call had an initial_state"
            )


def _copies(states: list[Floats]) -> list[Floats]:
    return [state.copy() for state in states]


def initial_states(
    owner: object, shapes: Mapping[str, tuple[int, ...]], states: object, batch: int
) -> list[Floats]:
    """Return the states that a caller passed, checked, as a flat list of float32 copies.

    Raises ShapeError if the number of states or a shape differs: nothing is broadcast.
    """
    values = list(leaves(states))
    require_all(owner, shapes, values)
    flat = []
    for (name, shape), value in zip(shapes.items(), values, strict=True):
        array = cast_floats(f"{owner}: state {name!r}", value)
        if array.shape != (batch, *shape):
            raise ShapeError(
                f"{owner}: state {name!r} must have shape {(batch, *shape)}, received {array.shape}"
                + (f"; pass a state for each of {batch} rows" if array.shape[:1] == (1,) else "")
            )
        flat.append(array.copy())
    return flat


def require_all(owner: object, shapes: Collection[str], states: Sized) -> None:
    """Raise ShapeError unless there are as many values as a cell has states."""
    if len(states) != len(shapes):
        raise ShapeError(
            f"{owner}: the number of states must be {len(shapes)} ({', '.join(shapes)}), "
            f"received {len(states)}"
        )
