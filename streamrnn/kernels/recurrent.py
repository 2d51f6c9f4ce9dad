"""The loop over lanes and steps that all recurrent kernels share.

Each lane has two places for h in the scratch array and writes them in turn, so a step never
overwrites what another group of units still reads, and an absent or masked step touches nothing.
At each step the live lanes are listed, and only those are swept.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from streamrnn.kernels.jit import kernel, merge
from streamrnn.kernels.sweep import NEW, OLD, OWN, START, Shape, X, project, sweep
from streamrnn.kernels.vector import copier

FEW_LANES = 4
"""Up to so many lanes, inputs are projected for many steps at once: their weights are read once
for six steps, not once a step. One lane of 64 units: 0.93 -> 0.75 µs a step."""
PROJECTED_ROWS = 24


class Phase(NamedTuple):
    """One sweep of a step."""

    shape: Shape
    cell: Any
    operand: int = OLD
    """Which part of a row the recurrent weights multiply."""


def window(phases: tuple[Phase, ...], others: int) -> Any:
    """The kernel that takes lanes first..last through all steps of a window.

    `others`: how many vectors of a lane's length a cell keeps beside h (`own`).
    """
    n, vectors = phases[0].shape.n, phases[0].shape.vectors
    step, prepare = _step(phases), _prepare(phases)
    width = vectors * sum(phase.shape.sums for phase in phases)
    copy = copier(n)

    @kernel
    def run(x_BTF, lengths_B, mask_BT, h_BU, c_BU, y_BTU, w, bias, first, last, zero_masked):
        steps_all, features = x_BTF.shape[1], x_BTF.shape[2]
        units, lanes = h_BU.shape[1], last - first
        x, h, c, y = x_BTF.reshape(-1), h_BU.reshape(-1), c_BU.reshape(-1), y_BTU.reshape(-1)
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        per_lane = (2 + others) * padded
        sums = groups * width * n

        steps = steps_all
        if lengths_B.size:
            steps = 0
            for lane in range(first, last):
                steps = max(steps, lengths_B[lane])
        few = lanes <= FEW_LANES and steps > 1
        block = PROJECTED_ROWS // lanes if few else 1
        cap = max(lanes, PROJECTED_ROWS)

        # scratch: the bias, a tile's sums, lanes' states, projected or gathered inputs
        z = sums
        state = z + 6 * width * n
        inputs = state + lanes * per_lane
        total = inputs + (lanes * block * sums if few else lanes * features)
        raw = np.zeros(total + 16, np.float32)
        s = raw[(64 - raw.ctypes.data % 64) % 64 // 4 :]
        at = np.zeros(5 * cap, np.int64)
        slot = np.zeros(lanes, np.int64)
        live = np.empty(lanes, np.int64)

        copy(bias, 0, s, 0, sums)
        for lane in range(lanes):
            copy(h, (first + lane) * units, s, state + lane * per_lane, units)
            if c.size:
                copy(c, (first + lane) * units, s, state + lane * per_lane + 2 * padded, units)

        for begin in range(0, steps, block):
            end = min(steps, begin + block)
            if few:
                rows = 0
                for lane in range(lanes):
                    stop = end
                    if lengths_B.size:
                        stop = min(end, lengths_B[first + lane])
                    for t in range(begin, stop):
                        if mask_BT.size == 0 or mask_BT[first + lane, t]:
                            at[X * cap + rows] = ((first + lane) * steps_all + t) * features
                            at[NEW * cap + rows] = inputs + (lane * block + t - begin) * sums
                            rows += 1
                for row in range(rows):
                    at[START * cap + row] = 0
                prepare(rows, groups, s, at, cap, 0, x, features, units, w, 0)
            for t in range(begin, end):
                rows = 0
                for lane in range(lanes):
                    if lengths_B.size and t >= lengths_B[first + lane]:
                        continue
                    base = state + lane * per_lane
                    now = base + slot[lane] * padded
                    if mask_BT.size and not mask_BT[first + lane, t]:
                        if y.size:
                            where = ((first + lane) * steps_all + t) * units
                            if zero_masked:
                                y[where : where + units] = 0
                            else:
                                copy(s, now, y, where, units)
                        continue
                    if few:
                        at[START * cap + rows] = inputs + (lane * block + t - begin) * sums
                    else:
                        where = inputs + rows * features
                        copy(x, ((first + lane) * steps_all + t) * features, s, where, features)
                        at[X * cap + rows] = where
                    at[OLD * cap + rows] = now
                    at[NEW * cap + rows] = base + (1 - slot[lane]) * padded
                    at[OWN * cap + rows] = base + 2 * padded
                    live[rows] = lane
                    rows += 1
                fed = 0 if few else features
                step(rows, groups, s, z, at, cap, 0, s, fed, features, units, w, 0)
                for row in range(rows):
                    lane = live[row]
                    slot[lane] = 1 - slot[lane]
                    if y.size:
                        where = ((first + lane) * steps_all + t) * units
                        copy(s, at[NEW * cap + row], y, where, units)

        for lane in range(lanes):
            base = state + lane * per_lane
            copy(s, base + slot[lane] * padded, h, (first + lane) * units, units)
            if c.size:
                copy(s, base + 2 * padded, c, (first + lane) * units, units)

    return run


def _step(phases: tuple[Phase, ...]) -> Any:
    """All sweeps of a step, one after the other."""
    first, *more = (sweep(phase.shape, phase.cell, phase.operand) for phase in phases)
    if not more:
        return first
    (second,) = more
    group, x_step, h_step = phases[0].shape.group, phases[0].shape.x_step, phases[0].shape.h_step

    @merge
    def both(rows, groups, s, z, at, cap, start, x, fed, features, units, w, j):
        first(rows, groups, s, z, at, cap, start, x, fed, features, units, w, j)
        start += groups * group
        j += groups * (features * x_step + units * h_step)
        second(rows, groups, s, z, at, cap, start, x, fed, features, units, w, j)

    return both


def _prepare(phases: tuple[Phase, ...]) -> Any:
    """The projections for all sweeps of a step."""
    first, *more = (project(phase.shape) for phase in phases)
    if not more:
        return first
    (second,) = more
    group, x_step, h_step = phases[0].shape.group, phases[0].shape.x_step, phases[0].shape.h_step

    @merge
    def both(rows, groups, s, at, cap, start, x, features, units, w, j):
        first(rows, groups, s, at, cap, start, x, features, units, w, j)
        start += groups * group
        j += groups * (features * x_step + units * h_step)
        second(rows, groups, s, at, cap, start, x, features, units, w, j)

    return both


def signature() -> Any:
    """Types of the arguments of a window kernel."""
    f1, f2, f3 = (types.Array(types.float32, d, "C") for d in (1, 2, 3))
    lengths, mask = types.Array(types.int64, 1, "C"), types.Array(types.boolean, 2, "C")
    return types.void(f3, lengths, mask, f2, f2, f3, f1, f1, types.intp, types.intp, types.boolean)
