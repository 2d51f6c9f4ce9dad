"""A tile inside Numba: m rows x g vectors of sums, all held in registers at once.

A matrix product is fast when each weight that is read is used for several rows, and each input for
several vectors of outputs. `Tile(m, g, n)` holds the m*g sums. Rows may lie anywhere in an array:
`offsets[i + r]` is the offset of row r. With STREAMRNN_BOUNDSCHECK=1 all offsets are checked.

The loop over the inputs is written in `feed`, not in the kernels: as Python it would be compiled
again for every size of tile, and would take half of the time to compile a kernel.

In place of float32, `pack` rounds rows to integers, and `add` adds exact sums of their products. In
a row, as in the weights, two int16 or four int8 share one 32-bit word, so that a tile reads words
as it reads floats. A row of inputs or of a state is rounded by its own largest value: scale =
largest / top, integer k = value k / scale. Its scale stands before its words. A row with a NaN or
an infinity has the scale NaN; one whose values are all below 2**-100 in magnitude is zero.

`top` and the weights leave room in 32 bits for every sum of products (`kernels.integers`). So sums
are exact, their order does not matter, and any instruction that multiplies integers gives the same
bits. For int16 it is VPDPWSSD with AVX-512 VNNI or AVX-VNNI (LLVM joins VPMADDWD and an addition
into it), VPMADDWD with AVX2 or SSE2, and elsewhere two multiplications of 32 bits. For int8 it is
VPDPBUSD, twice VPMADDWD, or four multiplications. VPDPBUSD needs bytes from 0 to 255, so 128 is
added to each integer of a row, and a sum begins with -128 times the sum of its weights.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.jit import Inlined, intrinsic
from streamrnn.nn.simd.vector import F32, I32, address, emit_load, emit_store, fused, loop, spread

_SMALLEST = 2.0**-100
"""A row whose largest value is below this counts as zero: `top` divided by that value might be too
large for a float."""

_MAGIC = 1.5 * 2**23
"""Adding this to a small number rounds the number to an integer, which is then in the low bits."""

_OFFSETS = {1: 0, 2: 0, 4: 128}
"""By word, what is added to the integers of a row: VPDPBUSD takes bytes without a sign."""

_MULTIPLY_ADD = {
    4: ("sse2", "llvm.x86.sse2.pmadd.wd"),
    8: ("avx2", "llvm.x86.avx2.pmadd.wd"),
    16: ("avx512bw", "llvm.x86.avx512.pmaddw.d.512"),
}
"""By width of vectors, the feature of the CPU and LLVM's name for VPMADDWD."""


class Tile(types.Type):
    """Numba's type of `m` rows x `g` vectors of `n` float32."""

    def __init__(self, m: int, g: int, n: int) -> None:
        self.m, self.g, self.n = m, g, n
        super().__init__(f"Tile({m}, {g}, {n})")


@register_model(Tile)
class TileModel(models.PrimitiveModel):
    """The LLVM type of a Tile: [m*g x <n x float>], which LLVM splits into registers."""

    def __init__(self, manager, tile):
        kind = ir.ArrayType(ir.VectorType(F32, tile.n), tile.m * tile.g)
        super().__init__(manager, tile, kind)


def begin(m: int, g: int, n: int) -> Inlined:
    """Make `begin(array, offsets, i, k)`: row r starts as array[offsets[i + r] + k : +g*n]."""
    tile = Tile(m, g, n)

    @intrinsic
    def begin(typingctx, array, offsets, i, k):
        def emit(context, builder, sig, args):
            array, offsets, i, k = args
            sums = ir.Constant(ir.ArrayType(ir.VectorType(F32, n), m * g), ir.Undefined)
            for r, row in enumerate(rows_at(builder, context, sig.args[1], offsets, i, m)):
                for q in range(g):
                    index = builder.add(builder.add(row, k), k.type(q * n))
                    value = emit_load(context, builder, sig.args[0], array, index, n)
                    sums = builder.insert_value(sums, value, r * g + q)
            return sums

        return tile(array, offsets, types.intp, types.intp), emit

    return begin


