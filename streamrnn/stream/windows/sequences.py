"""Group the steps of many record batches into sequences, and place these on lanes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Ints


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
    begin = step_M[order] == 1
    begin[:1] = True
    begin[1:] |= slot[1:] != slot[:-1]
    start = np.flatnonzero(begin)
    return Sequences(order, start, np.diff(np.append(start, len(order))), slot[start])


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
    """Place sequences in windows of `steps` steps at most.

    A lane continues its stream to the end, then takes the next one. In a window it has steps of one
    sequence only.
    """
    slot = sequences.slot
    heads = np.ones(len(slot), bool)
    heads[1:] = slot[1:] != slot[:-1]
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
