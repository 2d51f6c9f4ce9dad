"""Activations over whole arrays, and their derivatives."""

import functools

import numpy as np
from numba import types

from streamrnn.simd import jit
from streamrnn.simd.arguments import Kernel
from streamrnn.simd.derivatives import of_input, of_value
from streamrnn.simd.functions import activation, exp
from streamrnn.simd.names import FROM_VALUE, Spec, label, split_spec
from streamrnn.simd.vector import load, make_copy, store


@functools.cache
def elementwise_entry(spec: Spec) -> Kernel:
    """Return the kernel that applies an activation to each element: (x, out)."""
    n = jit.width()

    def build() -> Kernel:
        g, copy = activation(spec), make_copy(n)

        @jit.kernel
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

    f1 = types.Array(types.float32, 1, "C")
    return jit.compiled(f"elementwise-{n}-{label(spec)}", build, types.void(f1, f1))


@functools.cache
def softmax_entry() -> Kernel:
    """Return the kernel of softmax over each run of `units` elements: (x, out, units)."""
    n = jit.width()

    def build() -> Kernel:
        copy = make_copy(n)

        @jit.kernel
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

    f1 = types.Array(types.float32, 1, "C")
    signature = types.void(f1, f1, types.intp)
    return jit.compiled(f"softmax-{n}", build, signature)


@functools.cache
def derivative_entry(spec: Spec) -> Kernel:
    """Return the kernel out = dy * derivative: (value, dy, out).

    `value`: the activation's value if that determines the derivative, else its input.
    """
    n = jit.width()

    def build() -> Kernel:
        of = of_value if split_spec(spec)[0] in FROM_VALUE else of_input
        slope, copy = of(spec), make_copy(n)

        @jit.kernel
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

    f1 = types.Array(types.float32, 1, "C")
    return jit.compiled(f"derivative-{n}-{label(spec)}", build, types.void(f1, f1, f1))


@functools.cache
def softmax_back_entry() -> Kernel:
    """Return the kernel of softmax's gradient over each run of `units`: (y, dy, dx, units)."""

    def build() -> Kernel:
        @jit.kernel
        def run(y, dy, dx, units):
            for begin in range(0, y.size, units):
                total = np.float32(0)
                for u in range(begin, begin + units):
                    total += y[u] * dy[u]
                for u in range(begin, begin + units):
                    dx[u] = y[u] * (dy[u] - total)

        return run

    f1 = types.Array(types.float32, 1, "C")
    return jit.compiled("softmax_back", build, types.void(f1, f1, f1, types.intp))
