"""Arrays with a row per slot, copies of them while they change, and atomic changes."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.nn.kernels.rows import grown, small_pages
from streamrnn.stream.states.layout import Layout

_SLICE = 1 << 20
"""Number of bytes that are copied while the lock is held, which takes less than 1 ms."""
PAUSE = 1e-4
"""Seconds to wait after each slice: a lock that is free for less time goes to its last holder."""


class SlicedCopy:
    """A copy, `arrays`, of the first `rows` rows of some arrays, as they are at its creation.

    Create it with the lock held. With `which`, in ascending order, only these rows are copied.
    `columns` returns the current arrays, which may be replaced when they grow. Whoever writes rows
    before `finish` has ended must call `keep` first.
    """

    def __init__(
        self, columns: Callable[[], list[Array]], rows: int, which: Ints | None = None
    ) -> None:
        size = rows if which is None else len(which)
        self.arrays = [_undefined(array, size) for array in columns()]
        self._originals = columns
        self._which = which
        self._left = np.ones(size, bool)
        self._aside: list[tuple[Ints, list[Array]]] = []

    def keep(self, rows: Ints) -> None:
        """Set aside the rows among a few `rows` that are not copied yet; repeat if interrupted.

        `finish` writes them to their places: writing them here would wait for the pages of all
        arrays, which takes ten times as long.
        """
        places = rows if self._which is None else np.searchsorted(self._which, rows)
        inside = places < len(self._left)
        rows, places = rows[inside], places[inside]
        missing = self._left[places]
        if self._which is not None:
            missing &= self._which[places] == rows
        rows, places = rows[missing], places[missing]
        if len(rows):
            self._aside.append((places, [array[rows] for array in self._originals()]))
            self._left[places] = False

    def finish(self, locked: Callable[[Callable[[], object]], object]) -> None:
        """Copy the missing rows, a slice in each call that `locked` makes with the lock held."""
        width = sum(kept[:1].nbytes for kept in self.arrays)
        rows = max(1, _SLICE // max(1, width))  # without streams there are no bytes
        for first in range(0, len(self._left), rows):
            locked(partial(self._take, first, first + rows))
            time.sleep(PAUSE)
        for places, values in self._aside:
            for kept, value in zip(self.arrays, values, strict=True):
                kept[places] = value

    def _take(self, first: int, last: int) -> None:
        left = self._left[first:last]
        places: Ints | slice = slice(first, first + len(left))
        if not left.all():
            places = first + np.flatnonzero(left)
        rows = places if self._which is None else self._which[places]
        for kept, array in zip(self.arrays, self._originals(), strict=True):
            kept[places] = array[rows]
        left[:] = False


def _undefined(array: Array, rows: int) -> Array:
    """Return an uninitialized array for a copy."""
    shape = rows, *array.shape[1:]
    size = int(np.prod(shape)) * array.itemsize
    if array.dtype.hasobject or not size:
        return np.empty(shape, array.dtype)
    return np.ndarray(shape, array.dtype, small_pages(size))


T = TypeVar("T")
_Call = Callable[[], object]


def do_nothing() -> None:
    """Write or undo an empty change."""


class OwnLock:
    """A reentrant lock that is free in a forked process."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    @property
    def lock(self) -> threading.RLock:
        """The lock of this process. In `with own.lock:`, no interrupt leaves it locked."""
        process = os.getpid()
        lock = self._locks.get(process)
        return self._locks.setdefault(process, threading.RLock()) if lock is None else lock

    def __reduce__(self) -> "tuple[type[OwnLock], tuple[()]]":
        return OwnLock, ()


class Changes:
    """The log of the current change; after an interrupt, the next user completes or undoes it.

    An interrupt (a KeyboardInterrupt, or an exception raised by another thread) may occur between
    any two operations, even during recovery. So a change takes effect by one assignment, which
    replaces the call that undoes the change by the call that writes it; the next user repeats the
    stored call until it completes. `renew` repairs data that a fork copied while another thread
    changed them.
    """

    def __init__(self, renew: _Call) -> None:
        self._own = OwnLock()
        self._left: _Call | None = None
        self._renew = renew
        self._process = os.getpid()

    @property
    def lock(self) -> threading.RLock:
        """The lock to hold while reading or changing."""
        return self._own.lock

    def complete(self) -> None:
        """Undo or complete an interrupted change. The caller holds the lock."""
        if self._process != os.getpid():
            self._renew()
            self._process = os.getpid()
        if self._left is not None:
            self._left()
            self._left = None

    def make(
        self, work: Callable[[], tuple[T, _Call]], undo: Callable[[], _Call] = lambda: do_nothing
    ) -> T:
        """Make one change and return its result.

        `undo()` is called first, and returns the call that restores the current state (default:
        `work` itself changes nothing). `work` returns the result, and the call that writes the
        change from values that it holds. Both returned calls must be idempotent, even if one was
        interrupted. An error or an interrupt in `work` undoes the change; a later one does not.
        """
        with self._own.lock:
            self.complete()
            try:
                self._left = undo()
                result, self._left = work()
                self.complete()
            except BaseException:
                self.complete()
                raise
            return result

    def __reduce__(self) -> "tuple[type[Changes], tuple[_Call]]":
        return Changes, (self._renew,)


