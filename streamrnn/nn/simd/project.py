"""Rows of gradients times transposed weights: the gradients of a layer's inputs."""

import functools

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.dense import ROWS, linear
from streamrnn.nn.simd.jit import kernel
from streamrnn.nn.simd.sweep import NEW, Sizes, Span, X
from streamrnn.nn.simd.vector import fma, load, make_copy, splat, store


@functools.cache
def entry(vectors: int) -> Kernel:
    """Return the kernel: (d, start, step, count, w, y_BTF, first, last).

    Row r = t*B + b of `y_BTF`, for r in first..last, is the sum of w[k] * d[start + r*step + k] for
    k below `count`. `w`: packed as for Dense, in groups of `vectors`.
    """
    n = jit.width()
    f1, f3, intp = (
        types.Array(types.float32, 1, "C"),
        types.Array(types.float32, 3, "C"),
        types.intp,
    )
    signature = types.void(f1, intp, intp, intp, f1, f3, intp, intp)
    return jit.compiled(f"project-{n}x{vectors}", lambda: _kernel(n, vectors), signature)


def _kernel(n: int, vectors: int) -> Kernel:
    copy, multiply = make_copy(n), linear(n, vectors, 1, "linear")

    @kernel
    def project(d, start, step, count, w, y_BTF, first, last):
        lanes, T, features = y_BTF.shape
        y = y_BTF.reshape(-1)
        groups = (features + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        cap = min(ROWS, last - first)
        out = padded + 6 * n * vectors
        s = np.zeros(out + cap * padded, np.float32)
        offsets = np.zeros(5 * cap, np.int64)
        span, sizes = Span(0, groups), Sizes(count, 0, groups, padded, cap, padded)
        for begin in range(first, last, cap):
            rows = min(cap, last - begin)
            for row in range(rows):
                offsets[X * cap + row] = start + (begin + row) * step
                offsets[NEW * cap + row] = out + row * padded
            multiply(rows, span, sizes, s, padded, offsets, 0, d, count, w, 0)
            for row in range(rows):
                t, b = divmod(begin + row, lanes)
                copy(s, out + row * padded, y, (b * T + t) * features, features)

    return project


@functools.cache
def few_entry() -> Kernel:
    """Return the kernel for rows with few gradients: (d_NU, w, y_NF, first, last).

    Row r of `y_NF` is the sum over u of d_NU[r, u] * w[u*F : (u+1)*F].
    """
    n = jit.width()
    f1, f2, intp = (
        types.Array(types.float32, 1, "C"),
        types.Array(types.float32, 2, "C"),
        types.intp,
    )
    signature = types.void(f2, f1, f2, intp, intp)
    return jit.compiled(f"project_few-{n}", lambda: _few_kernel(n), signature)


def _few_kernel(n: int) -> Kernel:
    copy = make_copy(n)

    @kernel
    def project(d_NU, w, y_NF, first, last):
        units, features = d_NU.shape[1], y_NF.shape[1]
        y, padded = y_NF.reshape(-1), (features + n - 1) // n * n
        s = np.zeros(units * padded + n, np.float32)
        end = units * padded
        for u in range(units):
            copy(w, u * features, s, u * padded, features)
        for r in range(first, last):
            for f in range(0, padded, n):
                total = splat(np.float32(0), n)
                for u in range(units):
                    total = fma(splat(d_NU[r, u], n), load(s, u * padded + f, n), total)
                if f + n <= features:
                    store(y, r * features + f, total)
                else:
                    store(s, end, total)
                    copy(s, end, y, r * features + f, features - f)

    return project
