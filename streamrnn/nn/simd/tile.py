"""A tile inside Numba: m rows x g vectors of sums, all held in registers at once.

A matrix product is fast when each weight that is read is used for several rows, and each input for
several vectors of outputs. `Tile(m, g, n)` holds the m*g sums. Rows may lie anywhere in an array:
`offsets[i + r]` is the offset of row r. With STREAMRNN_BOUNDSCHECK=1 all offsets are checked.

The loop over the inputs is written in `feed`, not in the kernels: as Python it would be compiled
again for every size of tile, and take half of the time to compile a kernel.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from streamrnn.nn.simd.jit import Inlined, intrinsic
from streamrnn.nn.simd.vector import F32, address, emit_load, emit_store, fused, loop, spread


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
