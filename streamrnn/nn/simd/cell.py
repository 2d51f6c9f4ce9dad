"""The loops around a custom cell, including those in training, and around a loss of one row."""

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
    """Write the held output of lane b to step t, or zeros if the step is `masked`."""
    y[b, t] = 0 if masked else held[b]


@overload(emit)
def _emit_compiled(y, held, b, t, masked):
    # Numba compiles the text of a message with each `y[…] = array`, for 5 s: a loop has none.
    def each(y, held, b, t, masked):
        for u in range(held.shape[1]):
            y[b, t, u] = np.float32(0) if masked else held[b, u]

    return each


def forward_loop(step: Kernel, *, plain: bool = False) -> Kernel:
    """Make the loop over lanes first..last and their steps.

    It is compiled on its first call, or runs in Python if `plain`. For each step that is present,
    it writes the states before the step to `tape` (per state an array (B, T, …)), and the output to
    `outs` (B, T, U).
    """
    step = _python(step) if plain else compiled_step(step)

    def loop(first, last, x, mask, states, weights, held, y, zero, tape, outs):
        for b in range(first, last):
            for t in range(x.shape[1]):
                if mask[b, t]:
                    keep(tape, states, b, t)
                    step(x[b, t], lane_of(states, b), weights, held[b])
                    emit(outs, held, b, t, False)
                if y.shape[0]:
                    emit(y, held, b, t, zero and not mask[b, t])

    return loop if plain else jit.kernel(loop)


def back_loop(step_backward: Kernel, *, plain: bool = False) -> Kernel:
    """Make the loop back through the steps of lanes first..last.

    It is compiled on its first call, or runs in Python if `plain`. `step_backward` adds the
    gradients of the weights from lane b to element b of each array of `dweights`. A held output
    passes its gradient to the step that made it.
    """
    step_backward = _python(step_backward) if plain else compiled_step(step_backward)

    def loop(first, last, x, mask, tape, weights, outs, dy, zero, dheld, dstates, dx, dweights):
        for b in range(first, last):
            for t in range(x.shape[1] - 1, -1, -1):
                if dy.shape[0] and (mask[b, t] or not zero):
                    for u in range(dheld.shape[1]):
                        dheld[b, u] += dy[b, t, u]
                if mask[b, t]:
                    step_backward(
                        x[b, t],
                        step_of(tape, b, t),
                        weights,
                        outs[b, t],
                        dheld[b],
                        lane_of(dstates, b),
                        dx[b, t],
                        lane_of(dweights, b),
                    )
                    dheld[b] = 0

    return loop if plain else jit.kernel(loop)


def _python(function: Kernel) -> Kernel:
    plain: Kernel = getattr(function, "py_func", function)
    return plain


def rows_around(function: Callable[..., Any]) -> Kernel:
    """Make the loop around a loss of one row, compiled on its first call."""
    of_row: Any = function if is_compiled(function) else jit.bounds_checked(function)

    def loop(t, p, out):
        for r in range(len(p)):
            out[r] = of_row(t[r], p[r])

    return jit.kernel(loop)


def lane_of(arrays, b):
    """Return row b of each array; their ranks may differ, even in compiled code."""
    return tuple(array[b] for array in arrays)


@overload(lane_of)
def _lane_compiled(arrays, b):
    if len(arrays) == 0:
        return lambda arrays, b: ()
    if len(arrays) == 1:
        return lambda arrays, b: (arrays[0][b],)
    return lambda arrays, b: (arrays[0][b], *lane_of(arrays[1:], b))


def keep(tape, states, b, t):
    """Write the states of one lane to the tape."""
    for kept, state in zip(tape, states, strict=True):
        kept[b, t] = state[b]


@overload(keep)
def _keep_compiled(tape, states, b, t):
    if len(states) == 1:

        def one(tape, states, b, t):
            kept, state = tape[0][b, t].flat, states[0][b].flat  # as in `emit`, and of any rank
            for i in range(len(kept)):
                kept[i] = state[i]

        return one

    def several(tape, states, b, t):
        keep(tape[:1], states[:1], b, t)
        keep(tape[1:], states[1:], b, t)

    return several


def step_of(tape, b, t):
    """Return the states of one lane before one step."""
    return tuple(kept[b, t] for kept in tape)


@overload(step_of)
def _step_compiled(tape, b, t):
    if len(tape) == 1:
        return lambda tape, b, t: (tape[0][b, t],)
    return lambda tape, b, t: (tape[0][b, t], *step_of(tape[1:], b, t))