def feed(m: int, g: int, n: int, into: tuple[int, ...]) -> Inlined:
    """Make `feed(tile, count, x, offsets, i, w, j)`, which adds `count` inputs times their weights.

    for k in range(count), r in range(m), q, s in enumerate(into):
        sums[r][s] += x[offsets[i + r] + k] * w[j + (k*len(into) + q)*n : +n]      (one fma)
    """
    tile = Tile(m, g, n)

    @intrinsic
    def feed(typingctx, sums, count, x, offsets, i, w, j):
        def emit(context, builder, sig, args):
            sums, count, x, offsets, i, w, j = args
            if not into:
                return sums
            _, _, x_kind, offsets_kind, _, w_kind, _ = sig.args
            rows = rows_at(builder, context, offsets_kind, offsets, i, m)
            held = [
                cgutils.alloca_once_value(builder, builder.extract_value(sums, place))
                for place in range(m * g)
            ]
            with loop(builder, count.type(0), count, 1) as k:
                first = builder.add(j, builder.mul(k, k.type(len(into) * n)))
                weights = [
                    emit_load(context, builder, w_kind, w, builder.add(first, k.type(q * n)), n)
                    for q in range(len(into))
                ]
                for r, row in enumerate(rows):
                    place = address(context, builder, x_kind, x, builder.add(row, k), 1)
                    value = spread(builder, builder.load(place), n)
                    for s, weight in zip(into, weights, strict=True):
                        total = held[r * g + s]
                        builder.store(fused(builder, value, weight, builder.load(total)), total)
            for place, total in enumerate(held):
                sums = builder.insert_value(sums, builder.load(total), place)
            return sums

        return tile(tile, types.intp, x, offsets, types.intp, w, types.intp), emit

    return feed


@intrinsic
def put(typingctx, sums, array, j):
    """Write all sums to array[j : j + m*g*n], row after row."""

    def emit(context, builder, sig, args):
        sums, array, j = args
        for place in range(sig.args[0].m * sig.args[0].g):
            value = builder.extract_value(sums, place)
            index = builder.add(j, j.type(place * sig.args[0].n))
            emit_store(context, builder, sig.args[1], array, index, value)

    return types.void(sums, array, types.intp), emit


@intrinsic
def scatter(typingctx, sums, array, offsets, i, k):
    """Write the sums of row r to array[offsets[i + r] + k : +g*n]."""

    def emit(context, builder, sig, args):
        tile = sig.args[0]
        sums, array, offsets, i, k = args
        for r, row in enumerate(rows_at(builder, context, sig.args[2], offsets, i, tile.m)):
            for q in range(tile.g):
                index = builder.add(builder.add(row, k), k.type(q * tile.n))
                value = builder.extract_value(sums, r * tile.g + q)
                emit_store(context, builder, sig.args[1], array, index, value)

    return types.void(sums, array, offsets, types.intp, types.intp), emit


def rows_at(builder, context, kind, offsets, i, m):
    """Load offsets[i : i + m] (int64), without Numba's wrap-around of negative indices."""
    start = address(context, builder, kind, offsets, i, m)
    return [builder.load(builder.gep(start, [i.type(r)])) for r in range(m)]


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

    The scale of the row is written to s[j], its integers from s[j + 1] on, `word` in each float.
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

            words = builder.add(count, count.type(word - 1))
            words = builder.ashr(words, count.type(word.bit_length() - 1))
            first = address(context, builder, s_kind, s, j, 1)
            address(context, builder, s_kind, s, builder.add(j, words), 1)  # only its check
            builder.store(scale, first)
            integers = builder.bitcast(builder.gep(first, [j.type(1)]), kind.as_pointer())
            for at, width in _blocks(builder, count, n):
                value = emit_load(context, builder, s_kind, s, builder.add(i, at), width)
                magic = ir.Constant(value.type, [_MAGIC + _OFFSETS[word]] * width)
                value = fused(builder, value, spread(builder, inverse, width), magic)
                whole = builder.bitcast(value, ir.VectorType(I32, width))
                narrow = builder.trunc(whole, ir.VectorType(kind, width))
                place = builder.bitcast(builder.gep(integers, [at]), narrow.type.as_pointer())
                builder.store(narrow, place, align=kind.width // 8)

        return types.void(s, types.intp, types.intp, types.float32, types.intp), emit

    return pack


def rest_steps(word: int) -> int:
    """Return how many steps follow an operand's words: starts of sums (int8 only), and scales."""
    return 2 if word == 4 else 1


def add(m: int, g: int, n: int, into: tuple[int, ...], word: int, *, scattered: bool) -> Inlined:
    """Make `add(s, z, offsets, i, start, again, rows, count, w, j)`, which adds an operand to sums.

    The words of row r stand from s[offsets[rows + r]] on, after the row's scale. The weights of the
    group have `count` steps: words, then `rest_steps`. Sum q of row r stays as it was before
    or, if q is in `into`, becomes

        fma(float(sum of products), scale of the row * scale of the gate, the sum before)

    It is written to s[z + (r*g + q)*n : +n], or, if `scattered`, to
    s[offsets[z + r] + start + q*n : +n]. The sum before is read from the same place if `again`,
    else from s[offsets[i + r] + start + q*n : +n].
    """
    dot = _dot_of_bytes if word == 4 else _dot_of_pairs

    @intrinsic
    def add(typingctx, s, z, offsets, i, start, again, rows, count, w, j):
        def emit(context, builder, sig, args):
            s, z, offsets, i, start, again, rows, count, w, j = args
            s_kind, _, offsets_kind, _, _, _, _, _, w_kind, _ = sig.args
            words = rows_at(builder, context, offsets_kind, offsets, rows, m)
            last = builder.sub(count, count.type(rest_steps(word)))
            sums = _products(context, builder, (s_kind, s), words, last, (w_kind, w), j)
            end = builder.sub(count, count.type(1))
            end = builder.add(j, builder.mul(end, j.type(len(into) * n)))
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
        whole = ir.VectorType(I32, n)

        def integers(step):
            first = builder.add(j, builder.mul(step, step.type(len(into) * n)))
            at = [builder.add(first, j.type(p * n)) for p in range(len(into))]
            values = [emit_load(context, builder, w_kind, w, index, n) for index in at]
            return [builder.bitcast(value, whole) for value in values]

        starts = integers(steps) if word == 4 else [ir.Constant(whole, [0] * n) for _ in into]
        sums = [[cgutils.alloca_once_value(builder, v) for v in starts] for _ in words]
        with loop(builder, steps.type(0), steps, 1) as k:
            factors = integers(k)
            for row, totals in zip(words, sums, strict=True):
                place = address(context, builder, s_kind, s, builder.add(row, k), 1)
                value = spread(builder, builder.load(place), n)
                value = builder.bitcast(value, whole)
                for total, factor in zip(totals, factors, strict=True):
                    builder.store(dot(builder, value, factor, builder.load(total)), total)
        return sums

    return add


def _dot_of_pairs(builder, a, b, total):
    """Emit total + a0*b0 + a1*b1 for the two int16 of each element."""
    n = a.type.count
    feature, name = _MULTIPLY_ADD[n]
    if jit.has(feature):
        pairs = ir.VectorType(ir.IntType(16), 2 * n)
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(a.type, [pairs, pairs]), name
        )
        both = [builder.bitcast(value, pairs) for value in (a, b)]
        return builder.add(total, builder.call(function, both))
    half = ir.Constant(a.type, [16] * n)
    low = [builder.ashr(builder.shl(value, half), half) for value in (a, b)]
    high = [builder.ashr(value, half) for value in (a, b)]
    for pair in (low, high):
        total = builder.add(total, builder.mul(*pair))
    return total


