"""Segments of streams packed into windows of B lanes x T steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints

Inputs = list[Array]
_LONG = 32
"""Steps from which one slice per lane is copied faster than all lanes by an array of indices."""


@dataclass(frozen=True)
class Window:
    """A block of at most B lanes and T steps.

    `inputs` holds one array per model input, (B, T, F) float32 or (B, T); `length_B` int64 is the
    number of steps of each lane (values past them are undefined). `row_BT` is the step's index
    among the steps of the record batch, consecutive in each lane.
    """

    inputs: Inputs
    length_B: Ints
    row_BT: Ints

    def scatter(self, values_BTU: Floats, out_MU: Floats) -> None:
        """Write the outputs of the present steps to their rows, in place."""
        lanes, steps = self.row_BT.shape
        full = int(self.length_B.min()) == steps
        first_B = self.row_BT[:, 0]
        if full and (rows := _adjoining(first_B, steps)) is not None:
            out_MU[rows] = values_BTU.reshape(lanes * steps, -1)
        elif steps >= _LONG:
            places = zip(first_B.tolist(), self.length_B.tolist(), strict=True)
            for (first, length), values in zip(places, values_BTU, strict=True):
                out_MU[first : first + length] = values[:length]
        elif full:
            out_MU[self.row_BT] = values_BTU
        else:
            present = np.arange(steps) < self.length_B[:, None]
            out_MU[self.row_BT[present]] = values_BTU[present]


@dataclass(frozen=True)
class Lanes:
    """Segments packed together, longest first: lane b reads `length[b]` steps from `start[b]`.

    `segment` is the index of each lane's segment.
    """

    segment: Ints
    start: Ints
    length: Ints

    def windows(self, inputs: Inputs, steps: int) -> Iterator[Window]:
        """Yield windows of at most `steps` steps, in order of time; the live lanes are a prefix.

        `inputs` are arrays over the M steps of the record batch, (M, F) or (M,).
        """
        longest = int(self.length[0])
        for first in range(0, longest, steps):
            live = int((-self.length).searchsorted(-first))
            length = np.minimum(self.length[:live] - first, steps)
            width = int(length[0])
            begin = self.start[:live] + first
            row = begin[:, None] + np.arange(width)
            if int(length[-1]) < width:
                # Absent steps repeat the lane's last row: any existing row would do.
                row = np.minimum(row, (self.start + self.length)[:live, None] - 1)
            elif (rows := _adjoining(begin, width)) is not None:
                shape = live, width
                yield Window([a[rows].reshape(shape + a.shape[1:]) for a in inputs], length, row)
                continue
            # take copies rows about ten times as fast as indexing with an array.
            yield Window([a.take(row, axis=0) for a in inputs], length, row)


def _longest_first(length: Ints) -> Ints:
    """Return the order of segments by length, stable, longest first."""
    longest = int(length.max(initial=0))
    if longest < 1 << 16:  # NumPy sorts 16 bits by radix
        return (longest - length).astype(np.uint16).argsort(kind="stable")
    return (-length).argsort(kind="stable")


def _adjoining(begin: Ints, steps: int) -> slice | None:
    """Return the rows of lanes of `steps` steps, if each begins where the one before it ends."""
    first, last = int(begin[0]), int(begin[-1])
    if last - first != (len(begin) - 1) * steps or (begin[1:] - begin[:-1] != steps).any():
        return None
    return slice(first, last + steps)


def pack_lanes(start: Ints, length: Ints, lanes: int, steps: int, groups: int = 1) -> list[Lanes]:
    """Pack segments into lanes, longest first; segments without steps are omitted.

    A window holds `lanes` x `steps` cells: if the segments are shorter than `steps` it has more
    lanes instead, so many short streams need no more calls than few long ones. Return at least
    `groups` groups of lanes (work for as many threads) if there are that many segments.
    """
    order = _longest_first(length)[: int(np.count_nonzero(length))]
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
