"""The loop over lanes and steps that all recurrent kernels share.

Each lane has two places for h in the scratch array and writes them in turn, so a step never
overwrites what another group of units still reads, and an absent or masked step touches nothing.
At each step the live lanes are listed, and only those are swept.

Threads take lanes each. A few lanes of many units are taken by several together (`parts`): each
has its units, and after each step they meet. Where other work holds their cores a meeting takes
longer than a step: then the first goes on alone.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from streamrnn.kernels.jit import kernel, merge
from streamrnn.kernels.meeting import FOREVER, count, watch
from streamrnn.kernels.sweep import NEW, OLD, OWN, START, Shape, X, project, sweep
from streamrnn.kernels.vector import copier

LANES = 96
"""Lanes that go through all steps before the next: what is kept of them stays in the second cache.
8192 lanes of 64 units, one step: 0.58 -> 0.51 µs a lane."""

BLOCK = 24
"""Steps whose inputs a lone lane adds at once: the input's weights are then read once for a tile of
six steps, not once a step. 64 units: 0.93 -> 0.75 µs a step. Two lanes are faster without."""


PATIENCE, START_PATIENCE = 50, 1000
"""Looks in vain, each of which let others run (0.3 µs), before the first thread goes on alone; and
those before the first step, as a thread that slept takes longer to come. For each other thread."""

UNEVEN = 15_000
"""Products of a thread that excuse one such look: half as long as they take."""

NO_MEETING = 1 << 60
"""A count at which nobody waits for anybody."""

ALONE = 2
"""Where the array `gate` says after which meeting it does; before that, what `watch` needs."""


@merge
def meet(gate, arrived):
    """Wait until as many have come: of n threads the k-th meeting expects n*k."""
    count(gate)
    watch(gate, arrived, FOREVER)


class Phase(NamedTuple):
    """One sweep of a step."""

    shape: Shape
    cell: Any
    operand: int = OLD
    """Which part of a row the recurrent weights multiply."""


def window(phases: tuple[Phase, ...], others: int) -> Any:
    """The kernel that takes lanes first..last through all steps of a window.

    `others`: how many vectors of a lane's length a cell keeps beside h (`own`). With `parts` > 1
    this thread is one of those that take these lanes together, and `shared` is their scratch.
    """
    n, vectors = phases[0].shape.n, phases[0].shape.vectors
    step, prepare = _step(phases), _prepare(phases)
    width = vectors * sum(phase.shape.sums for phase in phases)
    copy, sweeps = copier(n), len(phases)

    @merge
    def absent(lengths_B, mask_BT, lane, t):
        """0 where the lane takes this step, 1 where it is masked, 2 where it is past the length."""
        if lengths_B.size and t >= lengths_B[lane]:
            return 2
        return 1 if mask_BT.size and not mask_BT[lane, t] else 0

    @merge
    def most_steps(lengths_B, T, first, lanes):
        steps = 0 if lengths_B.size else T
        for lane in range(lanes if lengths_B.size else 0):
            steps = max(steps, min(lengths_B[first + lane], T))
        return steps

    @merge
    def enter(h, c, s, state, units, padded, first, lanes):
        """Copy the states of the lanes into the scratch array."""
        for lane in range(first, first + lanes):
            copy(h, lane * units, s, state, units)
            if c.size:
                copy(c, lane * units, s, state + 2 * padded, units)
            state += (2 + others) * padded

    @merge
    def leave(h, c, s, state, units, padded, first, lanes, slot):
        """Copy the states of the lanes back to where they came from."""
        for lane in range(lanes):
            copy(s, state + slot[lane] * padded, h, (first + lane) * units, units)
            if c.size:
                copy(s, state + 2 * padded, c, (first + lane) * units, units)
            state += (2 + others) * padded

    @merge
    def list_block(lengths_B, mask_BT, lane, t, end, T, features, at, cap, inputs, sums):
        """List the steps t..end of a lone lane that are there; the sums of t begin at `inputs`."""
        rows = 0
        for later in range(t, end):
            if absent(lengths_B, mask_BT, lane, later) == 0:
                at[START * cap + rows] = 0
                at[X * cap + rows] = (lane * T + later) * features
                at[NEW * cap + rows] = inputs + (later - t) * sums
                rows += 1
        return rows

    @merge
    def list_state(at, cap, row, state, slot, padded):
        """The row's states: it reads the one of two places for h, and writes the other."""
        at[OLD * cap + row] = state + slot * padded
        at[NEW * cap + row] = state + (1 - slot) * padded
        at[OWN * cap + row] = state + 2 * padded

    @kernel
    def run(
        x_BTF, lengths_B, mask_BT, h_BU, c_BU, y_BTU, w, bias, first, last, zero_masked,
        part, parts, shared, gate,
    ):  # fmt: skip
        T, features, units = x_BTF.shape[1], x_BTF.shape[2], h_BU.shape[1]
        x, h, c, y = x_BTF.reshape(-1), h_BU.reshape(-1), c_BU.reshape(-1), y_BTU.reshape(-1)
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        sums = groups * width * n
        alone = last - first == 1 and T > 1
        fed = 0 if alone else features
        low, high = groups * part // parts, groups * (part + 1) // parts
        uneven = max(1, (last - first) * w.size // (parts * UNEVEN))
        met = 0

        # The scratch array: the bias, a tile's sums, the lanes' states, and inputs: a lone lane's
        # sums of a block of steps, or what all lanes get at this step.
        room = min(LANES, last - first)
        z = sums + part * 6 * width * n
        states = sums + parts * 6 * width * n
        per_lane = (2 + others) * padded
        inputs = states + room * per_lane
        total = inputs + (BLOCK * sums if alone else parts * room * features)
        inputs += 0 if alone else part * room * features
        raw = shared if parts > 1 else np.zeros(total + 16, np.float32)
        s = raw[(64 - raw.ctypes.data % 64) % 64 // 4 :]
        cap = max(room, BLOCK)
        at = np.zeros(5 * cap, np.int64)
        slot = np.zeros(room, np.int64)
        live = np.empty(room, np.int64)

        copy(bias, 0, s, 0, sums)  # by all who take part: they write the same
        while first < last:
            lanes = min(LANES, last - first)
            steps = most_steps(lengths_B, T, first, lanes)
            slot[:] = 0
            if part == 0:
                enter(h, c, s, states, units, padded, first, lanes)
            if parts > 1:
                met += parts
                meet(gate, met)
                if part == 0 and gate[1] < START_PATIENCE * (parts - 1):
                    gate[1] = 0
            for t in range(steps):
                if alone and t % BLOCK == 0:
                    end = min(t + BLOCK, steps)
                    rows = list_block(
                        lengths_B, mask_BT, first, t, end, T, features, at, cap, inputs, sums
                    )
                    prepare(rows, low, high, groups, s, at, cap, x, features, units, w)
                rows = 0
                for lane in range(lanes):
                    place = (first + lane) * T + t
                    state = states + lane * per_lane
                    why = absent(lengths_B, mask_BT, first + lane, t)
                    if why == 0:
                        if alone:
                            at[START * cap] = inputs + t % BLOCK * sums
                        else:
                            at[X * cap + rows] = inputs + rows * features
                            copy(x, place * features, s, inputs + rows * features, features)
                        list_state(at, cap, rows, state, slot[lane], padded)
                        live[rows] = lane
                        rows += 1
                    elif why == 1 and y.size and part == 0:
                        copy(s, state + slot[lane] * padded, y, place * units, units)
                        if zero_masked:
                            y[place * units : (place + 1) * units] = 0
                step(
                    rows, low, high, groups, s, z, at, cap, s, fed, features, units, w,
                    parts, gate, met,
                )  # fmt: skip
                if parts > 1:
                    met += parts * sweeps
                    if part == 0 and gate[1] > (PATIENCE + (t + 1) * uneven) * (parts - 1):
                        gate[ALONE] = met
                    meet(gate, met)
                    if gate[ALONE] == met:  # not what the first may already say of the next step
                        if part:
                            return
                        parts, low, high = 1, 0, groups
                for row in range(rows):
                    slot[live[row]] = 1 - slot[live[row]]
                    if y.size and part == 0:
                        place = (first + live[row]) * T + t
                        copy(s, at[NEW * cap + row], y, place * units, units)
            if part == 0:
                leave(h, c, s, states, units, padded, first, lanes, slot)
            first += lanes

    return run


def scratch(bias: int, lanes: int, features: int, parts: int) -> int:
    """Floats of the scratch array that `parts` threads share; `bias`: those of the packed bias."""
    # The bias and a tile's sums; of each lane h twice and at most one other state; its inputs.
    return (1 + 6 * parts + 3 * lanes) * bias + max(BLOCK * bias, parts * lanes * features) + 16


def _step(phases: tuple[Phase, ...]) -> Any:
    """All sweeps of a step, one after the other; threads that take a lane together meet between."""
    first, *more = (sweep(phase.shape, phase.cell, phase.operand) for phase in phases)
    if not more:

        @merge
        def one(
            rows, low, high, groups, s, z, at, cap, x, fed, features, units, w, parts, gate, met
        ):
            first(rows, low, high, s, z, at, cap, 0, x, fed, features, units, w, 0)

        return one
    (second,) = more
    group, x_step, h_step = phases[0].shape.group, phases[0].shape.x_step, phases[0].shape.h_step

    @merge
    def two(rows, low, high, groups, s, z, at, cap, x, fed, features, units, w, parts, gate, met):
        first(rows, low, high, s, z, at, cap, 0, x, fed, features, units, w, 0)
        if parts > 1:
            meet(gate, met + parts)
        start, j = groups * group, groups * (features * x_step + units * h_step)
        second(rows, low, high, s, z, at, cap, start, x, fed, features, units, w, j)

    return two


def _prepare(phases: tuple[Phase, ...]) -> Any:
    """The projections for all sweeps of a step."""
    first, *more = (project(phase.shape) for phase in phases)
    if not more:

        @merge
        def one(rows, low, high, groups, s, at, cap, x, features, units, w):
            first(rows, low, high, s, at, cap, 0, x, features, units, w, 0)

        return one
    (second,) = more
    group, x_step, h_step = phases[0].shape.group, phases[0].shape.x_step, phases[0].shape.h_step

    @merge
    def two(rows, low, high, groups, s, at, cap, x, features, units, w):
        first(rows, low, high, s, at, cap, 0, x, features, units, w, 0)
        start, j = groups * group, groups * (features * x_step + units * h_step)
        second(rows, low, high, s, at, cap, start, x, features, units, w, j)

    return two


def signature() -> Any:
    """Types of the arguments of a window kernel."""
    f1, f2, f3 = (types.Array(types.float32, d, "C") for d in (1, 2, 3))
    i1, mask = types.Array(types.int64, 1, "C"), types.Array(types.boolean, 2, "C")
    intp, flag = types.intp, types.boolean
    return types.void(f3, i1, mask, f2, f2, f3, f1, f1, intp, intp, flag, intp, intp, f1, i1)
