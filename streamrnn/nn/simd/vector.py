"""A vector of float32 inside Numba: a few values in one CPU register.

`Vector(n)` is a Numba type with the operators `+ - * /`; a Python number beside a vector is
broadcast. The functions below read and write C-contiguous float32 arrays at a flat index,
regardless of the array's shape. Every operation rounds as IEEE 754 requires, so the bits of a
result do not depend on `n` or on the CPU. `fma(a, b, c)` is a*b + c rounded once.
"""

import operator
from contextlib import contextmanager

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import models, register_model, typeof_impl

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.functions import Inline, Inlined, Instruction
from streamrnn.nn.simd.jit import intrinsic

F32 = ir.FloatType()
I32 = ir.IntType(32)


class Vector(types.Type):
    """Numba's type of a vector of `n` float32."""

    def __init__(self, n: int) -> None:
        self.n = n
        super().__init__(f"Vector({n})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """The LLVM type of a Vector: <n x float>."""

    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(F32, vector.n))


# -- building blocks of the functions below ------------------------------------------------------


def address(context, builder, kind, array, index, count):
    """Emit a pointer to `array.flat[index]`; with STREAMRNN_BOUNDSCHECK=1, check `count` floats."""
    parts = context.make_array(kind)(context, builder, array)
    if jit.CHECKED:
        zero, end = index.type(0), builder.add(index, index.type(count))
        low = builder.icmp_signed("<", index, zero)
        high = builder.icmp_signed(">", end, parts.nitems)
        with builder.if_then(builder.or_(low, high), likely=False):
            text = "a kernel reached outside an array"
            context.call_conv.return_user_exc(builder, IndexError, (text,))
    return builder.gep(parts.data, [index])


def emit_load(context, builder, kind, array, index, n):
    """Emit the load of <n x float> from an array, aligned or not."""
    start = address(context, builder, kind, array, index, n)
    pointer = builder.bitcast(start, ir.VectorType(F32, n).as_pointer())
    return builder.load(pointer, align=4)


def emit_store(context, builder, kind, array, index, value):
    """Emit the store of <n x float> into an array, aligned or not."""
    start = address(context, builder, kind, array, index, value.type.count)
    builder.store(value, builder.bitcast(start, value.type.as_pointer()), align=4)


def spread(builder, value, n):
    """Emit a vector with one float in all elements."""
    kind = ir.VectorType(F32, n)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    order = ir.Constant(ir.VectorType(I32, n), [0] * n)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), order)


def fused(builder, a, b, c):
    """Emit a*b + c rounded once."""
    return _call(builder, "llvm.fma", [a, b, c])


@contextmanager
def loop(builder, start, stop, step):
    """Emit a loop whose body runs for start, start + step, … below stop.

    LLVM must not unroll it: unrolling gains nothing where a body fills the processor, and took half
    of the compile time.
    """
    kind = stop.type
    before = builder.block
    body, after = (builder.append_basic_block(name) for name in ("loop", "loop.end"))
    builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
    builder.position_at_end(body)
    index = builder.phi(kind)
    index.add_incoming(start, before)
    yield index
    following = builder.add(index, kind(step), flags=["nsw"])
    index.add_incoming(following, builder.block)
    again = builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
    again.set_metadata("llvm.loop", _not_unrolled(builder.module))
    builder.position_at_end(after)


def _not_unrolled(module):
    """Return metadata of a loop that is neither unrolled nor vectorised.

    Its first operand must be the node itself.
    """
    node = ir.MDValue(module, [], name=str(len(module.metadata)))
    hints = [
        module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")]),
        module.add_metadata(
            [ir.MetaDataString(module, "llvm.loop.vectorize.enable"), ir.IntType(1)(0)]
        ),
    ]
    node.operands = (node, *hints)
    return node


def widest(kinds):
    """Return the vector type among kinds; None unless it is the only one beside numbers."""
    vectors = {kind for kind in kinds if isinstance(kind, Vector)}
    rest = [kind for kind in kinds if not isinstance(kind, (Vector, types.Number))]
    return vectors.pop() if len(vectors) == 1 and not rest else None


def vectors_of(context, builder, kinds, values):
    """Emit all values as vectors: numbers are rounded to float32 and broadcast."""
    n = widest(kinds).n
    return [
        value
        if isinstance(kind, Vector)
        else spread(builder, context.cast(builder, value, kind, types.float32), n)
        for kind, value in zip(kinds, values, strict=True)
    ]


# -- operators -------------------------------------------------------------------------------------


def _binary(symbol, in_place, emit):
    @infer_global(symbol)
    @infer_global(in_place)
    class Binary(AbstractTemplate):
        def generic(self, args, kws):
            vector = widest(args) if len(args) == 2 else None
            return signature(vector, *args) if vector else None

    def lower(context, builder, sig, args):
        return emit(builder, *vectors_of(context, builder, sig.args, args))

    for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(symbol, *kinds)(lower)
        lower_builtin(in_place, *kinds)(lower)


_binary(operator.add, operator.iadd, ir.IRBuilder.fadd)
_binary(operator.sub, operator.isub, ir.IRBuilder.fsub)
_binary(operator.mul, operator.imul, ir.IRBuilder.fmul)
_binary(operator.truediv, operator.itruediv, ir.IRBuilder.fdiv)


@infer_global(operator.neg)
class Negative(AbstractTemplate):
    """The operator -a of vectors."""

    def generic(self, args, kws):
        """Return the signature of the negative of a vector, None for others."""
        return signature(args[0], *args) if isinstance(args[0], Vector) else None


@lower_builtin(operator.neg, Vector)
def _negative(context, builder, sig, args):
    return builder.fneg(args[0])


# -- functions -----------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def load(typingctx, array, index, n):
    """Load the `n` floats from `array.flat[index]` on."""
    vector = Vector(n.literal_value)

    def emit(context, builder, sig, args):
        return emit_load(context, builder, sig.args[0], args[0], args[1], vector.n)

    return vector(array, types.intp, n), emit


@intrinsic
def store(typingctx, array, index, vector):
    """Store the elements of `vector` from `array.flat[index]` on."""

    def emit(context, builder, sig, args):
        emit_store(context, builder, sig.args[0], *args)

    return types.void(array, types.intp, vector), emit


def make_copy(n: int) -> Inlined:
    """Make `copy(source, i, target, j, count)`: target.flat[j:j+count] = source.flat[i:i+count]."""

    @intrinsic
    def copy(typingctx, source, i, target, j, count):
        def emit(context, builder, sig, args):
            source, i, target, j, count = args
            whole = builder.and_(count, count.type(-n))
            for start, stop, width in ((count.type(0), whole, n), (whole, count, 1)):
                with loop(builder, start, stop, width) as k:
                    offset = builder.add(i, k)
                    value = emit_load(context, builder, sig.args[0], source, offset, width)
                    offset = builder.add(j, k)
                    emit_store(context, builder, sig.args[2], target, offset, value)

        intp = types.intp
        return types.void(source, intp, target, intp, intp), emit

    return copy


def make_transpose(n: int) -> Inlined:
    """Make `transpose(source, i, stride, target, j)`, which transposes n x n floats.

    target.flat[j + k*n + r] = source.flat[i + r*stride + k] for all r, k < n.
    """

    @intrinsic
    def transpose(typingctx, source, i, stride, target, j):
        def emit(context, builder, sig, args):
            source, i, stride, target, j = args
            rows = []
            for r in range(n):
                start = builder.add(i, builder.mul(stride, stride.type(r)))
                rows.append(emit_load(context, builder, sig.args[0], source, start, n))
            # Interleave each row of the upper half with the row n/2 below it: after log2(n)
            # rounds rows have become columns.
            half = n // 2
            zipped = [
                [x for k in part for x in (k, n + k)] for part in (range(half), range(half, n))
            ]
            orders = [ir.Constant(ir.VectorType(I32, n), order) for order in zipped]
            for _ in range(n.bit_length() - 1):
                rows = [
                    builder.shuffle_vector(rows[k // 2], rows[k // 2 + half], orders[k % 2])
                    for k in range(n)
                ]
            for k, column in enumerate(rows):
                offset = builder.add(j, j.type(k * n))
                emit_store(context, builder, sig.args[3], target, offset, column)

        intp = types.intp
        return types.void(source, intp, intp, target, intp), emit

    return transpose


@intrinsic(prefer_literal=True)
def splat(typingctx, number, n):
    """Return a vector with one number in all `n` elements."""
    vector = Vector(n.literal_value)

    def emit(context, builder, sig, args):
        value = context.cast(builder, args[0], sig.args[0], types.float32)
        return spread(builder, value, vector.n)

    return vector(number, n), emit


@intrinsic
def fma(typingctx, a, b, c):
    """Return a*b + c, rounded once."""

    def emit(context, builder, sig, args):
        return fused(builder, *vectors_of(context, builder, sig.args, args))

    return widest((a, b, c))(a, b, c), emit


def _choice(comparison, a, b, yes, no):
    def emit(context, builder, sig, args):
        first, second, one, other = vectors_of(context, builder, sig.args, args)
        return builder.select(builder.fcmp_ordered(comparison, first, second), one, other)

    return widest((a, b, yes, no))(a, b, yes, no), emit


@intrinsic
def where_less(typingctx, a, b, yes, no):
    """Return `yes` where a < b, else `no`, element by element; where a or b is NaN, `no`."""
    return _choice("<", a, b, yes, no)


@intrinsic
def where_at_most(typingctx, a, b, yes, no):
    """Return `yes` where a <= b, else `no`, element by element; where a or b is NaN, `no`."""
    return _choice("<=", a, b, yes, no)


@intrinsic
def absolute(typingctx, a):
    """Return |a|."""
    return a(a), lambda context, builder, sig, args: _call(builder, "llvm.fabs", args)


@intrinsic
def square_root(typingctx, a):
    """Return the square root of a, correctly rounded."""
    return a(a), lambda context, builder, sig, args: _call(builder, "llvm.sqrt", args)


@intrinsic
def power_of_two(typingctx, exponent):
    """Return 2**exponent for whole exponents from -126 to 127; -127 gives zero."""

    def emit(context, builder, sig, args):
        # Adding an integer to 1.5 * 2**23 puts it into the low bits of the sum.
        whole = ir.VectorType(I32, sig.args[0].n)
        bits = builder.fadd(args[0], ir.Constant(args[0].type, [12582912.0 + 127] * whole.count))
        bits = builder.shl(builder.bitcast(bits, whole), ir.Constant(whole, [23] * whole.count))
        return builder.bitcast(bits, args[0].type)

    return exponent(exponent), emit


@intrinsic
def exponent(typingctx, a):
    """Return the exponent of normal positive floats, as floats."""

    def emit(context, builder, sig, args):
        whole = ir.VectorType(I32, sig.args[0].n)
        bits = builder.lshr(builder.bitcast(args[0], whole), _all(whole, 23))
        return builder.sitofp(builder.sub(bits, _all(whole, 127)), args[0].type)

    return a(a), emit


@intrinsic
def mantissa(typingctx, a):
    """Return the mantissa of normal positive floats, in [1, 2)."""

    def emit(context, builder, sig, args):
        whole = ir.VectorType(I32, sig.args[0].n)
        bits = builder.and_(builder.bitcast(args[0], whole), _all(whole, 0x7FFFFF))
        return builder.bitcast(builder.or_(bits, _all(whole, 127 << 23)), args[0].type)

    return a(a), emit


def _all(kind, value):
    """Return a constant vector of integers."""
    return ir.Constant(kind, [value] * kind.count)


def _call(builder, name, args):
    """Emit a call of LLVM's function `name` on vectors of the type of the first argument."""
    kind = args[0].type
    full = f"{name}.v{kind.count}f32"
    function = builder.module.globals.get(full) or ir.Function(
        builder.module, ir.FunctionType(kind, [kind] * len(args)), full
    )
    return builder.call(function, args)


# -- what is declared without the compiler -------------------------------------------------------


@typeof_impl.register(Inline)
def _type_of_inline(block, context):
    if block.dispatcher is None:
        block.dispatcher = jit.inline(block.function)
    return types.Dispatcher(block.dispatcher)


@typeof_impl.register(Instruction)
def _type_of_instruction(instruction, context):
    return cpu_target.typing_context.resolve_value_type(globals()[instruction.name])
