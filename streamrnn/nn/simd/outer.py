"""Sums over rows of inputs times gradients: the gradients of weights.

Each element of a result is one sum, which adds the products of the rows in order, each by one exact
fma. Threads divide the columns of a result, never its rows, so no bit depends on them.
"""

import functools

from numba import types
from numba.core import cgutils

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import Inlined, inline_always, intrinsic, kernel, registers
from streamrnn.nn.simd.vector import address, emit_load, emit_store, fused, loop, spread

ROWS = 96
"""Rows that are added to all sums before the next ones: they stay in the L1 cache."""

WIDE = 4
"""Vectors of columns in a tile, as long as this many are left."""


@functools.cache
def entry() -> Kernel:
    """Return the kernel: (a, i, a_step, inputs, d, j, d_step, out, step, row, end, first, last).

    out[k*step + c] += sum over rows r = row..end of a[i + r*a_step + k] * d[j + r*d_step + c], for
    k below `inputs` and the columns c of the vectors first..last.
    """
    n = jit.width()
    f1, intp = types.Array(types.float32, 1, "C"), types.intp
    signature = types.void(f1, intp, intp, intp, f1, intp, intp, f1, *[intp] * 5)
    return jit.compiled(f"outer-{n}", lambda: _kernel(n), signature)


def _kernel(n: int) -> Kernel:
    most = max(1, min(6, (registers() - WIDE - 1) // WIDE))
    wide, narrow = _inputs(most, WIDE, n), _inputs(6, 1, n)

    @kernel
    def outer(a, i, a_step, inputs, d, j, d_step, out, step, row, end, first, last):
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

    return outer


def _inputs(most: int, g: int, n: int) -> Inlined:
    """Make the function that adds rows to the sums of all inputs for `g` vectors of columns."""
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
    """Make the function that adds rows to the sums of m inputs and g vectors, in registers."""

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

        intp = types.intp
        return (types.void(out, intp, intp, a, intp, intp, d, intp, intp, intp), emit)

    return accumulate
