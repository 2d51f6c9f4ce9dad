"""The state that a stateful layer carries from one Python call to the next."""

from typing import Any, Protocol

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.base.display import count
from streamrnn.errors import ShapeError, StateError
from streamrnn.nn.layers.cell import Cell, initial_states
from streamrnn.nn.layers.structure import leaves


class _Owner(Protocol):
    runner: Cell
    stateful: bool


MemoryCopy = tuple[list[Floats] | None, Floats | None, list[Floats] | None]


class Memory:
    """The carried states of one layer, its held output, and the states that a reset restores.

    The first call fixes the number of rows, until a reset leaves no state.
    """

    def __init__(self, owner: _Owner) -> None:
        self._owner = owner
        self._states: list[Floats] | None = None
        self._held: Floats | None = None
        self._origin: list[Floats] | None = None
        self._rows_before_reset = 0

    @property
    def holds(self) -> bool:
        """Whether a state is carried."""
        return self._states is not None

    def record_start(self, states: list[Floats] | None) -> None:
        """Set the origin in a first call; in a later call, check the number of rows.

        states: what the caller passed as the initial state, or None.
        """
        if self._states is None:
            self._origin = None if states is None else _copies(states)
        elif states is not None:
            self._check_rows(len(states[0]))

    def recall(self, batch: int) -> tuple[list[Floats], Floats | None]:
        """Return copies of the carried states and output, for a call to overwrite."""
        assert self._states is not None
        self._check_rows(batch)
        return _copies(self._states), None if self._held is None else self._held.copy()

    def snapshot(self) -> MemoryCopy:
        """Return the carried state, for `restore`. It is never changed in place."""
        return self._states, self._held, self._origin

    def restore(self, snapshot: MemoryCopy) -> None:
        """Carry the state of a snapshot again."""
        self._states, self._held, self._origin = snapshot

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
        """Return what `states` shows: after a reset, the states that the next call starts from."""
        if self._states is not None or not self._rows_before_reset:
            return self.states()
        cell = self._owner.runner
        return cell.nest(cell.fresh_states(str(self._owner), self._rows_before_reset))

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
        flat = initial_states(str(self._owner), shapes, values, len(values[0]))
        self._states = flat[: len(cell.state_shapes())]
        self._held = self._blank_held() if len(flat) == len(self._states) else flat[-1]

    def reset(self, states: object) -> None:
        """Reset to `states`, which become the origin.

        None resets to the origin, or, without an origin, to no state.
        """
        self._require_stateful()
        if states is not None:
            self.assign(states)
            assert self._states is not None
            self._origin = _copies(self._states)
            return
        if self._states is not None:
            self._rows_before_reset = len(self._states[0])
        self._states = None if self._origin is None else _copies(self._origin)
        self._held = None if self._origin is None else self._blank_held()

    def reset_rows(self, rows: Bools) -> None:
        """Reset some rows to the origin or, without one, to the initial state of the cell.

        rows: (B,) bool. Raises ShapeError unless the state has the same number of rows.
        """
        if self._states is None or not rows.any():
            return
        self._check_rows(len(rows))
        fresh = self._origin
        if fresh is None:
            fresh = self._owner.runner.fresh_states(str(self._owner), len(rows))
        self._states = _copies(self._states)
        for state, start in zip(self._states, fresh, strict=True):
            state[rows] = start[rows]
        if self._held is not None:
            self._held = self._held.copy()
            self._held[rows] = 0

    def _blank_held(self) -> Floats | None:
        cell = self._owner.runner
        if self._states is None or not cell.holds_output:
            return None
        return np.zeros((len(self._states[0]), cell.output_features()), np.float32)

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
