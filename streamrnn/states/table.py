"""The state table: one row a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamrnn.states.changes import Changes
from streamrnn.states.keys import KeyIndex
from streamrnn.states.layout import Layout
from streamrnn.states.writing import to_arrow

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
T = TypeVar("T")


class StateTable:
    """State of every stream, as arrays that an operator gathers from and scatters to.

    Row s of each array belongs to slot s. `steps` (S,) int64: steps since the stream began fresh;
    `last_time` (S,) int64 ticks; `seen` (S,) bool: it has had a row; `states` name -> (S, size)
    float32; `previous` feature -> values and which are there; `waiting` name -> (S, rows, …) with
    `waiting_count` (S,); `pending_rows` the rows of `pending_slots` that are written at the end of
    the run. `touched` (S,) bool: changed since `settle`. The arrays have room for more streams, and
    are what `change` writes to: another thread, and who wants to keep them, takes `to_arrow`.

    >>> import pyarrow as pa
    >>> table = StateTable(Layout((pa.field("id", pa.string()),), None, {"lstm/h": 2}))
    >>> table.find([pa.array(["b", "a", "b"])]).tolist()
    [0, 1, 0]
    >>> len(table)
    2
    """

    def __init__(self, layout: Layout, initial: Mapping[str, Floats] | None = None) -> None:
        self.layout = layout
        self._index = KeyIndex(layout.keys)
        self.changes = Changes(self._index.rebuild)
        self._initial = {
            name: np.zeros(size, np.float32) if initial is None else initial[name]
            for name, size in layout.states.items()
        }
        self.steps = np.zeros(0, np.int64)
        self.last_time = np.zeros(0, np.int64)
        self.seen = np.zeros(0, bool)
        self.touched = np.zeros(0, bool)
        self.states: dict[str, Floats] = {
            name: np.zeros((0, size), np.float32) for name, size in layout.states.items()
        }
        self.previous: dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]] = {
            name: (np.zeros(0, _dtype(kind)), np.zeros(0, bool))
            for name, kind in layout.previous.items()
        }
        self.waiting: dict[str, npt.NDArray[Any]] = {
            name: np.zeros((0, layout.waiting_rows, *_width(kind)), _dtype(_item(kind)))
            for name, kind in layout.waiting.items()
        }
        self.waiting_count = np.zeros(0, np.int64)
        self.pending_slots = np.zeros(0, np.int64)
        self.pending_rows: pa.RecordBatch | None = None
        self._room = 0
        self._used = 0  # rows of the arrays of states that are not zeros since they were made

    def __len__(self) -> int:
        """Number of streams. Not for use within a change, which may have added some: `streams`."""
        with self.changes.lock:
            self.changes.complete()
            return self.streams

    @property
    def streams(self) -> int:
        """Number of streams, with those of a change that is being made."""
        return len(self._index)

    def change(self, work: Callable[[], tuple[T, Callable[[], object]]]) -> T:
        """What `work` returns first; what it returns second writes the change.

        The change counts whole or not at all, whatever comes between (see `Changes`). Until then
        `work` may add streams (`find`), and writes nothing else. Other threads wait.
        """
        return self.changes.make(lambda: partial(self.truncate, self.streams), work)

    def find(self, keys: Sequence[pa.Array], add: bool = True, room: bool = True) -> Ints:
        """The slot (N,) int64 of each of N keys; new streams start with the initial state.

        With `add=False` unknown keys are -1. With `room=False` all that has to do with states is
        left alone, so that another thread may work on them; before that one uses new slots, it
        calls `make_room` with the `streams` that there are after `find`.
        """
        before = self.streams
        slots = self._index.find(keys, add)
        new = slice(before, self.streams)
        if new.stop > len(self.steps):
            self._grow(max(1024, 2 * new.stop))
        self.steps[new] = 0
        self.seen[new] = False
        self.touched[new] = True
        for _, there in self.previous.values():
            there[new] = False
        if room:
            self.make_room(new.stop)
        return slots

    def make_room(self, streams: int) -> None:
        """Give the first `streams` the initial state, where they are new since the last call."""
        start, self._room = self._room, streams
        if len(self.waiting_count) < self._room:
            size = len(self.steps)
            self.states = {name: _grown(array, size) for name, array in self.states.items()}
            self.waiting = {name: _grown(array, size) for name, array in self.waiting.items()}
            # Last, as it says how large the others are: an interrupt leaves none of them short.
            self.waiting_count = _grown(self.waiting_count, size)
        self.waiting_count[start : self._room] = 0
        for name, array in self.states.items():
            if start < self._used or self._initial[name].view(np.uint32).any():
                array[start : self._room] = self._initial[name]
        self._used = max(self._used, self._room)

    def truncate(self, size: int) -> None:
        """Forget the streams that were added last, down to `size`."""
        self._index.truncate(size)
        self._room = min(self._room, size)

    def key_arrays(self) -> list[pa.Array]:
        """The key columns, one value a stream."""
        return self._index.arrays()

    def initial(self, rows: int) -> dict[str, Floats]:
        """The initial state of `rows` streams: name -> (rows, size)."""
        return {name: np.tile(value, (rows, 1)) for name, value in self._initial.items()}

    def gather(self, slots: Ints, fresh: npt.NDArray[np.bool_], out: Mapping[str, Floats]) -> None:
        """Copy the states of B slots, or the initial state where fresh, to name -> (B, size)."""
        for name, array in self.states.items():
            np.take(array, slots, axis=0, out=out[name], mode="clip")  # "raise" copies twice
            if fresh.any():
                out[name][fresh] = self._initial[name]

    def side_by_side(self, slots: Ints, fresh: npt.NDArray[np.bool_]) -> dict[str, Floats] | None:
        """The states of B slots, set to the initial state where fresh, if they need no copy.

        Views name -> (B, size) if the slots follow one another, else None.
        """
        first, rows = int(slots[0]), len(slots)
        if int(slots[-1]) - first != rows - 1 or not (slots[1:] > slots[:-1]).all():
            return None
        views = {name: array[first : first + rows] for name, array in self.states.items()}
        if fresh.any():
            for name, view in views.items():
                view[fresh] = self._initial[name]
        return views

    def scatter(self, slots: Ints, states: Mapping[str, Floats]) -> None:
        """Write the states of B slots back, in place."""
        for name, array in self.states.items():
            array[slots] = states[name]

    def to_arrow(self, slots: Ints | None = None, copy: bool = True) -> pa.Table:
        """All streams in order of first appearance, or those of `slots`.

        Without `copy` the result may share memory with this table. Not for use within a change.
        """
        with self.changes.lock:
            self.changes.complete()
            return to_arrow(self, slots, copy)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table for anything that reads Arrow: `pa.table(state)`, pandas, Polars, DuckDB."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def settle(self) -> None:
        """Forget what was touched: it has been committed."""
        self.touched[:] = False

    def _grow(self, size: int) -> None:
        self.last_time, self.seen = _grown(self.last_time, size), _grown(self.seen, size)
        self.touched = _grown(self.touched, size)
        self.previous = {
            name: (_grown(values, size), _grown(there, size))
            for name, (values, there) in self.previous.items()
        }
        # Last, as it says how large the others are: an interrupt leaves none of them short.
        self.steps = _grown(self.steps, size)


def _grown(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    # An interrupt may have left it larger than the others.
    larger = np.zeros((max(size, len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _item(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_fixed_size_list(kind) else kind


def _width(kind: pa.DataType) -> tuple[int, ...]:
    return (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()


def _dtype(kind: pa.DataType) -> npt.DTypeLike:
    if pa.types.is_string(kind):
        return object
    return np.float32 if pa.types.is_floating(kind) else np.int64
