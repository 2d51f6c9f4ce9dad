"""The state table: one row per stream."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.base.display import count, html_table, listed
from streamrnn.errors import StateError
from streamrnn.nn.kernels.rows import LastTimes, PlainColumns, PlainRows
from streamrnn.stream.sources import named_values
from streamrnn.stream.states.arrays import Changes, SlicedCopy, SlotArrays, do_nothing
from streamrnn.stream.states.arrow import load_streams, to_arrow
from streamrnn.stream.states.files import as_table
from streamrnn.stream.states.keys import KeyCopy, KeyIndex
from streamrnn.stream.states.layout import Held, Layout, inferred_layout

T = TypeVar("T")
_NONE = np.zeros(0, np.int64)
_EARLIEST = np.iinfo(np.int64).min
_IDLE_SHARE = 1 / 8
"""Smallest share of streams that a commit drops, since it has to write the streams that move."""
_TOGETHER = 2048
"""Largest number of streams that are dropped in one change."""


class Copying(NamedTuple):
    """A copy of streams that is being made: its schema, and the call that completes it."""

    schema: pa.Schema
    finish: Callable[[], pa.Table]


class StateTable(SlotArrays):
    """The state of every stream, and the only code that changes it. A slot identifies a stream.

    Each stream has: `steps` since its last reset; its latest time, in ticks; the states of the
    model, name -> (size,); the previous value of each feature that needs it; the rows that wait for
    their window; the row that is held until the end of the run. A stream is dirty if it was added
    or written since `mark_clean`. `newest` is the latest time of all streams when the table was
    loaded, or when idle streams were last dropped; None if no stream had one.

    Reading returns copies, except for `move`, `states` and `to_arrow(copy=False)`. Writing values
    to slots changes the table in place and is idempotent. Other threads read with `to_arrow`.

    >>> import pyarrow as pa
    >>> table = StateTable(Layout((pa.field("id", pa.string()),), None, {"lstm/h": 2}))
    >>> table.find([pa.array(["b", "a", "b"])]).tolist()
    [0, 1, 0]
    >>> len(table)
    2
    >>> table
    <StateTable: 2 streams by id; id, steps, lstm/h (2)>
    """

    def __init__(self, layout: Layout, initial: Mapping[str, Floats] | None = None) -> None:
        super().__init__(layout, initial)
        self._index = KeyIndex(layout.keys)
        self._changes = Changes(self._index.rebuild)
        self.knows_initial = initial is not None or not layout.states
        self._held = Held(_NONE, None)
        self.newest: int | None = None

    @classmethod
    def from_arrow(cls, table: Any, initial: Mapping[str, Floats] | None = None) -> Self:
        """Make a state table from the Arrow table of `to_arrow` or `streamrnn state export`.

        `table` is a pa.Table, or an object with the Arrow PyCapsule interface. `initial` is the
        initial state of one stream, name -> (size,), which is not in an Arrow table (default:
        zeros). Raises StateError for a table that is not a state table and for invalid values, with
        the row and the stream; DataError for damaged Arrow data; DTypeError for another object.

        >>> import pyarrow as pa
        >>> table = StateTable(Layout((pa.field("id", pa.string()),), None, {"lstm/h": 2}))
        >>> _ = table.find([pa.array(["b", "a"])])
        >>> StateTable.from_arrow(table.to_arrow()).to_arrow() == table.to_arrow()
        True
        """
        label = "the table"
        source = as_table(table, label)
        states = cls(inferred_layout(source, label), initial)
        load_streams(states, source, label, same_pipeline=True)
        return states

    def hand_over(self, layout: Layout, initial: Mapping[str, Floats]) -> Self:
        """Pass the table to another model, whose states have the same columns."""
        len(self)  # completes an interrupted change
        self.layout, self._initial = layout, dict(initial)
        return self

    def __len__(self) -> int:
        """Return the number of streams. Within a change, use `streams`, which counts new ones."""
        with self._changes.lock:
            self._changes.complete()
            return self.streams

    def __repr__(self) -> str:
        sized = self.layout.states
        names = (f"{n} ({sized[n]})" if n in sized else n for n in self.layout.schema().names)
        return f"<{self._title()}; {listed(names)}>"

    def _repr_html_(self) -> str:
        columns = [(f.name, f.type) for f in self.layout.schema()]
        return html_table(self._title(), columns, ["column", "type"])

    def _title(self) -> str:
        keys = ", ".join(field.name for field in self.layout.keys)
        return f"StateTable: {count(self.streams, 'stream')} by {keys}"

    @property
    def streams(self) -> int:
        """Number of streams, including those that an unfinished change has added."""
        return len(self._index)

    def change(self, work: Callable[[], tuple[T, Callable[[], object]]]) -> T:
        """Make a change that is atomic, even under interrupts (see `Changes`); return its result.

        `work` returns the result and a call that writes the change. `work` itself may add streams
        (`find`), and must not write anything else. Other threads wait.
        """
        return self._changes.make(work, lambda: partial(self._truncate, len(self._index)))

    # -- streams -------------------------------------------------------------------------------

    def find(self, keys: Sequence[pa.Array], add: bool = True, room: bool = True) -> Ints:
        """Return the slot (N,) int64 of each of N keys; new streams start from the initial state.

        With `add=False`, unknown keys get -1. With `room=False`, the states are not touched, so
        that another thread may use them; call `make_room` with the number of `streams` before the
        new slots are used.
        """
        before = len(self._index)
        slots = self._index.find(keys, add)
        streams = len(self._index)
        if streams > before:
            if streams > len(self._steps):
                self._grow(max(1024, 2 * streams))
            new = slice(before, streams)  # dirty, and without a row
            self._steps[new] = 0
            self._seen[new] = False
            self._dirty[new] = True
            for _, present in self._previous.values():
                present[new] = False
        if room and streams > self._room:
            self.make_room(streams)
        return slots

    def plain(self, batch: pa.RecordBatch, columns: PlainColumns, most: int) -> PlainRows | None:
        """Return the rows of a record batch if all are plain, else None.

        All are plain if no stream is new or has two of the rows, and if each row comes after the
        last row of its stream, by at most `most` ticks, and has all values, within the limits in
        `columns`.
        """
        if not batch.num_rows or self._room < self.streams:
            return None
        return self._index.plain(batch, columns, LastTimes(self._last_time, self._seen), most)

    def lookup(self, keys: Sequence[pa.Array]) -> Ints:
        """Return the slot (N,) of each of N keys, -1 if unknown. Do not call it within a change."""
        with self._changes.lock:
            self._changes.complete()
            return self._index.find(keys, add=False)

    def initial_states(self) -> dict[str, Floats]:
        """Return the initial state of one stream, name -> (size,). Raises StateError if unknown."""
        if not self.knows_initial:
            raise StateError(
                "the initial state of a stream is not in an Arrow table. Use the `state` of a "
                "Pipeline, or StateTable.from_arrow(table, initial)"
            )
        return {name: values.copy() for name, values in self._initial.items()}

    def similar_keys(self, first: int) -> tuple[int, list[str]]:
        """Count the streams from slot `first` on whose keys look like others; name the first three.

        Such keys differ from the key of an earlier stream in case, or in blanks around it, alone.
        """
        slots, others = self._index.similar_keys(first)
        names = [field.name for field in self.layout.keys]
        keys, like = self.key_arrays(slots[:3]), self.key_arrays(others[:3])
        return len(slots), [
            f"{named_values(names, keys, i)} like {named_values(names, like, i)}"
            for i in range(len(slots[:3]))
        ]

    def key_arrays(self, slots: Ints | None = None) -> list[pa.Array]:
        """Return the key columns, one value per stream, or only for `slots`."""
        return self._index.arrays(slots)

    def states(self, name: str) -> Floats:
        """Return one state of all streams, (S, size), as a read-only view of the table."""
        view = self._states[name][: self.streams]
        view.flags.writeable = False
        return view

    def idle(self, idle: int) -> Ints:
        """Return the slots of streams whose last time is more than 2 * `idle` before `newest`.

        They would start again even with a row whose time is `idle` before `newest`.
        """
        if self.newest is None:
            return _NONE
        times, seen = self._last_time[: self.streams], self._seen[: self.streams]
        return np.flatnonzero(seen & (times < self.newest - 2 * idle))

    def dropping(self, idle: int) -> Iterator[int]:
        """Bring `newest` up to date and remove idle streams in steps; yield how many in each step.

        Between two steps, other threads may change the table. The last streams move to the freed
        slots, and become dirty. Dirty streams stay, and so do all streams while rows are held or
        few streams are idle.
        """

        def work() -> tuple[Ints, Callable[[], None]]:
            self.note_newest()
            slots = self.idle(idle)
            slots = slots[~self._dirty[slots]]
            few = len(slots) < max(1, _IDLE_SHARE * self.streams)
            return _NONE if few or self._held.rows is not None else slots, do_nothing

        slots = self._changes.make(work)
        # From the end: then no stream that moves is still to be dropped.
        for end in range(len(slots), 0, -_TOGETHER):
            yield self._changes.make(
                partial(self._drop_clean, slots[max(0, end - _TOGETHER) : end])
            )

    def _drop_clean(self, slots: Ints) -> tuple[int, Callable[[], None]]:
        """Return how many of these streams had no row meanwhile, and the call that removes them."""
        clean = slots[~self._dirty[slots]]
        return len(clean), self._dropping(clean)

    def drop_idle(self, idle: int) -> int:
        """Do all of `dropping`, then `forget_removed`; return how many streams were removed."""
        dropped = sum(self.dropping(idle))
        self.forget_removed()
        return dropped

    def drop(self, slots: Ints) -> None:
        """Remove the streams at ascending `slots`, which the last streams of the table then get.

        None of the removed streams may hold a row.
        """
        self._changes.make(lambda: (None, self._dropping(slots)))
        self.forget_removed()

    def _dropping(self, slots: Ints) -> Callable[[], None]:
        """Return the call that removes these streams, and moves the last streams to their slots."""
        streams, size = self.streams, self.streams - len(slots)
        stays = np.ones(len(slots), bool)
        stays[slots[slots >= size] - size] = False
        source = np.flatnonzero(stays) + size
        to = slots[: len(source)]
        self.make_room(streams)
        move_keys = self._index.moving(source, to, size)
        moved = [array[source] for array in self._columns()]

        def write() -> None:
            self._keep(np.concatenate([to, np.arange(size, streams)]))
            for array, values in zip(self._columns(), moved, strict=True):
                array[to] = values
            self._dirty[to] = True
            move_keys()
            self._room = size

        return write

    def forget_removed(self) -> None:
        """Rebuild the index if more keys were removed than are left.

        Other threads may use the table meanwhile.
        """
        with self._changes.lock:
            self._changes.complete()
            if self._index.removed <= self.streams:
                return
            before = KeyCopy(self._index)
        index = KeyIndex(self.layout.keys)
        index.find(before.arrays())

        def work() -> tuple[None, Callable[[], None]]:
            if self._index.removed != before.removed:
                return None, do_nothing
            index.find(self._index.arrays(np.arange(len(index), self.streams)))
            return None, partial(self._index.become, index)

        self._changes.make(work)

    def note_newest(self) -> None:
        """Set `newest` to the latest time of all streams, None if no stream has one."""
        times, seen = self._last_time[: self.streams], self._seen[: self.streams]
        timed = self.layout.time is not None and seen.any()
        self.newest = int(times.max(where=seen, initial=_EARLIEST)) if timed else None

    def _truncate(self, size: int) -> None:
        self._index.truncate(size)
        self._room = min(self._room, size)

    # -- rows that are held until the end --------------------------------------------------------

    @property
    def held(self) -> Held:
        """The rows that are held until the end of the run."""
        return self._held

    def hold(self, held: Held) -> None:
        """Replace the rows that are held until the end of the run."""
        held.slots.flags.writeable = False
        self._held = held

    def release_held(self, build: Callable[[pa.RecordBatch | None], T]) -> T:
        """Return `build(rows)` for the held rows (None: there are none), and clear them.

        The rows are in no particular order.
        """
        with self._changes.lock:
            self._changes.complete()
            slots, rows = self._held
            built = build(rows)
            self._dirty[slots] = True
            self._held = Held(_NONE, None)
            return built

    # -- what a commit needs -------------------------------------------------------------------

    def dirty(self) -> Ints:
        """Return the slots of the streams that were added or written since `mark_clean`."""
        return np.flatnonzero(self._dirty[: len(self)])

    def mark_clean(self) -> None:
        """Mark all streams as committed."""
        self._dirty[: self.streams] = False

    def to_arrow(self, slots: Ints | None = None, copy: bool = True) -> pa.Table:
        """Return all streams in the order of their slots, or only the streams in `slots`.

        Without `copy`, the result may share memory with this table. Do not call `to_arrow` within a
        change.
        """
        with self._changes.lock:
            self._changes.complete()
            return to_arrow(self, slots, copy)

    def copied(self, slots: Ints | None = None) -> Copying:
        """Begin a copy of all streams as they are now, or only of the streams at ascending `slots`.

        Its `finish` returns what `to_arrow` would return now, and holds the lock for less than 1 ms
        at a time: a change meanwhile copies what it is about to overwrite. Do not call `copied`
        within a change.
        """
        with self._changes.lock:
            self._changes.complete()
            begun = SlicedCopy(self._columns, self.streams, slots)
            self._copies = [*self._copies, begun]
            new, keys = StateTable(self.layout, self._initial), KeyCopy(self._index)
            schema, held = self.layout.schema(), self._held

        def finish() -> pa.Table:
            try:
                begun.finish(self._between_changes)
            finally:
                self._between_changes(partial(self._forget, begun))
            if slots is None:
                new.adopt(keys, held, begun.arrays)
            else:
                new.adopt(keys.taken(slots), held.taken(slots), begun.arrays)
            return to_arrow(new, copy=False)

        return Copying(schema, finish)

    def adopt(self, keys: KeyIndex, held: Held, arrays: Sequence[Array]) -> None:
        """Replace all streams: their keys, held rows, and `arrays` (as in `_columns`)."""
        self._index, self._held = keys, held
        self._replace(iter(arrays))

    def _between_changes(self, work: Callable[[], object]) -> None:
        with self._changes.lock:
            self._changes.complete()
            work()

    def _forget(self, begun: SlicedCopy) -> None:
        self._copies = [other for other in self._copies if other is not begun]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the table to any Arrow consumer: `pa.table(state)`, pandas, Polars, DuckDB."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)


def from_arrow(
    source: pa.Table,
    layout: Layout,
    initial: Mapping[str, Floats] | None,
    label: str,
    mapping: Mapping[str, str] | None = None,
    *,
    same_pipeline: bool = False,
    before: StateTable | None = None,
    notes: list[str] | None = None,
) -> StateTable:
    """Build a state table with this layout from an Arrow table.

    `mapping` (layer of this model -> layer of the table) reads the state of another model: it gives
    the origin of each layer's state; the rest of a stream is read as without `mapping`, but the
    table need not have last times. A stream may have steps but no last time, if its first state
    came without times; this is noted unless this pipeline wrote the table (`same_pipeline`).
    `before` is the state that the table replaces: no stream may lose its last time. `notes` gets a
    sentence for each thing that is not read.

    Raises StateError, with `label`, for the table of another model if there is no mapping; for a
    column that is missing, duplicate, or of another type or size; and for invalid values, with the
    row and the stream.
    """
    table = StateTable(layout, initial)
    load_streams(
        table, source, label, mapping, same_pipeline=same_pipeline, before=before, notes=notes
    )
    return table
