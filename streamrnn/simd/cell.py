"""The loop around a cell of the user's."""

from collections.abc import Callable
from typing import Any

import numba
from numba.extending import overload

from streamrnn.simd import jit


def is_compiled(function: Callable[..., Any]) -> bool:
    """Whether it is one of Numba's."""
    return isinstance(function, numba.core.dispatcher.Dispatcher)


def loop_around(step: Callable[..., None]) -> Callable[..., None]:
    """The loop over lanes first..last and their steps, compiled on its first call."""
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

    kernel: Callable[..., None] = jit.kernel(loop)
    return kernel


def _lane(states, b):
    """The states of one lane. Compiled only: a tuple of different ranks has no loop in Python."""


@overload(_lane)
def _lane_compiled(states, b):
    if len(states) == 1:
        return lambda states, b: (states[0][b],)
    return lambda states, b: (states[0][b], *_lane(states[1:], b))
