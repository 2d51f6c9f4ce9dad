"""The loop over lanes and steps that all recurrent kernels share.

Each step sweeps the lanes that have a row at this step (`simd.lanes`).

Lanes are divided among threads. A few lanes of many units are shared by several threads (`shares`):
each computes some of the units, and a barrier ends each step. If other processes occupy the cores,
waiting at the barrier takes longer than a step: then the first thread finishes alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel, Share
from streamrnn.nn.simd.jit import F1, F2, F3, I1, Inlined, inline_always, kernel, uncounted
from streamrnn.nn.simd.lanes import (
    ABSENT_TYPE,
    LanePlaces,
    LaneRange,
    advance,
    list_block,
    list_rows,
    make_moves,
    most_steps,
)
from streamrnn.nn.simd.names import Spec, label, packed_name
from streamrnn.nn.simd.spin_barrier import FOREVER, increment, spin_until
from streamrnn.nn.simd.sweep import (
    NEW,
    OLD,
    OWN,
    START,
    WEIGHTS_TYPE,
    Sizes,
    Span,
    TileShape,
    X,
    make_pack_inputs,
    make_pack_states,
    make_packed_floats,
    make_steps,
    project,
    sweep,
)
from streamrnn.nn.simd.vector import make_copy

LANES = 96
"""Lanes that pass through all steps before the next ones: their states stay in the L2 cache.
8192 lanes of 64 units, one step: 0.58 -> 0.51 µs a lane."""

BLOCK = 24
"""Steps whose inputs a lone lane adds at once: the input's weights are then read once per tile of
up to six steps, not once per step. 64 units: 0.93 -> 0.75 µs a step. Two lanes are faster without
it."""

PATIENCE, START_PATIENCE = 50, 1000
"""Number of failed polls per other thread, with a yield of the core each (0.3 µs), after which the
first thread finishes alone. Fewer than START_PATIENCE before the first step do not count, as a
sleeping thread takes longer to arrive."""

UNEVEN = 15_000
"""Number of products of a thread in a step for which one more failed poll is allowed. The poll
takes half as long as these products."""

RELEASE_ALL = 1 << 60
"""The count that releases every waiter."""

ALONE = 2
"""Index in `barrier` of the number of arrivals after which the first thread finishes alone; the
elements before it belong to `spin_until`."""


@inline_always
def barrier_wait(barrier, arrived):
    """Arrive, and wait for `arrived` arrivals: n threads expect n*k at their k-th barrier."""
    increment(barrier)
    spin_until(barrier, arrived, FOREVER)


class Phase(NamedTuple):
    """One sweep of a step."""

    shape: TileShape
    cell: Inlined
    operand: int = OLD
    """The part of a row that the recurrent weights multiply."""


def window(
    phases: tuple[Phase, ...], states: int, kept: int = 0, row: Inlined | None = None
) -> Kernel:
    """Make the kernel that runs the lanes first..last, or a share of them, through a window.

    `states`: number of states per lane, h first. `kept`: number of vectors of units that a cell
    keeps from one phase of a step to the next. A row's other states begin at `own`, followed by the
    kept vectors. `row(s, z, old, new, own, unit, units, padded)` ends a step with all units of a
    row at once; the first `units` of the `padded` are valid, and `z` has room for the sums of six
    groups.
    """
    n, vectors, word = phases[0].shape.n, phases[0].shape.vectors, phases[0].shape.word
    width = vectors * sum(phase.shape.sums for phase in phases)
    lane_vectors, packed_floats = states + 1 + kept, make_packed_floats(word)
    pass_steps = _pass_steps(phases, row)

    @kernel
    def run(x_BTF, absent, states_BU, y_BTU, weights, zero_masked, first, last, share):
        number, shares = share.number, share.shares
        T, features, units = x_BTF.shape[1], x_BTF.shape[2], states_BU[0].shape[1]
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        sums = groups * width * n
        alone = last - first == 1 and T > 1

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
        offsets, current = np.zeros(6 * cap, np.int64), np.empty(room, np.int64)
        listed, place = np.empty(room, np.int64), np.empty(room, np.int64)
        pass_steps(
            x_BTF,
            absent,
            states_BU,
            y_BTU.reshape(-1),
            weights,
            zero_masked,
            LaneRange(first, last, offsets, current, listed, place),
            share,
            s,
            LanePlaces(z, states, per_lane, inputs),
            Sizes(features, units, groups, padded, cap, sums, packed),
        )

    return run


def scratch(
    unit: int, lanes: int, features: int, shares: int, lane_vectors: int, word: int = 1
) -> int:
    """Return an upper bound on the size, in floats, of the scratch array of `shares` threads.

    `unit` is the number of floats in the units' initial sums and own weights, at least as many
    as a vector of units has. `lane_vectors` is the number of vectors of a lane: h twice, the other
    states and the kept vectors. `word` is as in TileShape.
    """
    inputs = max(BLOCK * unit, shares * lanes * features)
    floats = (1 + 6 * shares + lane_vectors * lanes) * unit + inputs + 16
    if word == 1:
        return floats
    return floats + shares * (features + max(lanes, BLOCK) * (features + 2) + lanes * (unit + 2))


def _pass_steps(phases: tuple[Phase, ...], row: Inlined | None) -> Inlined:
    """Make the function that passes lanes.first..lanes.last through their steps."""
    n, word = phases[0].shape.n, phases[0].shape.word
    step, barriers = _step(phases, row), len(phases) + (row is not None)
    read_inputs, add_block = _read_inputs(n, word), _add_block(phases)
    copy, (enter, leave, hold) = make_copy(n), make_moves(n)

    @uncounted
    def pass_steps(x_BTF, absent, states_BU, y, weights, zero_masked, lanes, share, s, at, sizes):
        number, shares, barrier = share.number, share.shares, share.barrier
        first, last, offsets, current, listed, place = lanes
        T, units, cap = x_BTF.shape[1], sizes.units, sizes.cap
        x, w = x_BTF.reshape(-1), weights.flat
        alone = last - first == 1 and T > 1
        fed = 0 if alone else sizes.features
        sums = sizes.unit  # as many as the initial sums, which end at that offset
        uneven = max(1, (last - first) * w.size // (shares * UNEVEN))
        span = Span(sizes.groups * number // shares, sizes.groups * (number + 1) // shares)
        arrived = 0

        copy(weights.unit, 0, s, 0, weights.unit.size)  # by every thread: all write the same
        while first < last:
            count = min(LANES, last - first)
            steps = most_steps(absent, T, first, count)
            for lane in range(count):
                current[lane] = at.states + lane * at.per_lane
            if number == 0:
                enter(states_BU, s, at, sizes, first, count)
            if shares > 1:
                arrived += shares
                barrier_wait(barrier, arrived)
                if number == 0 and barrier[1] < START_PATIENCE * (shares - 1):
                    barrier[1] = 0
            rows = until = end = 0
            for t in range(steps):
                if alone and t % BLOCK == 0:
                    end = min(t + BLOCK, steps)
                    rows = list_block(absent, first, t, end, T, sizes, offsets, at.inputs, sums)
                    add_block(rows, span, sizes, s, offsets, x, w)
                if t < until:
                    advance(rows, offsets, cap, place)
                else:
                    rows, until = list_rows(absent, lanes, first, count, t, T, at, sizes)
                if absent.mask_BT.size and y.size and number == 0:
                    hold(absent, first, count, t, T, s, current, y, units, zero_masked)
                if alone:
                    until = min(until, end)  # the list of the next block takes the place of the row
                    offsets[START * cap] = at.inputs + t % BLOCK * sums
                else:
                    read_inputs(x, rows, s, sizes, offsets, place, at)
                step(rows, span, sizes, s, at.z, offsets, 0, fed, w, 0, share, shares, arrived)
                if shares > 1:
                    arrived += shares * barriers
                    if number == 0 and barrier[1] > (PATIENCE + (t + 1) * uneven) * (shares - 1):
                        barrier[ALONE] = arrived
                    barrier_wait(barrier, arrived)
                    # Equal, not at least: the first thread may have set it for the next step.
                    if barrier[ALONE] == arrived:
                        if number:
                            return
                        shares, span = 1, Span(0, sizes.groups)
                if y.size and number == 0:
                    for row in range(rows):
                        copy(s, offsets[NEW * cap + row], y, place[row] * units, units)
                if t + 1 >= until:
                    for row in range(rows):
                        current[listed[row]] = offsets[NEW * cap + row]
            if number == 0:
                leave(states_BU, s, at, sizes, first, count, current)
            first += count

    return pass_steps


def _read_inputs(n: int, word: int) -> Inlined:
    """Make the function that reads the inputs of the rows of a step."""
    copy, pack_inputs = make_copy(n), make_pack_inputs(n, word)

    @inline_always
    def read_inputs(x, rows, s, sizes, offsets, place, at):
        features, cap = sizes.features, sizes.cap
        for row in range(rows):
            i, j = place[row] * features, at.inputs + row * features
            if word > 1:
                pack_inputs(x, i, s, sizes, offsets, row)
            else:
                offsets[X * cap + row] = j
                copy(x, i, s, j, features)

    return read_inputs


def _add_block(phases: tuple[Phase, ...]) -> Inlined:
    """Make the function that adds the inputs of a block of steps of a lone lane."""
    word, prepare = phases[0].shape.word, _prepare(phases)
    pack_inputs = make_pack_inputs(phases[0].shape.n, word)

    @inline_always
    def add_block(rows, span, sizes, s, offsets, x, w):
        if word == 1:
            prepare(rows, span, sizes, s, offsets, 0, x, w, 0)
        else:
            for row in range(rows):
                pack_inputs(x, offsets[X * sizes.cap + row], s, sizes, offsets, row)
            prepare(rows, span, sizes, s, offsets, 0, s, w, 0)

    return add_block


def _step(phases: tuple[Phase, ...], row: Inlined | None) -> Inlined:
    """Make the function that runs the phases of a step; threads that share lanes wait in between.

    `shares` is 1 once the first thread finishes alone.
    """
    if not phases:
        assert row is not None

        @inline_always
        def rows_of(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived):
            cap = sizes.cap
            for r in range(share.number, rows, shares):
                old, new = offsets[OLD * cap + r], offsets[NEW * cap + r]
                own = offsets[OWN * cap + r]
                row(s, z, old, new, own, sizes.unit, sizes.units, sizes.padded)

        return rows_of
    (shape, cell, operand), *more = phases
    run, word = sweep(shape, cell, operand), shape.word
    pack_states = make_pack_states(shape.n, word, operand)

    @inline_always
    def first(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived):
        if word > 1:
            pack_states(rows, s, sizes, offsets)
        run(rows, span, sizes, s, z, offsets, start, s, fed, w, j)

    if not more and row is None:
        return first
    rest, steps = _step(tuple(more), row), make_steps(word)
    group, x_step, h_step = shape.group, shape.x_step, shape.h_step

    @inline_always
    def several(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived):
        first(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived)
        if shares > 1:
            barrier_wait(share.barrier, arrived + shares)
        start += sizes.groups * group
        j += sizes.groups * (steps(sizes.features) * x_step + steps(sizes.units) * h_step)
        rest(rows, span, sizes, s, z, offsets, start, fed, w, j, share, shares, arrived + shares)

    return several


def _prepare(phases: tuple[Phase, ...]) -> Inlined:
    """Make the function that adds the inputs for all phases of a step."""
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
    name: str, activations: tuple[Spec, ...], states: int, make: Callable[[], Kernel], word: int = 1
) -> Kernel:
    """Return the machine code of the window kernel that `make` makes, for this number of states."""
    intp = types.intp
    share = types.NamedTuple((intp, intp, F1, I1), Share)
    window_of = (F3, ABSENT_TYPE, types.UniTuple(F2, states), F3, WEIGHTS_TYPE, types.boolean)
    full = "-".join([packed_name(name, word), *map(label, activations)])
    return jit.compiled(full, make, types.void(*window_of, intp, intp, share))