class SlotArrays:
    """Steps, times, previous values, states and waiting rows, by slot; the base of `StateTable`.

    There are spare rows for new streams.
    """

    def __init__(self, layout: Layout, initial: Mapping[str, Floats] | None) -> None:
        self.layout = layout
        self._initial = {
            name: np.zeros_like(one[0]) if initial is None else initial[name]
            for name, one in layout.empty_states(1).items()
        }
        self._steps = np.zeros(0, np.int64)
        self._last_time = np.zeros(0, np.int64)
        self._seen = np.zeros(0, bool)
        self._dirty = np.zeros(0, bool)
        self._states = layout.empty_states(0)
        self._previous: dict[str, tuple[Array, Bools]] = {
            name: (_zeros(kind, 0), np.zeros(0, bool)) for name, kind in layout.previous.items()
        }
        self._waiting: dict[str, Array] = {
            name: _zeros(kind, 0, layout.waiting_rows) for name, kind in layout.waiting.items()
        }
        self._waiting_count = np.zeros(0, np.int64)
        self._spare: list[dict[str, Floats]] = []
        self._room = 0
        self._used = 0  # rows of the state arrays that may have been written
        self._copies: list[SlicedCopy] = []  # unfinished copies

    def _grow(self, size: int) -> None:
        self._last_time, self._seen = grown(self._last_time, size), grown(self._seen, size)
        self._dirty = grown(self._dirty, size)
        self._previous = {
            name: (grown(values, size), grown(present, size))
            for name, (values, present) in self._previous.items()
        }
        # Last, as its length stands for all: after an interrupt, no other is shorter.
        self._steps = grown(self._steps, size)

    def make_room(self, streams: int) -> None:
        """Set the initial state of the slots below `streams` that are new since the last call."""
        start, self._room = self._room, streams
        if len(self._waiting_count) < self._room:
            size = len(self._steps)
            self._states = {name: grown(array, size) for name, array in self._states.items()}
            self._waiting = {name: grown(array, size) for name, array in self._waiting.items()}
            # Last, as its length stands for all: after an interrupt, no other is shorter.
            self._waiting_count = grown(self._waiting_count, size)
        self._waiting_count[start : self._room] = 0
        for name, array in self._states.items():
            if start < self._used or self._initial[name].view(np.uint32).any():
                array[start : self._room] = self._initial[name]
        self._used = max(self._used, self._room)

    def _columns(self) -> list[Array]:
        """Return the arrays whose values belong in an Arrow table."""
        arrays = self._steps, self._last_time, self._seen, self._waiting_count
        previous = [array for pair in self._previous.values() for array in pair]
        return [*arrays, *self._states.values(), *self._waiting.values(), *previous]

    def _replace(self, arrays: Iterator[Array]) -> None:
        """Replace all arrays by others, in the order of `_columns`."""
        self._steps, self._last_time = next(arrays), next(arrays)
        self._seen, self._waiting_count = next(arrays), next(arrays)
        self._states = {name: next(arrays) for name in self._states}
        self._waiting = {name: next(arrays) for name in self._waiting}
        self._previous = {name: (next(arrays), next(arrays)) for name in self._previous}

    def _keep(self, slots: Ints) -> None:
        """Save, for unfinished copies, what is about to be overwritten."""
        for begun in self._copies:
            begun.keep(slots)

    def steps(self, slots: Ints) -> Ints:
        """Return the steps (B,) since the last reset of each stream."""
        return self._steps.take(slots)

    def last_times(self, slots: Ints) -> tuple[Ints, Bools]:
        """Return each stream's latest time (B,), in ticks, and whether (B,) the stream has one.

        Without a time column, the second is whether the stream has had a row.
        """
        return self._last_time.take(slots), self._seen.take(slots)

    def previous(self, name: str, slots: Ints) -> tuple[Array, Bools]:
        """Return the last values (B,) of a feature, and which of them are present."""
        values, present = self._previous[name]
        return values.take(slots), present.take(slots)

    def advance(
        self,
        slots: Ints,
        steps: Ints,
        last_time: Ints | None,
        previous: Mapping[str, tuple[Array, Bools]],
        seen: Bools | bool = True,
    ) -> None:
        """Set the steps, last times and previous values of B streams, and mark the streams dirty.

        The values are in the form in which the methods `steps`, `last_times` (`last_time` and
        `seen`) and `previous` return them. Omitted features keep their values; so do times if
        `last_time` is None.
        """
        if self._copies:
            self._keep(slots)
        self._steps[slots] = steps
        self._seen[slots] = seen
        if last_time is not None:
            self._last_time[slots] = last_time
        for name, (values, present) in previous.items():
            self._previous[name][0][slots] = values
            self._previous[name][1][slots] = present
        self._dirty[slots] = True

    def move(self, slots: Ints, reset: Bools, run: Callable[[Mapping[str, Floats]], None]) -> None:
        """Reset the streams marked in `reset`, then call `run` to advance the states of B streams.

        `run` receives name -> (B, size) and changes the arrays in place: they are memory of the
        table if the slots are consecutive and ascending, else copies that are written back. Threads
        may call `move` concurrently if no stream is in two calls.
        """
        self._keep(slots)
        first, size = int(slots[0]), len(slots)
        if int(slots[-1]) - first == size - 1 and (slots[1:] > slots[:-1]).all():
            views = {name: array[first : first + size] for name, array in self._states.items()}
            if reset.any():
                for name, view in views.items():
                    view[reset] = self._initial[name]
            run(views)
            return
        try:
            room = self._spare.pop()
        except IndexError:  # a check beforehand would race with other threads
            room = {}
        if len(slots) > len(next(iter(room.values()), ())):
            room = self.layout.empty_states(len(slots))
        states = {name: array[: len(slots)] for name, array in room.items()}
        self.gather(slots, reset, states)
        run(states)
        self.scatter(slots, states)
        self._spare.append(room)

    def gather(self, slots: Ints, reset: Bools | None, out: Mapping[str, Floats]) -> None:
        """Copy states of B slots to `out`, name -> (B, size); the initial state where `reset`."""
        any_reset = reset is not None and np.count_nonzero(reset)  # twice as fast as any()
        for name, array in self._states.items():
            array.take(slots, axis=0, out=out[name], mode="clip")  # "raise" copies twice
            if any_reset:
                out[name][reset] = self._initial[name]

    def scatter(self, slots: Ints, states: Mapping[str, Floats]) -> None:
        """Write the states of B slots, name -> (B, size); omitted names keep their values."""
        if self._copies:
            self._keep(slots)
        for name, values in states.items():
            self._states[name][slots] = values

    def reset(self, slots: Ints) -> None:
        """Set the states of these streams to the initial state."""
        self._keep(slots)
        for name, array in self._states.items():
            array[slots] = self._initial[name]

    def waiting_counts(self, slots: Ints) -> Ints:
        """Return the number (B,) of waiting rows of each stream."""
        return self._waiting_count.take(slots)

    def waiting(self, name: str, slots: Ints, counts: Ints) -> Array:
        """Return the first `counts` (B,) waiting rows of each stream, in this order, as (K, …)."""
        values: Array = self._waiting[name][_row_index(slots, counts)]
        return values

    def wait(self, slots: Ints, counts: Ints, rows: Mapping[str, Array]) -> None:
        """Replace each stream's waiting rows by `counts` (B,) rows, as `waiting` returns them."""
        self._keep(slots)
        index = _row_index(slots, counts)
        self._waiting_count[slots] = counts
        for name, values in rows.items():
            self._waiting[name][index] = values


def _row_index(slots: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Return the slot of each of `counts` rows per stream, and the row's index in its stream."""
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(slots, counts), within


def _zeros(kind: pa.DataType, *shape: int) -> Array:
    """Return zeros for values of a type, in this shape; lists of a fixed size add an axis."""
    if pa.types.is_fixed_size_list(kind):
        return _zeros(kind.value_type, *shape, kind.list_size)
    if pa.types.is_string(kind):
        return np.zeros(shape, object)
    return np.zeros(shape, np.float32 if pa.types.is_floating(kind) else np.int64)
