"""Segments of one record batch, or sequences from several, packed into the lanes of windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.stream.windows.sorted_rows import run_ends, stream_begins

Inputs = list[Array]
_LONG = 32
"""Smallest number of steps for which copying a slice per lane beats indexing all lanes."""


@dataclass(frozen=True)
class Window:
    """At most B lanes x T steps of some `lanes`, from step `first` of each lane on.

    `inputs` holds one array per model input, (B, T, F) float32 or (B, T); `length_B` int64 is the
    number of steps of each lane (values beyond its length are undefined).
    """

    inputs: Inputs
    length_B: Ints
    lanes: "Lanes"
    first: int

    def rows(self) -> Ints:
        """Return the index of each step (B, T) among the steps of the record batch."""
        begin = self.lanes.start[: len(self.length_B)] + self.first
        return begin[:, None] + np.arange(int(self.length_B[0]))

    def scatter(self, values_BTU: Floats, out_MU: Floats) -> None:
        """Write the outputs of the steps, up to the length of each lane, into `out_MU`."""
        steps = int(self.length_B[0])
        if (block := self.lanes.block(out_MU)) is not None:
            block[:, self.first : self.first + steps] = values_BTU
        elif steps >= _LONG:
            begin = self.lanes.start[: len(self.length_B)] + self.first
            places = zip(begin.tolist(), self.length_B.tolist(), strict=True)
            for (first, length), values in zip(places, values_BTU, strict=True):
                out_MU[first : first + length] = values[:length]
        elif int(self.length_B[-1]) == steps:
            out_MU[self.rows()] = values_BTU
        else:
            present = np.arange(steps) < self.length_B[:, None]
            out_MU[self.rows()[present]] = values_BTU[present]


@dataclass(frozen=True)
class Lanes:
    """Segments packed together, longest first: lane b reads `length[b]` steps from `start[b]`.

    `segment` is the index of each lane's segment.
    """

    segment: Ints
    start: Ints
    length: Ints

    def windows(self, inputs: Inputs, steps: int) -> Iterator[Window]:
        """Yield windows of at most `steps` steps, in order of time; the lanes in use are first.

        `inputs` are arrays over the M steps of the record batch, (M, F) or (M,).
        """
        longest = int(self.length[0])
        blocks = [self.block(array) for array in inputs]
        for first in range(0, longest, steps):
            if self._rows is not None:
                length = np.full(len(self.start), min(longest - first, steps))
                parts = [block[:, first : first + steps] for block in blocks if block is not None]
                yield Window([np.ascontiguousarray(part) for part in parts], length, self, first)
                continue
            live = int((-self.length).searchsorted(-first))
            window = Window([], np.minimum(self.length[:live] - first, steps), self, first)
            # Absent steps repeat the lane's last row: any existing row would do.
            last = (self.start + self.length)[:live, None] - 1
            row = np.minimum(window.rows(), last)
            # take copies rows about ten times as fast as indexing with an array.
            window.inputs.extend(array.take(row, axis=0) for array in inputs)
            yield window

    def block(self, array: Array) -> Array | None:
        """Return the rows of an array (M, …) as a view (B, T, …), None unless B lanes lie together.

        They do if all have T steps, and each begins where the lane before it ends.
        """
        if self._rows is None:
            return None
        return array[self._rows].reshape(len(self.start), -1, *array.shape[1:])

    @cached_property
    def _rows(self) -> slice | None:
        first, last, steps = int(self.start[0]), int(self.start[-1]), int(self.length[0])
        together = int(self.length[-1]) == steps and last - first == (len(self.start) - 1) * steps
        if not together or (self.start[1:] - self.start[:-1] != steps).any():
            return None
        return slice(first, last + steps)


def pack_lanes(start: Ints, length: Ints, lanes: int, steps: int, groups: int = 1) -> list[Lanes]:
    """Pack segments into lanes, longest first; segments without steps are omitted.

    A window holds `lanes` x `steps` cells: if the segments are shorter than `steps`, it has more
    lanes, so that many short streams need no more calls than a few long ones. The lanes are in
    about `groups` groups or more (work for as many threads) if there are as many segments.
    """
    longest = int(length.max(initial=0))
    # NumPy sorts 16 bits by radix.
    key = (longest - length).astype(np.uint16) if longest < 1 << 16 else -length
    order = key.argsort(kind="stable")[: int(np.count_nonzero(length))]
    start, length = start[order], length[order]
    packed = []
    first = 0
    fair = -(-len(order) // groups) if groups > 1 else len(order)
    while first < len(order):
        width = min(lanes * max(1, steps // int(length[first])), max(fair, 1))
        some = slice(first, first + width)
        packed.append(Lanes(order[some], start[some], length[some]))
        first += width
    return packed


class Sequences(NamedTuple):
    """The steps of streams between resets.

    Sequence s is `length[s]` steps of stream `slot[s]`, from `start[s]` in `order`, which sorts all
    M steps by stream.
    """

    order: Ints
    start: Ints
    length: Ints
    slot: Ints


def sequences_of(slot_M: Ints, step_M: Ints) -> Sequences:
    """Return the sequences of M steps, in order of time within each stream.

    `step_M` is the step number since the stream's last reset. Step 1 begins a sequence, and so does
    the first step of a resumed stream.
    """
    order = np.argsort(slot_M, kind="stable")
    slot = slot_M[order]
    start = np.flatnonzero((step_M[order] == 1) | stream_begins(slot))
    return Sequences(order, start, run_ends(start, len(order)) - start, slot[start])


class Placement(NamedTuple):
    """One window of B lanes.

    `sequence_B` is the sequence of each lane (-1: idle), `begin_B` the index of its first step in
    `Sequences.order`, `length_B` its number of steps, `first_B` whether its sequence begins here.
    """

    sequence_B: Ints
    begin_B: Ints
    length_B: Ints
    first_B: Bools


def place(sequences: Sequences, lanes: int, steps: int) -> Iterator[Placement]:
    """Place sequences in windows of at most `steps` steps; a lane has one sequence per window.

    A lane continues its stream to the end, then takes the next one.
    """
    heads = stream_begins(sequences.slot)
    streams = iter(np.flatnonzero(heads).tolist())
    sequence, begin, left = (np.zeros(lanes, np.int64) for _ in range(3))
    sequence[:] = -1
    while True:
        first = np.zeros(lanes, bool)
        for lane in np.flatnonzero(left == 0).tolist():
            following = int(sequence[lane]) + 1
            same = 0 < following < len(heads) and not heads[following]
            sequence[lane] = chosen = following if same else next(streams, -1)
            if chosen >= 0:
                begin[lane], left[lane] = sequences.start[chosen], sequences.length[chosen]
                first[lane] = True
        if not left.any():
            return
        length = np.minimum(left, steps)
        yield Placement(sequence.copy(), begin.copy(), length, first)
        begin += length
        left -= length
