"""The lanes of a recurrent kernel: which have a step, and where their states are.

Each lane has two slots for h in the scratch array and writes them alternately, so a step never
overwrites what another group of units still reads, and an absent or masked step changes nothing.
The rows of a step are listed only if its lanes may differ from the lanes of the step before.
"""

from typing import NamedTuple

from numba import types

from streamrnn.base.arrays import Ints
from streamrnn.nn.simd.arguments import Absent
from streamrnn.nn.simd.jit import I1, MASK, Inlined, inline_always
from streamrnn.nn.simd.sweep import NEW, OLD, OWN, START, X
from streamrnn.nn.simd.vector import make_copy

ABSENT_TYPE = types.NamedTuple((I1, MASK), Absent)


class LaneRange(NamedTuple):
    """The lanes first..last, and lists of the lanes that pass through the steps together."""

    first: int
    last: int
    offsets: Ints
    """Offsets of the rows of a step, as a sweep reads them."""
    current: Ints
    """By lane, the offset of its h; out of date while the lane is in the list of rows."""
    listed: Ints
    """By row, its lane."""
    place: Ints
    """By row, the place of its lane and step in x and y: lane * T + step."""


class LanePlaces(NamedTuple):
    """Offsets in the scratch array."""

    z: int
    """Sums of a tile."""
    states: int
    """States of the first lane: h twice, then the others."""
    per_lane: int
    """Floats of the states of a lane."""
    inputs: int
    """Inputs of a step, or a lone lane's sums of a block of steps."""


@inline_always
def most_steps(absent, T, first, count):
    """Return the largest number of steps of a lane."""
    lengths_B = absent.lengths_B
    steps = 0 if lengths_B.size else T
    for lane in range(count if lengths_B.size else 0):
        steps = max(steps, min(lengths_B[first + lane], T))
    return steps


@inline_always
def list_rows(absent, lanes, first, count, t, T, at, sizes):
    """List the lanes that have step t; return how many, and the step before which none changes.

    A row reads the slot of its lane's current h and writes the other one.
    """
    _, _, offsets, current, listed, place = lanes
    lengths_B, mask_BT, cap = absent.lengths_B, absent.mask_BT, sizes.cap
    rows, until, state = 0, T, at.states
    for lane in range(count):
        present = not lengths_B.size or t < lengths_B[first + lane]
        if present and mask_BT.size:
            present = mask_BT[first + lane, t]
        if present:
            offsets[OLD * cap + rows] = current[lane]
            offsets[NEW * cap + rows] = 2 * state + sizes.padded - current[lane]
            offsets[OWN * cap + rows] = state + 2 * sizes.padded
            listed[rows], place[rows] = lane, (first + lane) * T + t
            if lengths_B.size:
                until = min(until, lengths_B[first + lane])
            rows += 1
        state += at.per_lane
    return rows, t + 1 if mask_BT.size else until


@inline_always
def advance(rows, offsets, cap, place):
    """Advance the rows by a step: each now reads what it wrote."""
    for row in range(rows):
        written = offsets[NEW * cap + row]
        offsets[NEW * cap + row] = offsets[OLD * cap + row]
        offsets[OLD * cap + row] = written
        place[row] += 1


@inline_always
def list_block(absent, lane, t, end, T, sizes, offsets, inputs, sums):
    """List which of the steps t..end a lone lane has; the sums of step t begin at `inputs`."""
    rows, cap, mask_BT = 0, sizes.cap, absent.mask_BT
    for later in range(t, end):
        if not mask_BT.size or mask_BT[lane, later]:
            offsets[START * cap + rows] = 0
            offsets[X * cap + rows] = (lane * T + later) * sizes.features
            offsets[NEW * cap + rows] = inputs + (later - t) * sums
            rows += 1
    return rows


def make_moves(n: int) -> tuple[Inlined, Inlined, Inlined]:
    """Make the functions that move states, (B, U) each, between their arrays and the scratch array.

    `enter` copies the states into the scratch array, `leave` copies them back. `hold` writes the
    outputs of masked lanes: the h before the step, or zero.
    """
    copy = make_copy(n)

    @inline_always
    def enter(states_BU, s, at, sizes, first, count):
        units, padded = sizes.units, sizes.padded
        for k in range(len(states_BU)):
            source, target = states_BU[k].reshape(-1), at.states + (k + 1 if k else 0) * padded
            for lane in range(first, first + count):
                copy(source, lane * units, s, target, units)
                target += at.per_lane

    @inline_always
    def leave(states_BU, s, at, sizes, first, count, current):
        units = sizes.units
        for k in range(len(states_BU)):
            target, source = states_BU[k].reshape(-1), at.states + (k + 1) * sizes.padded
            for lane in range(count):
                offset = source if k else current[lane]
                copy(s, offset, target, (first + lane) * units, units)
                source += at.per_lane

    @inline_always
    def hold(absent, first, count, t, T, s, current, y, units, zero_masked):
        lengths_B, mask_BT = absent.lengths_B, absent.mask_BT
        for lane in range(count):
            masked = not mask_BT[first + lane, t]
            if masked and (not lengths_B.size or t < lengths_B[first + lane]):
                j = ((first + lane) * T + t) * units
                copy(s, current[lane], y, j, units)
                if zero_masked:
                    y[j : j + units] = 0

    return enter, leave, hold
