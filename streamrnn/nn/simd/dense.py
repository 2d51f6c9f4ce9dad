"""Dense over rows, with many units or few, products of matrices, and Embedding's copies."""

import functools

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.activations import function_of
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import F1, F2, F3, I1, Inlined, inline, kernel
from streamrnn.nn.simd.names import Spec, label, packed_name
from streamrnn.nn.simd.sweep import (
    NEW,
    Sizes,
    Span,
    TileShape,
    X,
    make_pack_inputs,
    make_packed_floats,
    sweep,
)
from streamrnn.nn.simd.vector import fma, load, make_copy, make_transpose, splat, store

ROWS = 96
"""Rows that pass through all units before the next ones: their inputs stay in the L1 cache."""

SUMS = 16
"""Sums per row and unit, where units are few; each takes every sixteenth feature. Their number, the
elements of the widest vector of any CPU, is the same on every machine, and so are the bits."""


@functools.cache
def entry(n: int, vectors: int, word: int, activation: Spec) -> Kernel:
    """Return the kernel for groups of `vectors` vectors of `n` floats.

    Called as `(x_NF, y_NU, weights, unit, first, last)`. `vectors`: 0 for few units. `word`: as in
    TileShape.
    """
    return jit.compiled(
        f"{packed_name('dense', word)}-{n}x{vectors}-{label(activation)}",
        lambda: _kernel(n, vectors, word, activation) if vectors else _few(n, activation),
        types.void(F2, F2, F1, F1, types.intp, types.intp),
    )


def linear(n: int, vectors: int, word: int, activation: Spec) -> Inlined:
    """Make the sweep of rows without a state: activation(initial sums + inputs times weights)."""
    g = function_of(activation)

    @inline
    def cell(s, z, old, new, own, unit, padded):
        store(s, new, g(load(s, z, n)))

    return sweep(TileShape(n, vectors, sums=1, x_into=(0,), h_into=(), word=word), cell)


def _kernel(n: int, vectors: int, word: int, activation: Spec) -> Kernel:
    copy, multiply = make_copy(n), linear(n, vectors, word, activation)
    packed_floats, pack_inputs = make_packed_floats(word), make_pack_inputs(n, word)

    @kernel
    def dense(x_NF, y_NU, w, unit, first, last):
        features, units = x_NF.shape[1], y_NU.shape[1]
        x, y = x_NF.reshape(-1), y_NU.reshape(-1)
        groups = (units + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        cap = min(ROWS, last - first)
        z = unit.size
        out = z + 6 * n * vectors
        packed = out + cap * padded
        s = np.zeros(packed + packed_floats(features, 0, cap, 0), np.float32)
        offsets = np.zeros(5 * cap, np.int64)
        span, sizes = Span(0, groups), Sizes(features, 0, groups, padded, cap, padded, packed)
        copy(unit, 0, s, 0, unit.size)
        for begin in range(first, last, cap):
            rows = min(cap, last - begin)
            for row in range(rows):
                if word > 1:
                    pack_inputs(x, (begin + row) * features, s, sizes, offsets, row)
                else:
                    offsets[X * cap + row] = (begin + row) * features
                offsets[NEW * cap + row] = out + row * padded
            if word > 1:
                multiply(rows, span, sizes, s, z, offsets, 0, s, features, w, 0)
            else:
                multiply(rows, span, sizes, s, z, offsets, 0, x, features, w, 0)
            for row in range(rows):
                copy(s, out + row * padded, y, (begin + row) * units, units)

    return dense


def _few(n: int, activation: Spec) -> Kernel:
    g, vectors = function_of(activation), SUMS // n
    copy, transpose = make_copy(n), make_transpose(n)

    @inline
    def add_up(s, i):
        """Sum the `SUMS` vectors at i, i + n, … into the first; each round halves their number."""
        half = SUMS // 2
        while half:
            for k in range(i, i + half * n, n):
                store(s, k, load(s, k, n) + load(s, k + half * n, n))
            half //= 2

    @kernel
    def dense(x_NF, y_NU, w, bias, first, last):
        features, units = x_NF.shape[1], y_NU.shape[1]
        x, y = x_NF.reshape(-1), y_NU.reshape(-1)
        whole = features // SUMS * SUMS
        padded = (features + SUMS - 1) // SUMS * SUMS
        turned = 4 * SUMS  # before it: four rows' features past `whole`, zero-padded
        sums = turned + SUMS * n
        s = np.zeros(sums + units * SUMS * n, np.float32)
        for begin in range(first, last, n):
            rows = min(n, last - begin)
            for r in range(0, rows, 4):  # four interleaved rows hide the latency of an fma
                i = (begin + r) * features
                j = min(begin + r + 1, last - 1) * features
                k = min(begin + r + 2, last - 1) * features
                m = min(begin + r + 3, last - 1) * features
                copy(x, i + whole, s, 0, features - whole)
                copy(x, j + whole, s, SUMS, features - whole)
                copy(x, k + whole, s, 2 * SUMS, features - whole)
                copy(x, m + whole, s, 3 * SUMS, features - whole)
                for vector in range(units * vectors):
                    own = vector // vectors * padded
                    begin_f = vector % vectors * n
                    a = b = c = d = splat(np.float32(0), n)
                    for f in range(begin_f, whole, SUMS):
                        weight = load(w, own + f, n)
                        a = fma(load(x, i + f, n), weight, a)
                        b = fma(load(x, j + f, n), weight, b)
                        c = fma(load(x, k + f, n), weight, c)
                        d = fma(load(x, m + f, n), weight, d)
                    if whole < features:
                        weight = load(w, own + whole + begin_f, n)
                        a = fma(load(s, begin_f, n), weight, a)
                        b = fma(load(s, begin_f + SUMS, n), weight, b)
                        c = fma(load(s, begin_f + 2 * SUMS, n), weight, c)
                        d = fma(load(s, begin_f + 3 * SUMS, n), weight, d)
                    out = sums + (vector * n + r) * n
                    store(s, out, a)
                    store(s, out + n, b)
                    store(s, out + 2 * n, c)
                    store(s, out + 3 * n, d)
            for u in range(units):
                for v in range(vectors):
                    transpose(s, sums + (u * vectors + v) * n * n, n, s, turned + v * n * n)
                add_up(s, turned)
                store(s, turned, g(load(s, turned, n) + splat(bias[u], n)))
                for r in range(rows):
                    y[(begin + r) * units + u] = s[turned + r]

    return dense


@jit.on_demand("products", types.void(F3, F3, F3, types.intp, types.intp))
def products_kernel(x_BMK, y_BKN, z_BMN, first, last):
    """Add the product of each matrix in x with the one in y to z; sums are over K in its order."""
    for b in range(first, last):
        for m in range(x_BMK.shape[1]):
            for k in range(x_BMK.shape[2]):
                factor = x_BMK[b, m, k]
                for n in range(y_BKN.shape[2]):
                    z_BMN[b, m, n] += factor * y_BKN[b, k, n]


@jit.for_width("embedding", types.void(F2, I1, F2, types.intp, types.intp))
def embedding_kernel(n: int) -> Kernel:
    """Return the kernel: (table_VE, ids_N, y_NE, first, last).

    It writes the rows first..last of `y_NE` without the GIL, for which threads would wait in
    np.take. All arrays must be C-contiguous.
    """
    copy = make_copy(n)

    def take(table_VE, ids_N, y_NE, first, last):
        table, y, width = table_VE.reshape(-1), y_NE.reshape(-1), y_NE.shape[1]
        for row in range(first, last):
            copy(table, ids_N[row] * width, y, row * width, width)

    return take
