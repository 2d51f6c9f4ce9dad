"""The loop around a cell of the user's: one stream after the other, one step after the other.

A step is a function of one stream, `step(x_F, states, weights, y_U)`. As a stream never shares an
instruction with another, its bits cannot depend on the batch, the chunk or the thread.
"""

import warnings
from collections.abc import Callable

import numba
import numpy as np
from numba.core.errors import NumbaError
from numba.extending import overload

from streamrnn.kernels import threads

_drivers: dict[Callable[..., None], Callable[..., None]] = {}


def compiled(step: Callable[..., None], who: str) -> Callable[..., None]:
    """A driver that runs `step`, compiled on its first call.

    The driver: (x_BTF, lengths_B | None, mask_BT | None, [state_B…], weights, held_BU, y_BTU |
    None, zero_masked). States, held output and y are written in place, as in the other kernels. If
    Numba cannot compile the step, it runs in Python and a warning says why, once.
    """
    if step not in _drivers:
        _drivers[step] = _driver(step, who)
    return _drivers[step]


def _driver(step: Callable[..., None], who: str) -> Callable[..., None]:
    jitted = step if isinstance(step, numba.core.dispatcher.Dispatcher) else _jit(step)
    loop = _make_loop(jitted)
    fallback: list[Callable[..., None]] = []

    def run(x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked):
        if not fallback:
            args = (x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked)
            try:
                return _run_loop(loop, *args)
            except NumbaError as error:
                fallback.append(step)
                warnings.warn(
                    f"{who}: Numba cannot compile its step, so it runs in Python, many times "
                    f"slower. Numba says: {error}",
                    stacklevel=2,
                )
        return run_plain(
            step, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked
        )

    return run


def _jit(function):
    return numba.njit(nogil=True, fastmath=False, error_model="numpy")(function)


def _make_loop(step):
    def loop(first, last, x, lengths, mask, states, weights, held, y, zero):
        for b in range(first, last):
            for t in range(lengths[b]):
                if mask[b, t]:
                    step(x[b, t], _lane(states, b), weights, held[b])
                if y.shape[0]:
                    if zero and not mask[b, t]:
                        y[b, t] = 0
                    else:
                        y[b, t] = held[b]

    return _jit(loop)


def _run_loop(loop, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked):
    lanes, steps = x_BTF.shape[:2]
    if lengths_B is None:
        lengths_B = np.full(lanes, steps, np.int64)
    if mask_BT is None:
        mask_BT = np.ones((lanes, steps), np.bool_)
    if y_BTU is None:
        y_BTU = np.empty((0, 0, 0), np.float32)
    args = (x_BTF, lengths_B, mask_BT, tuple(states), weights, held_BU, y_BTU, zero_masked)
    loop(0, 0, *args)  # compiles here, so that threads find it done
    threads.by_lanes(lambda first, last: loop(first, last, *args), lanes)


def _lane(states, b):
    """The states of one lane. Compiled only: a tuple of different ranks has no loop in Python."""


@overload(_lane)
def _lane_compiled(states, b):
    if len(states) == 1:
        return lambda states, b: (states[0][b],)
    return lambda states, b: (states[0][b], *_lane(states[1:], b))


def run_plain(
    step, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked
) -> None:
    """The same loop in Python, for a step that is not compiled."""
    for b in range(x_BTF.shape[0]):
        lane = tuple(state[b] for state in states)
        for t in range(x_BTF.shape[1] if lengths_B is None else lengths_B[b]):
            keep = mask_BT is None or mask_BT[b, t]
            if keep:
                step(x_BTF[b, t], lane, weights, held_BU[b])
            if y_BTU is not None:
                y_BTU[b, t] = 0 if zero_masked and not keep else held_BU[b]
