"""The loop around a custom cell."""

import numba
from numba.extending import overload

from streamrnn.simd import jit
from streamrnn.simd.arguments import Kernel


def is_compiled(function: Kernel) -> bool:
    """Return whether a function is compiled by Numba."""
    return isinstance(function, numba.core.dispatcher.Dispatcher)


def loop_around(step: Kernel) -> Kernel:
    """Make the loop over lanes first..last and their steps, compiled on its first call."""
    step = step if is_compiled(step) else jit.kernel(step)

    def loop(first, last, x, lengths, mask, states, weights, held, y, zero):
        for b in range(first, last):
            for t in range(min(lengths[b], x.shape[1])):
                if mask[b, t]:
                    step(x[b, t], _lane(states, b), weights, held[b])
                if y.shape[0]:
                    if zero and not mask[b, t]:
                        y[b, t] = 0
                    else:
                        y[b, t] = held[b]

    return jit.kernel(loop)


def _lane(states, b):
    """Return the states of one lane.

    Only the compiled overload exists: Numba cannot loop over a tuple of arrays of different ranks.
    """


@overload(_lane)
def _lane_compiled(states, b):
    if len(states) == 1:
        return lambda states, b: (states[0][b],)
    return lambda states, b: (states[0][b], *_lane(states[1:], b))
