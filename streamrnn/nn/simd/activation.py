"""Activations over whole arrays, and their derivatives."""

from collections.abc import Callable

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.activations import derivative_of, function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.functions import exp, log
from streamrnn.nn.simd.jit import F1
from streamrnn.nn.simd.names import Spec, label
from streamrnn.nn.simd.vector import load, make_copy, store


@jit.for_width("elementwise", types.void(F1, F1), label)
def elementwise_kernel(n: int, spec: Spec) -> Kernel:
    """Return the kernel that applies an activation to each element: (x, out)."""
    g, copy = function_of(spec), make_copy(n)

    def run(x, out):
        whole = x.size - x.size % n
        for i in range(0, whole, n):
            store(out, i, g(load(x, i, n)))
        if whole < x.size:
            rest = np.zeros(n, np.float32)
            copy(x, whole, rest, 0, x.size - whole)
            store(rest, 0, g(load(rest, 0, n)))
            copy(rest, 0, out, whole, x.size - whole)

    return run


@jit.for_width("softmax", types.void(F1, F1, types.intp))
def softmax_kernel(n: int) -> Kernel:
    """Return the kernel of softmax over each run of `units` elements: (x, out, units)."""
    copy = make_copy(n)

    def run(x, out, units):
        row = np.zeros(-(-units // n) * n, np.float32)
        for begin in range(0, x.size, units):
            top = x[begin]
            for u in range(1, units):
                top = max(top, x[begin + u])
            copy(x, begin, row, 0, units)
            for u in range(0, units, n):
                store(row, u, exp(load(row, u, n) - top))
            total = np.float32(0)  # a scalar loop: the order must not depend on n
            for u in range(units):
                total += row[u]
            for u in range(0, units, n):
                store(row, u, load(row, u, n) / total)
            copy(row, 0, out, begin, units)

    return run


@jit.for_width("log_softmax", types.void(F1, F1, types.intp))
def log_softmax_kernel(n: int) -> Kernel:
    """Return the kernel of log_softmax over each run of `units` elements: (x, out, units)."""
    copy = make_copy(n)

    def run(x, out, units):
        padded = -(-units // n) * n
        row = np.zeros(padded + n, np.float32)
        for begin in range(0, x.size, units):
            top = x[begin]
            for u in range(1, units):
                top = max(top, x[begin + u])
            copy(x, begin, row, 0, units)
            for u in range(0, units, n):
                store(row, u, exp(load(row, u, n) - top))
            total = np.float32(0)
            for u in range(units):
                total += row[u]
            row[padded] = total
            store(row, padded, log(load(row, padded, n)))
            for u in range(begin, begin + units):
                out[u] = (x[u] - top) - row[padded]

    return run


@jit.on_demand("sparsemax", types.void(F1, F1, types.intp))
def sparsemax_kernel(x, out, units):
    """Set each run of `units` elements to its sparsemax.

    The formula is Keras 3's: max(x - t, 0) with t = (S[1] + … + S[k] - 1) / k. S[j] is the sum of
    the j largest values; k is the number of j for which the j-th largest value exceeds
    (S[j] - 1) / j. (Martins and Astudillo 2016 take S[k] alone, so that the results add up to 1;
    for k = 1 both are the same.) Sums are in float64, from the largest value on.
    """
    for begin in range(0, x.size, units):
        row = np.sort(x[begin : begin + units])
        total = sums = 0.0
        count = 0
        for k in range(units):
            value = np.float64(row[units - 1 - k])
            total += value
            if np.isnan(total) or 1.0 + (k + 1) * value > total:
                sums += total
                count += 1
        above = (sums - 1.0) / count
        for u in range(begin, begin + units):
            rest = np.float32(x[u] - above)
            out[u] = np.float32(0) if rest < 0 else rest


@jit.for_width("derivative", types.void(F1, F1, F1), label)
def derivative_kernel(n: int, spec: Spec) -> Kernel:
    """Return the kernel out = dy * derivative: (value, dy, out).

    `value`: the activation's value if this determines the derivative, else the activation's input.
    """
    slope, copy = derivative_of(spec), make_copy(n)

    def run(value, dy, out):
        whole = value.size - value.size % n
        for i in range(0, whole, n):
            store(out, i, load(dy, i, n) * slope(load(value, i, n)))
        if whole < value.size:
            rest = np.zeros(2 * n, np.float32)
            copy(value, whole, rest, 0, value.size - whole)
            copy(dy, whole, rest, n, value.size - whole)
            store(rest, 0, load(rest, n, n) * slope(load(rest, 0, n)))
            copy(rest, 0, out, whole, value.size - whole)

    return run


@jit.on_demand("softmax_back", types.void(F1, F1, F1, types.intp))
def softmax_back_kernel(y, dy, dx, units):
    """Set dx to softmax's gradient over each run of `units` elements."""
    for begin in range(0, y.size, units):
        total = np.float32(0)
        for u in range(begin, begin + units):
            total += y[u] * dy[u]
        for u in range(begin, begin + units):
            dx[u] = y[u] * (dy[u] - total)


@jit.for_width("log_softmax_back", types.void(F1, F1, F1, types.intp))
def log_softmax_back_kernel(n: int) -> Kernel:
    """Return the kernel of log_softmax's gradient over each run of `units`: (y, dy, dx, units)."""
    copy = make_copy(n)

    def run(y, dy, dx, units):
        row = np.zeros(-(-units // n) * n, np.float32)
        for begin in range(0, y.size, units):
            copy(y, begin, row, 0, units)
            for u in range(0, units, n):
                store(row, u, exp(load(row, u, n)))
            total = np.float32(0)
            for u in range(begin, begin + units):
                total += dy[u]
            for u in range(units):
                dx[begin + u] = dy[begin + u] - row[u] * total

    return run


OVER_ROWS: dict[str, Callable[[], Kernel]] = {
    "softmax": softmax_kernel,
    "log_softmax": log_softmax_kernel,
    "sparsemax": sparsemax_kernel,
}
"""By activation, the function that returns its kernel over each run of `units` elements:
(x, out, units)."""

OVER_ROWS_BACK: dict[str, Callable[[], Kernel]] = {
    "softmax": softmax_back_kernel,
    "log_softmax": log_softmax_back_kernel,
}
"""The same for the gradient, which is computed from the activation's values: (y, dy, dx, units)."""
