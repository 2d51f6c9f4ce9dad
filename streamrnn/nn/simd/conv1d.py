"""Causal 1-D convolution over a window of lanes."""

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.dense import linear
from streamrnn.nn.simd.jit import F3, kernel
from streamrnn.nn.simd.lanes import ABSENT_TYPE
from streamrnn.nn.simd.names import Spec, label, packed_name
from streamrnn.nn.simd.sweep import (
    NEW,
    WEIGHTS_TYPE,
    Sizes,
    Span,
    X,
    make_pack_inputs,
    make_packed_floats,
)
from streamrnn.nn.simd.vector import make_copy

ROWS = 48
"""Steps of a lane that pass through all units before the next ones."""


def entry(n: int, vectors: int, word: int, activation: Spec) -> Kernel:
    """Return the kernel for groups of `vectors` vectors of `n` floats. `word`: as in TileShape.

    Called as `(x_BTF, absent, state_BCF, y_BTU, weights, taps, dilation, first, last)`.
    """
    name = f"{packed_name('conv1d', word)}-{n}x{vectors}-{label(activation)}"
    signature = types.void(F3, ABSENT_TYPE, F3, F3, WEIGHTS_TYPE, *[types.intp] * 4)
    return jit.compiled(name, lambda: _kernel(n, vectors, word, activation), signature)


def _kernel(n: int, vectors: int, word: int, activation: Spec) -> Kernel:
    copy, multiply = make_copy(n), linear(n, vectors, word, activation)
    packed_floats, pack_inputs = make_packed_floats(word), make_pack_inputs(n, word)

    @kernel
    def conv1d(x_BTF, absent, state_BCF, y_BTU, weights, taps, dilation, first, last):
        lengths_B, mask_BT, w = absent.lengths_B, absent.mask_BT, weights.flat
        steps, features = x_BTF.shape[1], x_BTF.shape[2]
        units = y_BTU.shape[2]
        x, y, state = x_BTF.reshape(-1), y_BTU.reshape(-1), state_BCF.reshape(-1)
        past = (taps - 1) * dilation * features
        width = taps * features
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        z = weights.unit.size
        series = z + 6 * n * vectors  # a lane's past, then its live inputs
        rows_in = series + past + steps * features
        out = rows_in + ROWS * width
        packed = out + ROWS * padded
        s = np.zeros(packed + packed_floats(width, 0, ROWS, 0), np.float32)
        offsets = np.zeros(5 * ROWS, np.int64)
        position = np.zeros(steps, np.int64)
        for row in range(ROWS):
            offsets[NEW * ROWS + row] = out + row * padded
        span, sizes = Span(0, groups), Sizes(width, 0, groups, padded, ROWS, padded, packed)
        copy(weights.unit, 0, s, 0, z)
        for lane in range(first, last):
            copy(state, lane * past, s, series, past)
            live = 0
            for t in range(min(lengths_B[lane], steps) if lengths_B.size else steps):
                if mask_BT.size == 0 or mask_BT[lane, t]:
                    position[live] = lane * steps + t
                    copy(x, position[live] * features, s, series + past + live * features, features)
                    live += 1
            for begin in range(0, live, ROWS):
                rows = min(ROWS, live - begin)
                for row in range(rows):
                    source = series + (begin + row) * features
                    if dilation > 1:
                        gathered = rows_in + row * width
                        for tap in range(taps):
                            ahead = tap * dilation * features
                            copy(s, source + ahead, s, gathered + tap * features, features)
                        source = gathered
                    if word > 1:
                        pack_inputs(s, source, s, sizes, offsets, row)
                    else:
                        offsets[X * ROWS + row] = source
                multiply(rows, span, sizes, s, z, offsets, 0, s, width, w, 0)
                for row in range(rows):
                    copy(s, out + row * padded, y, position[begin + row] * units, units)
            copy(s, series + live * features, state, lane * past, past)

    return conv1d
