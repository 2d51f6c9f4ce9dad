"""Sums in the order of the elements, in float64."""

import functools

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel


@functools.cache
def products_entry() -> Kernel:
    """Return the kernel out[0] = the sum of a[i] * b[i]: (a, b, out)."""

    def build() -> Kernel:
        @jit.kernel
        def run(a, b, out):
            total = 0.0
            for i in range(a.size):
                total += types.float64(a[i]) * types.float64(b[i])
            out[0] = total

        return run

    f1, d1 = types.Array(types.float32, 1, "C"), types.Array(types.float64, 1, "C")
    return jit.compiled("sum_of_products", build, types.void(f1, f1, d1))


@functools.cache
def products_of_rows_entry() -> Kernel:
    """Return the kernel out[u] = the sum of a[i + r*a_step + u] * d[j + r*d_step + u] over rows.

    Called as (a, i, a_step, d, j, d_step, rows, out). Each sum is in float64.
    """

    def build() -> Kernel:
        @jit.kernel
        def run(a, i, a_step, d, j, d_step, rows, out):
            total = np.zeros(out.size, np.float64)
            for r in range(rows):
                p, q = i + r * a_step, j + r * d_step
                for u in range(out.size):
                    total[u] += np.float64(a[p + u]) * np.float64(d[q + u])
            for u in range(out.size):
                out[u] = total[u]

        return run

    f1, intp = types.Array(types.float32, 1, "C"), types.intp
    signature = types.void(f1, intp, intp, f1, intp, intp, intp, f1)
    return jit.compiled("products_of_rows", build, signature)


@functools.cache
def add_rows_entry() -> Kernel:
    """Return the kernel out[ids[r]] += rows[r], row after row: (out, ids, rows)."""

    def build() -> Kernel:
        @jit.kernel
        def run(out, ids, rows):
            for r in range(ids.size):
                for i in range(rows.shape[1]):
                    out[ids[r], i] += rows[r, i]

        return run

    f2, ids = types.Array(types.float32, 2, "C"), types.Array(types.int64, 1, "C")
    return jit.compiled("add_rows", build, types.void(f2, ids, f2))


@functools.cache
def add_at_entry() -> Kernel:
    """Return the kernel out[ids[i]] += values[i], one after the other: (out, ids, values)."""

    def build() -> Kernel:
        @jit.kernel
        def run(out, ids, values):
            for i in range(ids.size):
                out[ids[i]] += values[i]

        return run

    d1, ids = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C")
    return jit.compiled("add_at", build, types.void(d1, ids, d1))


@functools.cache
def rows_entry() -> Kernel:
    """Return the kernel out[r] = the mean of the r-th run of `units` elements: (a, units, out)."""

    def build() -> Kernel:
        @jit.kernel
        def run(a, units, out):
            for r in range(out.size):
                total = 0.0
                for i in range(r * units, (r + 1) * units):
                    total += types.float64(a[i])
                out[r] = total / units

        return run

    f1 = types.Array(types.float32, 1, "C")
    return jit.compiled("means_of_rows", build, types.void(f1, types.intp, f1))
