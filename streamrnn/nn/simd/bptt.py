"""Recurrent layers in training: a window forward, with its gates kept, and back through time.

Both passes sweep (`simd.sweep`) the lanes that have a step. All that a layer keeps lies in
one flat array, the tape; `TapeLayout` has the offsets. Its rows are time-major: row t*B + b is
step t of lane b. A row of *states* has h, then the other states, before the step. A row of *kept*
has the cell's gates; the backward pass replaces the gates with their gradients. Every vector of
units is `padded` floats long, a number that does not depend on the width of the CPU's vectors.

In the backward pass, the gradient of h is what reaches it directly (the lane's *carry*), plus the
gradients of the gates of the lane's next step times the recurrent weights, transposed. An absent
step passes the carry on.

In the backward pass, a cell gets the lane's carry in `old` (the gradient of h, then of the other
states, then the factors of h), the states before the step in `new`, the kept gates in `own`, and
the gradients of the next step's gates times the recurrent weights in `z`. It replaces the kept
gates by the gradients of their sums. The vectors of a row begin `padded` floats apart.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import types
from numba.core.typing.templates import Signature

from streamrnn.nn.simd.arguments import Factors, Kernel, TapeLayout
from streamrnn.nn.simd.jit import F1, F2, F3, I1, MASK, Inlined, inline, inline_always, kernel
from streamrnn.nn.simd.recurrent import LANES
from streamrnn.nn.simd.sweep import NEW, OLD, OWN, START, Sizes, Span, TileShape, X, sweep
from streamrnn.nn.simd.vector import load, make_copy, store

FED, SECOND, BLOCKS = 5, 6, 7
"""Blocks of `offsets` after the blocks that a sweep of floats reads: what the recurrent weights
multiply in the first and in the second sweep of a step. BLOCKS is the number of all blocks."""


class Pass(NamedTuple):
    """One sweep of a step, forward or back."""

    shape: TileShape
    cell: Inlined
    fed: int = 0
    """The first kept vector that the recurrent weights multiply: in the backward pass, and in a
    second sweep forward."""
    feeds: int = 0
    """Number of kept vectors that the recurrent weights multiply in the backward pass."""


class CellPasses(NamedTuple):
    """What a cell does in training.

    `states`: number of states, h first; `kept`: number of kept vectors in a row; `keeps_fed`:
    whether the h that the weights multiply is kept even if no dropout makes it differ from h.
    """

    forward: tuple[Pass, ...]
    back: tuple[Pass, ...]
    states: int
    kept: int
    keeps_fed: bool = False


class SweptCell(NamedTuple):
    """What makes the kernels of a cell: for a window, and for training unless `passes` is None.

    `window(n, vectors, word, *activations)`: for groups of `vectors` vectors of `n` units; `word`:
    number of weights in 32 bits, 1 (float32), 2 (int16) or 4 (int8). `passes(n, ahead, back,
    *activations)`: for groups of `ahead` vectors in forward sweeps, and of `back` vectors in
    backward sweeps.
    """

    window: Callable[..., Kernel]
    passes: Callable[..., CellPasses] | None = None


def back_shape(n: int, vectors: int) -> TileShape:
    """Return the tile shape of a backward sweep."""
    return TileShape(n, vectors, sums=1, x_into=(), h_into=(0,))


def forward(passes: CellPasses) -> Kernel:
    """Make the kernel that runs the lanes first..last through a window and fills their tape.

    It writes the inputs, with their dropout, to `fed_x` (rows of F floats, time-major), the output
    of each step to `y_BTU` (unless this is empty), and the final states to `states_BU`. `factors`
    has the factors of the inputs and of h; each may be empty.
    """
    shape, kept, count = passes.forward[0].shape, passes.kept, passes.states
    n, group, second = shape.n, shape.n * shape.vectors, passes.forward[-1].fed
    width, keeps_fed = _width(passes.forward), passes.keeps_fed
    step, multiply, copy = _forward_sweeps(passes.forward), _multiply(n), make_copy(n)

    @inline_always
    def enter(states_BU, h_mask, s, row, fed, per_row, b, units, padded):
        """Write the initial states of a lane."""
        s[row : row + per_row] = 0
        for k in range(count):
            copy(states_BU[k].reshape(-1), b * units, s, row + k * padded, units)
        if h_mask.size:
            multiply(s, row, h_mask, b * units, s, row + fed, units)
        elif keeps_fed:
            copy(s, row, s, row + fed, units)

    @inline_always
    def finish(h_mask, s, row, fed, b, units, padded):
        """Write the h that the next step multiplies."""
        if h_mask.size:
            multiply(s, row, h_mask, b * units, s, row + fed, units)
            s[row + fed + units : row + fed + padded] = 0
        elif keeps_fed:
            copy(s, row, s, row + fed, padded)

    @kernel
    def run(x_BTF, factors, mask_BT, states_BU, y_BTU, fed_x, s, places, w, zero_masked, span):
        lanes, T, features = x_BTF.shape
        units, padded = places.units, places.padded
        x, y = x_BTF.reshape(-1), y_BTU.reshape(-1)
        x_mask, h_mask = factors.x_BF.reshape(-1), factors.h_BU.reshape(-1)
        fed = count * padded if h_mask.size or keeps_fed else 0
        per_row = count * padded + (padded if fed else 0)
        first, last = span
        cap = min(LANES, last - first)
        offsets, live = np.zeros(BLOCKS * cap, np.int64), np.empty(cap, np.int64)
        z, groups = places.z + first * 6 * width, padded // group
        sizes = Sizes(features, units, groups, padded, cap, places.own)
        while first < last:
            end = min(first + LANES, last)
            for b in range(first, end):
                row = places.states + b * per_row
                enter(states_BU, h_mask, s, row, fed, per_row, b, units, padded)
            for t in range(T):
                rows = 0
                for b in range(first, end):
                    before = places.states + (t * lanes + b) * per_row
                    own = places.kept + (t * lanes + b) * kept * padded
                    i, j = (b * T + t) * features, (t * lanes + b) * features
                    if mask_BT.size and not mask_BT[b, t]:
                        copy(s, before, s, before + lanes * per_row, per_row)
                        s[own : own + kept * padded] = 0
                        fed_x[j : j + features] = 0
                        continue
                    if x_mask.size:
                        multiply(x, i, x_mask, b * features, fed_x, j, features)
                    else:
                        copy(x, i, fed_x, j, features)
                    offsets[X * cap + rows] = j
                    offsets[OLD * cap + rows] = before
                    offsets[NEW * cap + rows] = before + lanes * per_row
                    offsets[OWN * cap + rows] = own
                    offsets[FED * cap + rows] = before + fed
                    offsets[SECOND * cap + rows] = own + second * padded
                    live[rows] = b
                    rows += 1
                step(rows, Span(0, groups), sizes, s, z, offsets, fed_x, w)
                for row in range(rows):
                    finish(h_mask, s, offsets[NEW * cap + row], fed, live[row], units, padded)
                for b in range(first, end if y.size else first):
                    j = (b * T + t) * units
                    if zero_masked and mask_BT.size and not mask_BT[b, t]:
                        y[j : j + units] = 0
                    else:
                        copy(s, places.states + ((t + 1) * lanes + b) * per_row, y, j, units)
            for b in range(first, end):
                row = places.states + (T * lanes + b) * per_row
                for k in range(count):
                    copy(s, row + k * padded, states_BU[k].reshape(-1), b * units, units)
            first = end

    return run


def back(passes: CellPasses) -> Kernel:
    """Make the kernel that replaces the gates kept on the tape with their gradients.

    It goes back through the steps steps.low..steps.high; successive calls go from the last steps to
    the first. `dy_BTU`, `ends_BU`: the gradients of each h and of the final states, or empty.
    `later_B`: for each lane, the offset of the gates of its next step, kept between calls.
    """
    shape, kept, count = passes.back[0].shape, passes.kept, passes.states
    n, group, fed = shape.n, shape.n * shape.vectors, passes.back[0].fed
    width, second, keeps_fed = _width(passes.back), passes.back[-1].fed, passes.keeps_fed
    step, add, copy = _back_sweeps(passes.back), _add(n), make_copy(n)

    @inline_always
    def enter(ends_BU, h_mask, s, carry, b, units, padded):
        """Write the gradients that reach the final states of a lane, and its factors of h."""
        last = carry + count * padded
        s[carry:last] = 0
        s[last : last + padded] = 1
        for k in range(count):
            if ends_BU[k].size:
                copy(ends_BU[k].reshape(-1), b * units, s, carry + k * padded, units)
        if h_mask.size:
            copy(h_mask, b * units, s, last, units)

    @kernel
    def run(dy_BTU, factors, mask_BT, ends_BU, s, places, w, zero_masked, T, later_B, steps, span):
        lanes, units, padded = places.lanes, places.units, places.padded
        dy, h_mask = dy_BTU.reshape(-1), factors.h_BU.reshape(-1)
        per_row = (count + (1 if h_mask.size or keeps_fed else 0)) * padded
        per_lane = (count + 1) * padded
        first, last = span
        cap = min(LANES, last - first)
        offsets = np.zeros(BLOCKS * cap, np.int64)
        offsets[START * cap : (START + 1) * cap] = places.zeros
        z, groups = places.z + first * 6 * width, padded // group
        while first < last:
            end = min(first + LANES, last)
            for b in range(first, end if steps.high == T else first):
                enter(ends_BU, h_mask, s, places.carry + b * per_lane, b, units, padded)
                later_B[b] = places.zeros
            for t in range(steps.high - 1, steps.low - 1, -1):
                rows = 0
                for b in range(first, end):
                    present = not mask_BT.size or mask_BT[b, t]
                    carry = places.carry + b * per_lane
                    if dy.size and (present or not zero_masked):
                        add(dy, (b * T + t) * units, s, carry, units)
                    if not present:
                        continue
                    own = places.kept + (t * lanes + b) * kept * padded
                    offsets[OLD * cap + rows] = carry
                    offsets[NEW * cap + rows] = places.states + (t * lanes + b) * per_row
                    offsets[OWN * cap + rows] = own
                    offsets[FED * cap + rows] = later_B[b] + fed * padded
                    offsets[SECOND * cap + rows] = own + second * padded
                    later_B[b] = own
                    rows += 1
                step(rows, Span(0, groups), places, cap, s, z, offsets, w)
            first = end

    return run


def _width(passes: tuple[Pass, ...]) -> int:
    """Return the number of floats in a row of the widest tile."""
    return max(one.shape.group for one in passes)


def _forward_sweeps(passes: tuple[Pass, ...]) -> Inlined:
    """Make the function that runs the forward sweeps of a step: one or two."""
    first, last = passes[0], passes[-1]
    run, shape = sweep(first.shape, first.cell, FED), first.shape
    if len(passes) == 1:

        @inline_always
        def one(rows, span, sizes, s, z, offsets, x, w):
            run(rows, span, sizes, s, z, offsets, 0, x, sizes.features, w, 0)

        return one
    rerun, group = sweep(last.shape, last.cell, SECOND), first.shape.group
    x_step, h_step = shape.x_step, shape.h_step

    @inline_always
    def both(rows, span, sizes, s, z, offsets, x, w):
        run(rows, span, sizes, s, z, offsets, 0, x, sizes.features, w, 0)
        start = sizes.groups * group
        j = sizes.groups * (sizes.features * x_step + sizes.units * h_step)
        rerun(rows, span, sizes, s, z, offsets, start, x, sizes.features, w, j)

    return both


def _back_sweeps(passes: tuple[Pass, ...]) -> Inlined:
    """Make the function that runs the backward sweeps of a step: one or two."""
    first, last = passes[0], passes[-1]
    run, count, h_step = sweep(first.shape, first.cell, FED), first.feeds, first.shape.h_step
    if len(passes) == 1:

        @inline_always
        def one(rows, span, places, cap, s, z, offsets, w):
            padded = places.padded
            sizes = Sizes(0, count * padded, span.high, padded, cap, places.own)
            run(rows, span, sizes, s, z, offsets, 0, s, 0, w, 0)

        return one
    rerun, others = sweep(last.shape, last.cell, SECOND), last.feeds

    @inline_always
    def both(rows, span, places, cap, s, z, offsets, w):
        padded = places.padded
        sizes = Sizes(0, count * padded, span.high, padded, cap, places.own)
        run(rows, span, sizes, s, z, offsets, 0, s, 0, w, 0)
        j = span.high * count * padded * h_step
        more = Sizes(0, others * padded, span.high, padded, cap, places.own)
        rerun(rows, span, more, s, z, offsets, 0, s, 0, w, j)

    return both


def _multiply(n: int) -> Inlined:
    """Make `multiply(a, i, b, j, target, k, count)`: target.flat[k:] = a.flat[i:] * b.flat[j:]."""

    @inline
    def multiply(a, i, b, j, target, k, count):
        whole = count - count % n
        for u in range(0, whole, n):
            store(target, k + u, load(a, i + u, n) * load(b, j + u, n))
        for u in range(whole, count):
            target[k + u] = a[i + u] * b[j + u]

    return multiply


def _add(n: int) -> Inlined:
    """Make `add(source, i, target, j, count)`, which adds `count` elements.

    target.flat[j:j+count] += source.flat[i:i+count].
    """

    @inline
    def add(source, i, target, j, count):
        whole = count - count % n
        for u in range(0, whole, n):
            store(target, j + u, load(target, j + u, n) + load(source, i + u, n))
        for u in range(whole, count):
            target[j + u] += source[i + u]

    return add


def signatures(states: int) -> tuple[Signature, Signature]:
    """Return the signatures of the forward and the back kernel of a cell with `states` states."""
    flag, intp, factors = types.boolean, types.intp, types.NamedTuple((F2, F2), Factors)
    places = types.NamedUniTuple(intp, len(TapeLayout._fields), TapeLayout)
    states_BU, span = types.UniTuple(F2, states), types.NamedUniTuple(intp, 2, Span)
    return (
        types.void(F3, factors, MASK, states_BU, F3, F1, F1, places, F1, flag, span),
        types.void(F3, factors, MASK, states_BU, F1, places, F1, flag, intp, I1, span, span),
    )
