"""Gradients of weights (sums over rows of inputs times gradients), and gradients of inputs.

Each element of a result is one sum, whose terms are added in a fixed order: products of float32 by
one exact fma each. Threads divide the elements of a result, never the terms of a sum, so no bit
depends on the threads.
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.types import intp

from streamrnn.nn.simd import dense, jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import F1, F2, F3, I1, Inlined, inline_always, intrinsic, registers
from streamrnn.nn.simd.sweep import NEW, Sizes, Span, X
from streamrnn.nn.simd.vector import (
    address,
    emit_load,
    emit_store,
    fma,
    fused,
    load,
    loop,
    make_copy,
    splat,
    spread,
    store,
)

ROWS = 96
"""Rows whose products are added to all sums before the next rows: they stay in the L1 cache."""

WIDE = 4
"""Vectors of columns in a tile, as long as this many are left."""


@jit.for_width("outer", types.void(F1, intp, intp, intp, F1, intp, intp, F1, *[intp] * 5))
def outer_kernel(n: int) -> Kernel:
    """Return the kernel: (a, i, a_step, inputs, d, j, d_step, out, step, row, end, first, last).

    out[k*step + c] += sum over rows r = row..end of a[i + r*a_step + k] * d[j + r*d_step + c], for
    k below `inputs` and the columns c of the vectors first..last.
    """
    most = max(1, min(6, (registers() - WIDE - 1) // WIDE))
    wide, narrow = _inputs(most, WIDE, n), _inputs(6, 1, n)

    def run(a, i, a_step, inputs, d, j, d_step, out, step, row, end, first, last):
        for begin in range(row, end, ROWS):
            count = min(ROWS, end - begin)
            v = first
            while v < last:
                own, column = i + begin * a_step, j + begin * d_step + v * n
                if last - v >= WIDE:
                    wide(out, v * n, step, a, own, a_step, inputs, d, column, d_step, count)
                    v += WIDE
                else:
                    narrow(out, v * n, step, a, own, a_step, inputs, d, column, d_step, count)
                    v += 1

    return run


def _inputs(most: int, g: int, n: int) -> Inlined:
    """Make the function that adds the products of rows to the sums of all inputs.

    The sums are of `g` vectors of columns.
    """
    full, two, one = (_accumulate(min(m, most), g, n) for m in (most, 2, 1))

    @inline_always
    def run(out, o, step, a, i, a_step, inputs, d, j, d_step, rows):
        k = 0
        while k < inputs:
            if inputs - k >= most:
                full(out, o + k * step, step, a, i + k, a_step, d, j, d_step, rows)
                k += most
            elif inputs - k >= 2:
                two(out, o + k * step, step, a, i + k, a_step, d, j, d_step, rows)
                k += 2
            else:
                one(out, o + k * step, step, a, i + k, a_step, d, j, d_step, rows)
                k += 1

    return run


def _accumulate(m: int, g: int, n: int) -> Inlined:
    """Make the function that adds the products of rows to the sums of m inputs and g vectors.

    It holds the sums in registers.
    """

    @intrinsic
    def accumulate(typingctx, out, o, step, a, i, a_step, d, j, d_step, rows):
        def emit(context, builder, sig, args):
            out, o, step, a, i, a_step, d, j, d_step, rows = args
            out_kind, a_kind, d_kind = sig.args[0], sig.args[3], sig.args[6]
            places = [
                builder.add(builder.add(o, builder.mul(step, step.type(r))), step.type(q * n))
                for r in range(m)
                for q in range(g)
            ]
            held = []
            for place in places:
                value = emit_load(context, builder, out_kind, out, place, n)
                held.append(cgutils.alloca_once_value(builder, value))
            with loop(builder, rows.type(0), rows, 1) as row:
                first = builder.add(j, builder.mul(row, d_step))
                gradients = [
                    emit_load(context, builder, d_kind, d, builder.add(first, j.type(q * n)), n)
                    for q in range(g)
                ]
                begin = builder.add(i, builder.mul(row, a_step))
                start = address(context, builder, a_kind, a, begin, m)
                for r in range(m):
                    value = spread(builder, builder.load(builder.gep(start, [i.type(r)])), n)
                    for q, gradient in enumerate(gradients):
                        total = held[r * g + q]
                        builder.store(fused(builder, value, gradient, builder.load(total)), total)
            for place, slot in zip(places, held, strict=True):
                emit_store(context, builder, out_kind, out, place, builder.load(slot))

        return (types.void(out, intp, intp, a, intp, intp, d, intp, intp, intp), emit)

    return accumulate


@jit.for_width("project", types.void(F1, intp, intp, intp, F1, F3, intp, intp))
def project_kernel(n: int, vectors: int) -> Kernel:
    """Return the kernel: (d, start, step, count, w, y_BTF, first, last).

    y_BTF[b, t] with r = t*B + b in first..last is the sum over k below `count` of
    d[start + r*step + k] times row k of the transposed weights. `w`: these weights, packed as for
    Dense, in groups of `vectors` vectors.
    """
    copy, multiply = make_copy(n), dense.linear(n, vectors, 1, "linear")
    most = dense.ROWS

    def run(d, start, step, count, w, y_BTF, first, last):
        lanes, T, features = y_BTF.shape
        y = y_BTF.reshape(-1)
        groups = (features + n * vectors - 1) // (n * vectors)
        padded = groups * n * vectors
        cap = min(most, last - first)
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

    return run


@jit.for_width("project_few", types.void(F2, F1, F2, intp, intp))
def project_few_kernel(n: int) -> Kernel:
    """Return the kernel for rows with few gradients: (d_NU, w, y_NF, first, last).

    Row r of `y_NF` is the sum over u of d_NU[r, u] * w[u*F : (u+1)*F].
    """
    copy = make_copy(n)

    def run(d_NU, w, y_NF, first, last):
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

    return run


@jit.on_demand("products_of_rows", types.void(F1, intp, intp, F1, intp, intp, intp, F1))
def products_of_rows_kernel(a, i, a_step, d, j, d_step, rows, out):
    """Set out[u] to the sum of a[i + r*a_step + u] * d[j + r*d_step + u] over rows, in float64."""
    total = np.zeros(out.size, np.float64)
    for r in range(rows):
        p, q = i + r * a_step, j + r * d_step
        for u in range(out.size):
            total[u] += np.float64(a[p + u]) * np.float64(d[q + u])
    for u in range(out.size):
        out[u] = total[u]


@jit.on_demand("add_rows", types.void(F2, I1, F2))
def add_rows_kernel(out, ids, rows):
    """Add row r of `rows` to out[ids[r]], one row after the other."""
    for r in range(ids.size):
        for i in range(rows.shape[1]):
            out[ids[r], i] += rows[r, i]
