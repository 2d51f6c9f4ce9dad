"""What a state table stores of each stream: arrays with a row per slot."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.nn.kernels.growing import grown
from streamrnn.stream.states.copying import SlicedCopy
from streamrnn.stream.states.layout import Layout


class SlotArrays:
    """Steps, times, previous values, states and waiting rows of streams, by slot.

    There are spare rows for new streams. See `StateTable`, which knows the key of each slot.
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
            name: (np.zeros(0, _dtype(kind)), np.zeros(0, bool))
            for name, kind in layout.previous.items()
        }
        self._waiting: dict[str, Array] = {
            name: np.zeros((0, layout.waiting_rows, *_width(kind)), _dtype(_item(kind)))
            for name, kind in layout.waiting.items()
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
        """Return all arrays with a row per slot whose values belong in an Arrow table."""
        arrays = self._steps, self._last_time, self._seen, self._waiting_count
        previous = [array for pair in self._previous.values() for array in pair]
        return [*arrays, *self._states.values(), *self._waiting.values(), *previous]

    def _replace(self, arrays: Iterator[Array]) -> None:
        """Replace all arrays by others, as `_columns` returns them."""
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
        """Return each stream's latest time (B,), in ticks, and whether (B,) it has one."""
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
        """Write the steps, times and previous values of these streams, and mark them dirty.

        The arrays (B,) have the form in which `steps`, `last_times` and `previous` return them.
        `seen`: whether a stream has had a row.
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
        """Call `run` to advance the states of B streams; those marked in `reset` are reset first.

        `run` receives name -> (B, size) and changes it in place: the memory of the table if the
        slots are consecutive, else a copy that is written back. Threads may call `move`
        concurrently for different streams.
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
        """Copy the states of B slots to `out`, name -> (B, size); if `reset`, the initial state."""
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
        counts: Ints = self._waiting_count[slots]
        return counts

    def waiting(self, name: str, slots: Ints, counts: Ints) -> Array:
        """Return the first `counts` (B,) waiting rows of each stream, (K, …), by stream."""
        values: Array = self._waiting[name][_row_index(slots, counts)]
        return values

    def wait(self, slots: Ints, counts: Ints, rows: Mapping[str, Array]) -> None:
        """Replace the waiting rows of each stream by `counts` (B,) rows.

        `rows` have the form in which `waiting` returns them.
        """
        self._keep(slots)
        index = _row_index(slots, counts)
        self._waiting_count[slots] = counts
        for name, values in rows.items():
            self._waiting[name][index] = values


def _row_index(slots: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Return the slot of each of `counts` rows per stream, and the row's index in its stream."""
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(slots, counts), within


def _item(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_fixed_size_list(kind) else kind


def _width(kind: pa.DataType) -> tuple[int, ...]:
    return (kind.list_size,) if pa.types.is_fixed_size_list(kind) else ()


def _dtype(kind: pa.DataType) -> npt.DTypeLike:
    if pa.types.is_string(kind):
        return object
    return np.float32 if pa.types.is_floating(kind) else np.int64
