"""The loops around a custom cell, and around a loss of one row."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel


def is_compiled(function: Kernel) -> bool:
    """Return whether a function is compiled by Numba."""
    return isinstance(function, numba.core.dispatcher.Dispatcher)


def compiled_step(step: Kernel) -> Kernel:
    """Return a step that Numba compiles on its first call."""
    return step if is_compiled(step) else jit.kernel(step)


def loop_around(step: Kernel) -> Kernel:
    """Make the loop over lanes first..last and their steps, compiled on its first call."""
    step = compiled_step(step)

    def loop(first, last, x, lengths, mask, states, weights, held, y, zero):
        for b in range(first, last):
            for t in range(min(lengths[b], x.shape[1])):
                if mask[b, t]:
                    step(x[b, t], lane_of(states, b), weights, held[b])
                if y.shape[0]:
                    emit(y, held, b, t, zero and not mask[b, t])

    return jit.kernel(loop)


def emit(y, held, b, t, masked):
    """Write the held output of lane b to step t, zeros if the step is `masked`."""
    y[b, t] = 0 if masked else held[b]


@overload(emit)
def _emit_compiled(y, held, b, t, masked):
    # Numba compiles the text of a message with each `y[…] = array`, for 5 s: a loop has none.
    def each(y, held, b, t, masked):
        for u in range(held.shape[1]):
            y[b, t, u] = np.float32(0) if masked else held[b, u]

    return each


def rows_around(function: Callable[..., Any]) -> Kernel:
    """Make the loop over rows of a loss, compiled on its first call."""
    of_row: Any = function if is_compiled(function) else jit.bounds_checked(function)

    def loop(t, p, out):
        for r in range(len(p)):
            out[r] = of_row(t[r], p[r])

    return jit.kernel(loop)


def lane_of(arrays, b):
    """Return row b of each array; when compiled, this takes arrays of different ranks, too."""
    return tuple(array[b] for array in arrays)


@overload(lane_of)
def _lane_compiled(arrays, b):
    if len(arrays) == 0:
        return lambda arrays, b: ()
    if len(arrays) == 1:
        return lambda arrays, b: (arrays[0][b],)
    return lambda arrays, b: (arrays[0][b], *lane_of(arrays[1:], b))
