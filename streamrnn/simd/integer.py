"""Integers in place of float32: rows rounded to integers, and exact sums of their products.

Two int16 stand in one 32-bit word, of a row as of the weights, so that a tile reads words as it
reads floats. A row of values, inputs or a state, is rounded to integers by its own largest value:
scale = largest / top, integer k = value k / scale. Its scale stands before its words. A row with a
NaN or an infinity has the scale NaN; one whose values are all below 2**-100 is zero.

`top` and the weights leave room in 32 bits for every sum of products (`kernels.integers`). So sums
are exact, their order does not matter, and any instruction that multiplies integers gives the same
bits: VPDPWSSD with AVX-512 VNNI or AVX-VNNI, into which LLVM joins VPMADDWD and an addition;
VPMADDWD with AVX2 or SSE2; elsewhere two multiplications of 32 bits.
"""

from llvmlite import ir
from numba.core import cgutils, types

from streamrnn.simd import jit
from streamrnn.simd.jit import Inlined, intrinsic
from streamrnn.simd.tile import rows_at
from streamrnn.simd.vector import (
    F32,
    I32,
    address,
    emit_load,
    emit_store,
    fused,
    loop,
    spread,
)

_SMALLEST = 2.0**-100
"""Below it a largest value is taken as zero: the quotient of `top` and it would not be a float."""

_MAGIC = 1.5 * 2**23
"""Adding it to a small number rounds that to an integer, and puts it into the low bits."""

_MULTIPLY_ADD = {
    4: ("sse2", "llvm.x86.sse2.pmadd.wd"),
    8: ("avx2", "llvm.x86.avx2.pmadd.wd"),
    16: ("avx512bw", "llvm.x86.avx512.pmaddw.d.512"),
}
"""By width, the feature and LLVM's name of VPMADDWD."""


def make_scaled_copy(n: int) -> Inlined:
    """Make `copy(x, i, factors, k, s, j, count)`: s[j:] = x[i:] * factors[k:], `count` floats."""

    @intrinsic
    def copy(typingctx, x, i, factors, k, s, j, count):
        def emit(context, builder, sig, args):
            x, i, factors, k, s, j, count = args
            x_kind, _, factors_kind, _, s_kind, _, _ = sig.args
            for at, width in _blocks(builder, count, n):
                value = emit_load(context, builder, x_kind, x, builder.add(i, at), width)
                place = builder.add(k, at)
                factor = emit_load(context, builder, factors_kind, factors, place, width)
                value = builder.fmul(value, factor)
                emit_store(context, builder, s_kind, s, builder.add(j, at), value)

        intp = types.intp
        return types.void(x, intp, factors, intp, s, intp, intp), emit

    return copy


