"""Activations over whole arrays."""

import functools

import numpy as np
from numba import types

from streamrnn.simd import jit
from streamrnn.simd.arguments import Kernel
from streamrnn.simd.functions import activation, exp
from streamrnn.simd.names import Spec, label
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