def _dot_of_bytes(builder, a, b, total):
    """Emit total + a0*b0 + … + a3*b3 for the bytes of each element, unsigned in a, signed in b."""
    n = a.type.count
    if jit.has("avx512vnni") and (n == 16 or jit.has("avx512vl")):
        name = f"llvm.x86.avx512.vpdpbusd.{32 * n}"
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(a.type, [a.type] * 3), name
        )
        return builder.call(function, [total, a, b])
    low = ir.Constant(a.type, [0x00FF00FF] * n)
    eight = ir.Constant(ir.VectorType(ir.IntType(16), 2 * n), [8] * (2 * n))
    signed = builder.bitcast(b, eight.type)
    even = builder.bitcast(builder.ashr(builder.shl(signed, eight), eight), a.type)
    odd = builder.bitcast(builder.ashr(signed, eight), a.type)
    total = _dot_of_pairs(builder, builder.and_(a, low), even, total)
    eight = ir.Constant(a.type, [8] * n)
    return _dot_of_pairs(builder, builder.and_(builder.lshr(a, eight), low), odd, total)


def _largest(context, builder, kind, s, i, count, n):
    """Emit the largest |value| of s[i : i + count], NaN if one is NaN.

    The bits are compared as integers: without the sign they have the order of the values.
    """
    zeros = {width: ir.Constant(ir.VectorType(I32, width), [0] * width) for width in (n, 1)}
    best = {width: cgutils.alloca_once_value(builder, zero) for width, zero in zeros.items()}
    for at, width in _blocks(builder, count, n):
        value = emit_load(context, builder, kind, s, builder.add(i, at), width)
        bits = builder.bitcast(value, zeros[width].type)
        bits = builder.and_(bits, ir.Constant(bits.type, [0x7FFFFFFF] * width))
        builder.store(_larger(builder, bits, builder.load(best[width])), best[width])
    largest = builder.load(best[n])
    while largest.type.count > 1:
        half = largest.type.count // 2
        parts = [
            builder.shuffle_vector(
                largest,
                ir.Constant(largest.type, ir.Undefined),
                ir.Constant(ir.VectorType(I32, half), list(range(low, low + half))),
            )
            for low in (0, half)
        ]
        largest = _larger(builder, *parts)
    largest = _larger(builder, largest, builder.load(best[1]))
    return builder.bitcast(builder.extract_element(largest, I32(0)), F32)


def _larger(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _blocks(builder, count, n):
    """Emit loops over `count` floats, n at a time, then one at a time: yield place and width."""
    whole = builder.and_(count, count.type(-n))
    for start, stop, width in ((count.type(0), whole, n), (whole, count, 1)):
        with loop(builder, start, stop, width) as k:
            yield k, width