def make_pack(n: int, word: int) -> Inlined:
    """Make `pack(s, i, count, top, j)`, which rounds the row s[i : i + count] to integers.

    Its scale is written to s[j], its integers, `word` in a float's place, from s[j + 1] on.
    """
    kind = ir.IntType(32 // word)

    @intrinsic
    def pack(typingctx, s, i, count, top, j):
        def emit(context, builder, sig, args):
            s, i, count, top, j = args
            s_kind = sig.args[0]
            largest = _largest(context, builder, s_kind, s, i, count, n)
            finite = builder.fcmp_ordered("<", largest, F32(float("inf")))
            large = builder.fcmp_ordered(">=", largest, F32(_SMALLEST))
            usual = builder.and_(finite, large)
            scale = builder.select(large, builder.fdiv(largest, top), F32(0.0))
            scale = builder.select(finite, scale, F32(float("nan")))
            inverse = builder.select(usual, builder.fdiv(top, largest), F32(0.0))

            words = builder.ashr(
                builder.add(count, count.type(word - 1)), count.type(word.bit_length() - 1)
            )
            first = address(context, builder, s_kind, s, j, builder.add(words, j.type(1)))
            builder.store(scale, first)
            integers = builder.bitcast(builder.gep(first, [j.type(1)]), kind.as_pointer())
            for at, width in _blocks(builder, count, n):
                value = emit_load(context, builder, s_kind, s, builder.add(i, at), width)
                magic = ir.Constant(value.type, [_MAGIC] * width)
                value = fused(builder, value, spread(builder, inverse, width), magic)
                whole = builder.bitcast(value, ir.VectorType(I32, width))
                narrow = builder.trunc(whole, ir.VectorType(kind, width))
                place = builder.bitcast(builder.gep(integers, [at]), narrow.type.as_pointer())
                builder.store(narrow, place, align=kind.width // 8)

        return types.void(s, types.intp, types.intp, types.float32, types.intp), emit

    return pack


def add(m: int, g: int, n: int, into: tuple[int, ...], *, scattered: bool) -> Inlined:
    """Make `add(s, z, offsets, i, start, again, rows, count, w, j)`: one operand of a tile's sums.

    The words of row r stand from s[offsets[rows + r]] on, its scale before them. The weights of the
    group: `count` - 1 words a gate, then the gates' scales. Sum q of row r is

        s[at(r) + q*n : +n]                                            before the first operand
        fma(float(sum of products), scale of the row * scale of the gate, itself)     for its gates

    and goes to s[z + (r*g + q)*n : +n]. Before: from there if `again`, else from
    s[offsets[i + r] + start + q*n : +n]. `scattered`: to s[offsets[z + r] + start + q*n : +n].
    """

    @intrinsic
    def add(typingctx, s, z, offsets, i, start, again, rows, count, w, j):
        def emit(context, builder, sig, args):
            s, z, offsets, i, start, again, rows, count, w, j = args
            s_kind, _, offsets_kind, _, _, _, _, _, w_kind, _ = sig.args
            words = rows_at(builder, context, offsets_kind, offsets, rows, m)
            last = builder.sub(count, count.type(1))
            sums = _products(context, builder, (s_kind, s), words, last, (w_kind, w), j)
            end = builder.add(j, builder.mul(last, j.type(len(into) * n)))
            scales = [
                emit_load(context, builder, w_kind, w, builder.add(end, j.type(p * n)), n)
                for p in range(len(into))
            ]
            starts = rows_at(builder, context, offsets_kind, offsets, i, m)
            ends = rows_at(builder, context, offsets_kind, offsets, z, m) if scattered else []
            for r in range(m):
                target = (
                    builder.add(ends[r], start) if scattered else builder.add(z, z.type(r * g * n))
                )
                before = builder.add(starts[r], start)
                before = builder.select(builder.icmp_signed("!=", again, z.type(0)), target, before)
                place = address(context, builder, s_kind, s, builder.sub(words[r], z.type(1)), 1)
                scale = spread(builder, builder.load(place), n)
                for q in range(g):
                    offset = z.type(q * n)
                    at = builder.add(before, offset)
                    value = emit_load(context, builder, s_kind, s, at, n)
                    if q in into:
                        p = into.index(q)
                        total = builder.sitofp(builder.load(sums[r][p]), value.type)
                        factor = builder.fmul(scale, scales[p])
                        value = fused(builder, total, factor, value)
                    emit_store(context, builder, s_kind, s, builder.add(target, offset), value)

        intp = types.intp
        return types.void(s, intp, offsets, intp, intp, intp, intp, intp, w, intp), emit

    def _products(context, builder, source, words, steps, weights, j):
        """Emit the loop over `steps` words; return the sums of each row by gate, in memory."""
        (s_kind, s), (w_kind, w) = source, weights
        zero = ir.Constant(ir.VectorType(I32, n), [0] * n)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in into] for _ in words]
        with loop(builder, steps.type(0), steps, 1) as k:
            first = builder.add(j, builder.mul(k, k.type(len(into) * n)))
            factors = []
            for p in range(len(into)):
                index = builder.add(first, k.type(p * n))
                value = emit_load(context, builder, w_kind, w, index, n)
                factors.append(builder.bitcast(value, zero.type))
            for row, totals in zip(words, sums, strict=True):
                place = address(context, builder, s_kind, s, builder.add(row, k), 1)
                value = spread(builder, builder.load(place), n)
                value = builder.bitcast(value, zero.type)
                for total, factor in zip(totals, factors, strict=True):
                    product = _dot(builder, value, factor)
                    builder.store(builder.add(builder.load(total), product), total)
        return sums

    return add


def _dot(builder, a, b):
    """Emit a0*b0 + a1*b1 for the two int16 of each element."""
    n = a.type.count
    feature, name = _MULTIPLY_ADD[n]
    if jit.has(feature):
        pairs = ir.VectorType(ir.IntType(16), 2 * n)
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(a.type, [pairs, pairs]), name
        )
        return builder.call(function, [builder.bitcast(a, pairs), builder.bitcast(b, pairs)])
    half = ir.Constant(a.type, [16] * n)
    low = [builder.ashr(builder.shl(value, half), half) for value in (a, b)]
    high = [builder.ashr(value, half) for value in (a, b)]
    return builder.add(builder.mul(*low), builder.mul(*high))


def _largest(context, builder, kind, s, i, count, n):
    """Emit the largest |value| of s[i : i + count], NaN if one is NaN: as integers, bits order."""
    zeros = {width: ir.Constant(ir.VectorType(I32, width), [0] * width) for width in (n, 1)}
    best = {width: cgutils.alloca_once_value(builder, zero) for width, zero in zeros.items()}
    for at, width in _blocks(builder, count, n):
        value = emit_load(context, builder, kind, s, builder.add(i, at), width)
        bits = builder.bitcast(value, zeros[width].type)
        bits = builder.and_(bits, ir.Constant(bits.type, [0x7FFFFFFF] * width))
        builder.store(_larger(builder, bits, builder.load(best[width])), best[width])
    found = builder.load(best[n])
    while found.type.count > 1:
        half = found.type.count // 2
        parts = [
            builder.shuffle_vector(
                found,
                ir.Constant(found.type, ir.Undefined),
                ir.Constant(ir.VectorType(I32, half), list(range(low, low + half))),
            )
            for low in (0, half)
        ]
        found = _larger(builder, *parts)
    found = _larger(builder, found, builder.load(best[1]))
    return builder.bitcast(builder.extract_element(found, I32(0)), F32)


def _larger(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _blocks(builder, count, n):
    """Emit loops over `count` floats, n at a time, then one at a time: yield place and width."""
    whole = builder.and_(count, count.type(-n))
    for start, stop, width in ((count.type(0), whole, n), (whole, count, 1)):
        with loop(builder, start, stop, width) as k:
            yield k, width
