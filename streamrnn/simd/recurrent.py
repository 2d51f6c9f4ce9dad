"""The loop over lanes and steps that all recurrent kernels share.

Each lane has two slots for h in the scratch array and writes them alternately, so a step never
overwrites what another group of units still reads, and an absent or masked step changes nothing.
Each step lists the live lanes and sweeps only those.

Lanes are divided among threads. A few lanes of many units are shared by several (`shares`): each
computes some of the units, and a barrier ends each step. If other processes occupy their cores,
waiting at the barrier takes longer than a step: then the first thread finishes alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import types
from numba.core.typing.templates import Signature

from streamrnn.simd import jit
from streamrnn.simd.arguments import Absent, Kernel, Share, Weights
from streamrnn.simd.jit import Inlined, inline_always, kernel
from streamrnn.simd.names import Spec, label
from streamrnn.simd.packed_rows import make_pack_inputs, make_pack_states, make_packed_floats
from streamrnn.simd.spin_barrier import FOREVER, increment, spin_until
from streamrnn.simd.sweep import (
    NEW,
    OLD,
    OWN,
    START,
    Sizes,
    Span,
    TileShape,
    X,
    make_steps,
    project,
    sweep,
)
from streamrnn.simd.vector import make_copy

LANES = 96
"""Lanes that pass through all steps before the next ones: their states stay in the L2 cache.
8192 lanes of 64 units, one step: 0.58 -> 0.51 µs a lane."""

BLOCK = 24
"""Steps whose inputs a lone lane adds at once: the input's weights are then read once per tile of
six steps, not once per step. 64 units: 0.93 -> 0.75 µs a step. Two lanes are faster without."""


PATIENCE, START_PATIENCE = 50, 1000
"""Failed polls, each with a yield of the core (0.3 µs), before the first thread finishes alone;
START_PATIENCE before the first step, as a sleeping thread takes longer to arrive. Per other thread.
"""

UNEVEN = 15_000
"""Products per thread that allow one more failed poll, which takes half as long as they do."""

RELEASE_ALL = 1 << 60
"""The count that releases every waiter."""

ALONE = 2
"""Index in `barrier` of the arrivals after which the first thread finishes alone; the elements
before it belong to `spin_until`."""


@inline_always
def barrier_wait(barrier, arrived):
    """Wait for `arrived` arrivals: n threads expect n*k at their k-th barrier."""
    increment(barrier)
    spin_until(barrier, arrived, FOREVER)


class Phase(NamedTuple):
    """One sweep of a step."""

    shape: TileShape
    cell: Inlined
    operand: int = OLD
    """The part of a row that the recurrent weights multiply."""


class RowPhase(NamedTuple):
    """A phase of a step that works on all units of a row at once.

    `row(s, z, old, new, own, unit, units, padded)`: as a cell of `sweep`; the first `units` of the
    `padded` are valid, and `z` has room for the sums of six groups.
    """

    row: Inlined


def window(phases: tuple[Phase | RowPhase, ...], states: int, kept: int = 0) -> Kernel:
    """Make the kernel that runs the lanes first..last, or a share of them, through a window.

    `states`: states per lane, h first. `kept`: vectors of units that a cell keeps from one phase of
    a step to the next. A row's other states, then the kept vectors, begin at `own`.
    """
    sweeps = tuple(phase for phase in phases if isinstance(phase, Phase))
    n, vectors, word = sweeps[0].shape.n, sweeps[0].shape.vectors, sweeps[0].shape.word
    step, prepare = _step(phases), _prepare(sweeps)
    width = vectors * sum(phase.shape.sums for phase in sweeps)
    copy, barriers, lane_vectors = make_copy(n), len(phases), states + 1 + kept
    packed_floats, pack_inputs = make_packed_floats(word), make_pack_inputs(n, word)

    @inline_always
    def absence(absent, lane, t):
        """Return 0 if the lane has this step, 1 if it is masked, 2 if it is past the length."""
        if absent.lengths_B.size and t >= absent.lengths_B[lane]:
            return 2
        return 1 if absent.mask_BT.size and not absent.mask_BT[lane, t] else 0

    @inline_always
    def most_steps(lengths_B, T, first, lanes):
        steps = 0 if lengths_B.size else T
        for lane in range(lanes if lengths_B.size else 0):
            steps = max(steps, min(lengths_B[first + lane], T))
        return steps

    @inline_always
    def enter(states_BU, s, begin, sizes, first, lanes):
        """Copy the states of the lanes into the scratch array."""
        units, padded = sizes.units, sizes.padded
        for k in range(len(states_BU)):
            source, target = states_BU[k].reshape(-1), begin + (k + 1 if k else 0) * padded
            for lane in range(first, first + lanes):
                copy(source, lane * units, s, target, units)
                target += lane_vectors * padded

    @inline_always
    def leave(states_BU, s, begin, sizes, first, lanes, slot):
        """Copy the states of the lanes from the scratch array back to `states_BU`."""
        units, padded = sizes.units, sizes.padded
        for k in range(len(states_BU)):
            target, source = states_BU[k].reshape(-1), begin + (k + 1 if k else 0) * padded
            for lane in range(lanes):
                offsets = source if k else source + slot[lane] * padded
                copy(s, offsets, target, (first + lane) * units, units)
                source += lane_vectors * padded

    @inline_always
    def list_block(absent, lane, t, end, T, features, offsets, cap, inputs, sums):
        """List the present steps of t..end of a lone lane; the sums of t begin at `inputs`."""
        rows = 0
        for later in range(t, end):
            if absence(absent, lane, later) == 0:
                offsets[START * cap + rows] = 0
                offsets[X * cap + rows] = (lane * T + later) * features
                offsets[NEW * cap + rows] = inputs + (later - t) * sums
                rows += 1
        return rows

    @inline_always
    def list_state(offsets, cap, row, state, slot, padded):
        """List the row's states: it reads one of the two slots for h and writes the other."""
        offsets[OLD * cap + row] = state + slot * padded
        offsets[NEW * cap + row] = state + (1 - slot) * padded
        offsets[OWN * cap + row] = state + 2 * padded

    @kernel
    def run(x_BTF, absent, states_BU, y_BTU, weights, zero_masked, first, last, share):
        number, shares = share.number, share.shares
        T, features, units = x_BTF.shape[1], x_BTF.shape[2], states_BU[0].shape[1]
        x, y, w, barrier = x_BTF.reshape(-1), y_BTU.reshape(-1), weights.flat, share.barrier
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        sums = groups * width * n
        alone = last - first == 1 and T > 1
        fed = 0 if alone else features
        uneven = max(1, (last - first) * w.size // (shares * UNEVEN))
        arrived = 0

        # The scratch array: initial sums and the units' own weights, a tile's sums, the lanes'
        # states, and inputs: a lone lane's sums of a block of steps, or the inputs of all lanes
        # at this step; then, for packed weights, the packed rows of each thread.
        room = min(LANES, last - first)
        z = weights.unit.size + number * 6 * width * n
        states = weights.unit.size + shares * 6 * width * n
        per_lane = lane_vectors * padded
        inputs = states + room * per_lane
        total = inputs + (BLOCK * sums if alone else shares * room * features)
        inputs += 0 if alone else number * room * features
        cap = max(room, BLOCK)
        own_rows = packed_floats(features, units, cap, room)
        packed = total + number * own_rows
        total += shares * own_rows
        raw = share.scratch if shares > 1 else np.zeros(total + 16, np.float32)
        s = raw[(64 - raw.ctypes.data % 64) % 64 // 4 :]
        offsets = np.zeros(6 * cap, np.int64)
        slot = np.zeros(room, np.int64)
        live = np.empty(room, np.int64)
        sizes = Sizes(features, units, groups, padded, cap, sums, packed)
        span = Span(groups * number // shares, groups * (number + 1) // shares)

        copy(weights.unit, 0, s, 0, weights.unit.size)  # by every thread: all write the same
        while first < last:
            lanes = min(LANES, last - first)
            steps = most_steps(absent.lengths_B, T, first, lanes)
            slot[:] = 0
            if number == 0:
                enter(states_BU, s, states, sizes, first, lanes)
            if shares > 1:
                arrived += shares
                barrier_wait(barrier, arrived)
                if number == 0 and barrier[1] < START_PATIENCE * (shares - 1):
                    barrier[1] = 0
            for t in range(steps):
                if alone and t % BLOCK == 0:
                    end = min(t + BLOCK, steps)
                    rows = list_block(
                        absent, first, t, end, T, features, offsets, cap, inputs, sums
                    )
                    if word == 1:
                        prepare(rows, span, sizes, s, offsets, 0, x, w, 0)
                    else:
                        for row in range(rows):
                            pack_inputs(x, offsets[X * cap + row], s, sizes, offsets, row)
                        prepare(rows, span, sizes, s, offsets, 0, s, w, 0)
                rows = 0
                for lane in range(lanes):
                    place = (first + lane) * T + t
                    state = states + lane * per_lane
                    status = absence(absent, first + lane, t)
                    if status == 0:
                        if alone:
                            offsets[START * cap] = inputs + t % BLOCK * sums
                        elif word > 1:
                            pack_inputs(x, place * features, s, sizes, offsets, rows)
                        else:
                            offsets[X * cap + rows] = inputs + rows * features
                            copy(x, place * features, s, inputs + rows * features, features)
                        list_state(offsets, cap, rows, state, slot[lane], padded)
                        live[rows] = lane
                        rows += 1
                    elif status == 1 and y.size and number == 0:
                        copy(s, state + slot[lane] * padded, y, place * units, units)
                        if zero_masked:
                            y[place * units : (place + 1) * units] = 0
                step(rows, span, sizes, s, z, offsets, 0, fed, w, 0, share, shares, arrived)
                if shares > 1:
                    arrived += shares * barriers
                    if number == 0 and barrier[1] > (PATIENCE + (t + 1) * uneven) * (shares - 1):
                        barrier[ALONE] = arrived
                    barrier_wait(barrier, arrived)
                    # Equal, not at least: the first thread may have set it for the next step.
                    if barrier[ALONE] == arrived:
                        if number:
                            return
                        shares, span = 1, Span(0, groups)
                for row in range(rows):
                    slot[live[row]] = 1 - slot[live[row]]
                    if y.size and number == 0:
                        place = (first + live[row]) * T + t
                        copy(s, offsets[NEW * cap + row], y, place * units, units)
            if number == 0:
                leave(states_BU, s, states, sizes, first, lanes, slot)
            first += lanes

    return run


def scratch(
    unit: int, lanes: int, features: int, shares: int, lane_vectors: int, word: int = 1
) -> int:
    """Return an upper bound of the floats of the scratch array that `shares` threads use.

    `unit`: floats of the units' initial sums and own weights, at least a vector of units;
    `lane_vectors`: h twice, a lane's other states, and its kept vectors; `word`: as of a TileShape.
    """
    inputs = max(BLOCK * unit, shares * lanes * features)
    floats = (1 + 6 * shares + lane_vectors * lanes) * unit + inputs + 16
    if word == 1:
        return floats
    return floats + shares * (features + max(lanes, BLOCK) * (features + 2) + lanes * (unit + 2))


def _step(phases: tuple[Phase | RowPhase, ...]) -> Inlined:
    """Make the function of all phases of a step; threads that share lanes wait in between.

    `shares` is 1 where a thread of a share finishes alone.
    """
    phase, *more = phases
    first, group, x_step, h_step = _phase(phase)
    if not more:
        return first
    rest, steps = _step(tuple(more)), make_steps(_word(phase))

    @inline_always
    def several(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived):
        first(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived)
        if shares > 1:
            barrier_wait(share.barrier, arrived + shares)
        start += sizes.groups * group
        j += sizes.groups * (steps(sizes.features) * x_step + steps(sizes.units) * h_step)
        rest(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived + shares)

    return several


def _word(phase: Phase | RowPhase) -> int:
    return phase.shape.word if isinstance(phase, Phase) else 1


def _phase(phase: Phase | RowPhase) -> tuple[Inlined, int, int, int]:
    """Make the function of one phase.

    Also the floats per group of its initial sums, its weights of one input, and of one unit.
    """
    if isinstance(phase, RowPhase):
        return _rows(phase.row), 0, 0, 0
    shape = phase.shape
    run, word = sweep(shape, phase.cell, phase.operand), shape.word
    pack_states = make_pack_states(shape.n, word, phase.operand)

    @inline_always
    def units(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived):
        if word > 1:
            pack_states(rows, s, sizes, offsets)
        run(rows, span, sizes, s, z, offsets, start, s, fed, w, j)

    return units, shape.group, shape.x_step, shape.h_step


def _rows(row: Inlined) -> Inlined:
    @inline_always
    def rows_of(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived):
        cap = sizes.cap
        for r in range(share.number, rows, shares):
            old, new, own = offsets[OLD * cap + r], offsets[NEW * cap + r], offsets[OWN * cap + r]
            row(s, z, old, new, own, sizes.unit, sizes.units, sizes.padded)

    return rows_of


def _prepare(phases: tuple[Phase, ...]) -> Inlined:
    """Make the projections for all phases of a step."""
    shape, more = phases[0].shape, phases[1:]
    first = project(shape)
    if not more:
        return first
    rest, steps = _prepare(more), make_steps(shape.word)
    group, x_step, h_step = shape.group, shape.x_step, shape.h_step

    @inline_always
    def several(rows, span, sizes, s, offsets, start, x, w, j):
        first(rows, span, sizes, s, offsets, start, x, w, j)
        start += sizes.groups * group
        j += sizes.groups * (steps(sizes.features) * x_step + steps(sizes.units) * h_step)
        rest(rows, span, sizes, s, offsets, start, x, w, j)

    return several


def entry(
    name: str,
    activations: tuple[Spec, ...],
    states: int,
    make: Callable[[], Kernel],
    word: int = 1,
) -> Kernel:
    """Return the machine code of a window kernel built by `make`, of lanes with `states` states."""
    packed = [] if word == 1 else [f"int{32 // word}"]
    full = "-".join([name, *packed, *map(label, activations)])
    return jit.compiled(full, make, _signature(states))


def _signature(states: int) -> Signature:
    f1, f2, f3 = (types.Array(types.float32, d, "C") for d in (1, 2, 3))
    i1, mask = types.Array(types.int64, 1, "C"), types.Array(types.boolean, 2, "C")
    intp = types.intp
    absent = types.NamedTuple((i1, mask), Absent)
    weights = types.NamedTuple((f1, f1), Weights)
    share = types.NamedTuple((intp, intp, f1, i1), Share)
    states_BU, flag = types.UniTuple(f2, states), types.boolean
    return types.void(f3, absent, states_BU, f3, weights, flag, intp, intp, share)
