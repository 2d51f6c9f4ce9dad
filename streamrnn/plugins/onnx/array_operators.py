"""Operators of arrays: arithmetic, comparisons, reductions, quantization, and shapes.

NumPy computes an operator where NumPy is exact, our functions elsewhere. Between DequantizeLinear
and the next QuantizeLinear, a graph computes in float32. Weights stored as integers become float32
when the graph is folded. QuantizeLinear followed by DequantizeLinear rounds a value to one that the
integers of the file can express.
"""

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from streamrnn.base.arrays import Array, Bools, Ints
from streamrnn.errors import DataError, UnsupportedError
from streamrnn.plugins.onnx.graph import (
    NodeDef,
    Pairwise,
    ints_of,
    limits,
    one_of,
    operator,
    require_room,
    tree,
    tree_sum,
)

_MAX_POWER = 64
_CODES = {2: "uint8", 3: "int8"}
"""Types of quantized values by their codes in TensorProto."""
_SCALED = ("axis", "block_size", "output_dtype")
_TYPES: dict[object, type[np.generic]] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}
"""Types that Cast can return, by their codes."""


def _pair(function: Pairwise, a: Array, b: Array) -> Array:
    require_room(np.broadcast_shapes(a.shape, b.shape), a, b)
    return np.asarray(function(a, b))


def _pairwise(name: str, function: Pairwise) -> None:
    operator(name)(lambda a, b: _pair(function, a, b))


def _of_many(name: str, function: Pairwise) -> None:
    """Register an operator of one or more inputs, combined from first to last."""
    operator(name)(lambda *inputs: reduce(lambda a, b: _pair(function, a, b), inputs))


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if (b == 0).any():
        raise DataError("division of integers by zero")
    return np.asarray((a - np.fmod(a, b)) // b)


_pairwise("Add", lambda a, b: a + b)
_pairwise("Sub", lambda a, b: a - b)
_pairwise("Mul", lambda a, b: a * b)
_pairwise("Div", _divide)
_pairwise("Less", np.less)
_pairwise("LessOrEqual", np.less_equal)
_pairwise("Greater", np.greater)
_pairwise("GreaterOrEqual", np.greater_equal)
_pairwise("Equal", np.equal)
_pairwise("And", np.logical_and)
_pairwise("Or", np.logical_or)
_pairwise("Xor", np.logical_xor)
_of_many("Max", np.maximum)
_of_many("Min", np.minimum)
_of_many("Sum", lambda a, b: a + b)


@operator("Mean")
def _mean_of_inputs(*inputs: Array) -> Array:
    total = reduce(lambda a, b: _pair(np.add, a, b), inputs)
    return np.divide(total, np.float32(len(inputs)))


@operator("Mod", "fmod")
def _mod(a: Array, b: Array, fmod: int = 0) -> Array:
    """Return the remainder, with the sign of b or, with fmod=1, of a."""
    if a.dtype.kind == "i" and (b == 0).any():
        raise DataError("division of integers by zero")
    return _pair(np.fmod if fmod else np.mod, a, b)


operator("Neg")(lambda x: np.negative(x))
operator("Not")(lambda x: np.logical_not(x))
operator("Abs")(lambda x: np.abs(x))
operator("Sqrt")(lambda x: np.sqrt(x))
operator("Sign")(lambda x: np.sign(x))
operator("Floor")(lambda x: np.floor(x))
operator("Ceil")(lambda x: np.ceil(x))
operator("Round")(lambda x: np.rint(x))
operator("Reciprocal")(lambda x: np.float32(1) / x)


@operator("Where")
def _where(condition: Bools, a: Array, b: Array) -> Array:
    require_room(np.broadcast_shapes(condition.shape, a.shape, b.shape), condition, a, b)
    return np.where(condition, a, b)


@operator("Clip", "min", "max")
def _clip(x: Array, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Array:
    """Limit x, by attributes up to opset 10, by inputs from 11 on."""
    for bound, limit in ((min, np.maximum), (max, np.minimum)):
        if bound is not None:
            x = limit(x, np.asarray(bound, x.dtype).reshape(()))
    return x


def _check_power(node: NodeDef, constants: Mapping[str, Array]) -> None:
    exponent = constants.get(node.inputs[1])
    if exponent is None:
        raise UnsupportedError("its exponent is computed; only a constant is supported")
    twice = exponent * 2.0
    if (twice != np.rint(twice)).any() or (np.abs(twice) > 2 * _MAX_POWER).any():
        raise UnsupportedError(
            f"exponents must be multiples of 0.5, at most {_MAX_POWER} in absolute value, received "
            f"{exponent.reshape(-1).tolist()!r:.60}"
        )


@operator("Pow", check=_check_power)
def _power(x: Array, exponent: Array) -> Array:
    """Return powers of x in x's type: products, times a square root if the exponent has a half."""
    shape = np.broadcast_shapes(x.shape, exponent.shape)
    require_room(shape, x, exponent)
    doubled = np.abs(exponent * 2.0).astype(np.int64)  # 64 * 2 is too large for int8
    odd, left = doubled % 2 == 1, doubled // 2
    power: Array = np.ones(shape, x.dtype)
    if odd.any():
        power = np.where(odd, np.sqrt(x), power)
    factor = x
    while left.any():
        power = np.where(left % 2 == 1, power * factor, power)
        factor, left = factor * factor, left // 2
    if (exponent >= 0).all():
        return power.astype(x.dtype, copy=False)
    if x.dtype.kind != "f":
        raise DataError(
            f"powers of integers need exponents of 0 or more, received {exponent.min()}"
        )
    return np.where(exponent < 0, np.float32(1) / power, power)


def _reduction(name: str, function: Callable[[Array], Array]) -> None:
    """Register a reduction. function: reduces values (n, …) over their first axis."""

    @operator(name, "axes", "keepdims", "noop_with_empty_axes")
    def reduced(
        x: Array, axes: ArrayLike | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Array:
        along = ints_of(axes) or ([] if noop_with_empty_axes else list(range(x.ndim)))
        if any(not -x.ndim <= axis < x.ndim for axis in along):
            raise DataError(f"axes {along} do not fit an array with {x.ndim} axes")
        over = sorted(axis % x.ndim for axis in along)
        kept = [i for i in range(x.ndim) if i not in over]
        sizes = [x.shape[i] for i in kept]
        count = int(np.prod([x.shape[i] for i in over], dtype=np.int64))
        y = function(np.transpose(x, over + kept).reshape(count, *sizes))
        if keepdims:
            y = y.reshape([1 if i in over else n for i, n in enumerate(x.shape)])
        return np.ascontiguousarray(y).reshape(y.shape)


_reduction("ReduceSum", tree_sum)
_reduction("ReduceMean", lambda x: _divide(tree_sum(x), np.asarray(len(x), x.dtype)))
_reduction("ReduceMax", lambda x: x.max(axis=0, initial=limits(x.dtype)[0]))
_reduction("ReduceMin", lambda x: x.min(axis=0, initial=limits(x.dtype)[1]))
_reduction("ReduceProd", lambda x: tree(x, lambda a, b: a * b, 1))
_reduction("ReduceL1", lambda x: tree_sum(np.abs(x)))
_reduction("ReduceL2", lambda x: np.sqrt(tree_sum(x * x)).astype(x.dtype))
_reduction("ReduceSumSquare", lambda x: tree_sum(x * x))


def _position(name: str, function: Callable[[Array, int], Array]) -> None:
    @operator(name, "axis", "keepdims", "select_last_index")
    def place(x: Array, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
        if select_last_index:
            index = x.shape[axis] - 1 - function(np.flip(x, axis), axis)
        else:
            index = function(x, axis)
        return np.asarray(np.expand_dims(index, axis) if keepdims else index, np.int64)


_position("ArgMax", np.argmax)
_position("ArgMin", np.argmin)


def _along(axis: int, x: Array, value: Array) -> Array:
    """Return a scale or zero point in a shape that can be broadcast with x."""
    if value.size == 1 and value.ndim < 2:
        return value.reshape(())
    return value.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _check_quantization(node: NodeDef, constants: Mapping[str, Array]) -> None:
    attributes = node.attributes
    if attributes.get("block_size", 0):
        raise UnsupportedError("scales of blocks (block_size) are not supported")
    quantizes = node.op == "QuantizeLinear"
    supported = {"output_dtype": (0, *_CODES) if quantizes else (0, 1), "precision": (0, 1)}
    for name, codes in supported.items():
        if attributes.get(name, 0) not in codes:
            raise UnsupportedError(f"{name}: expected one of {codes}, received {attributes[name]}")
    zero = node.input(2)
    if quantizes and zero and str(getattr(constants.get(zero), "dtype", "")) not in _CODES.values():
        raise UnsupportedError("zero points must be constant, int8 or uint8")


@operator("DequantizeLinear", *_SCALED, check=_check_quantization)
def _dequantize(x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1) -> Array:
    whole = x.astype(np.int64)
    if zero is not None:
        whole = whole - _along(axis, x, zero).astype(np.int64)
    return np.asarray(whole.astype(np.float32) * _along(axis, x, scale))


@operator("QuantizeLinear", *_SCALED, "precision", "saturate", check=_check_quantization)
def _quantize(
    x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1, output_dtype: int = 2
) -> Array:
    """Return x / scale, rounded (halves to even), plus the zero point, limited to the range."""
    dtype = np.dtype(_CODES.get(output_dtype, "uint8")) if zero is None else zero.dtype
    ends = np.iinfo(dtype)
    whole = np.rint(x / _along(axis, x, scale))
    if zero is not None:
        whole = whole + _along(axis, x, zero).astype(np.float32)
    return np.minimum(np.maximum(whole, ends.min), ends.max).astype(dtype)


operator("Identity")(lambda x: x)
operator("CastLike", "saturate", "round_mode")(lambda x, like: x.astype(like.dtype))
operator("Concat", "axis")(lambda *inputs, axis=0: np.concatenate(inputs, axis=axis))
operator("Size")(lambda x: np.array(x.size, np.int64))
operator("Transpose", "perm")(lambda x, perm=None: np.asarray(np.transpose(x, perm), order="C"))


def _check_dropout(node: NodeDef, constants: Mapping[str, Array]) -> None:
    mode = node.input(2)
    if mode and (mode not in constants or constants[mode].any()):
        raise UnsupportedError("training_mode is set, or computed; export the model in eval mode")


@operator("Dropout", "ratio", "seed", "is_test", check=_check_dropout)
def _dropout(x: Array, ratio: object = None, training: object = None) -> list[Array]:
    """Return x and, as its mask, True everywhere: nothing is dropped outside training."""
    return [x, np.ones(x.shape, np.bool_)]


def _check_cast(node: NodeDef, constants: Mapping[str, Array]) -> None:
    if node.attributes.get("to") not in _TYPES:
        raise UnsupportedError(
            f"to={node.attributes.get('to')} is not supported; supported: float32, "
            "int32, int64, bool"
        )


@operator("Cast", "to", "saturate", "round_mode", check=_check_cast)
def _cast(x: Array, to: int) -> Array:
    return x.astype(_TYPES[to])


@operator("Shape", "start", "end")
def _shape_of(x: Array, start: int = 0, end: int | None = None) -> Array:
    return np.array(x.shape[start:end], np.int64)


@operator("ConstantOfShape", "value")
def _constant_of_shape(shape: Ints, *, value: tuple[str, float] = ("float32", 0.0)) -> Array:
    require_room(ints_of(shape))
    dtype, number = value
    return np.full(ints_of(shape), number, dtype)


@operator("Expand")
def _expand(x: Array, sizes: Ints) -> Array:
    shape = np.broadcast_shapes(x.shape, tuple(ints_of(sizes)))
    require_room(shape)
    return np.asarray(np.broadcast_to(x, shape), order="C")


@operator("Squeeze", "axes")
def _squeeze(x: Array, axes: ArrayLike | None = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(ints_of(axes)))


@operator("Unsqueeze", "axes")
def _unsqueeze(x: Array, axes: ArrayLike | None = None) -> Array:
    if axes is None:
        raise UnsupportedError("expected axes, as an input or an attribute")
    return np.expand_dims(x, tuple(ints_of(axes)))


@operator("Reshape", "allowzero")
def _reshape(x: Array, sizes: Ints, allowzero: int = 0) -> Array:
    """Reshape x; a size of 0 is copied from x unless `allowzero`, -1 is inferred."""
    shape = ints_of(sizes)
    if not allowzero:
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


@operator("Flatten", "axis")
def _flatten(x: Array, axis: int = 1) -> Array:
    """Reshape x to two axes: one for all axes before `axis`, one for the rest."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Split", "axis", "split", "num_outputs")
def _split_of(
    x: Array, split: ArrayLike | None = None, *, axis: int = 0, node: NodeDef
) -> list[Array]:
    """Split x along an axis, into equal parts or into parts of the sizes `split`."""
    count, size = len(node.outputs), x.shape[axis]
    if split is None:
        step = -(-size // count)
        return np.split(x, [min(step * i, size) for i in range(1, count)], axis=axis)
    sizes = ints_of(split)
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 0:
        raise DataError(f"an axis of size {size} cannot have {count} parts of the sizes {sizes}")
    return np.split(x, np.cumsum(sizes)[:-1], axis=axis)


@operator("Gather", "axis")
def _gather(x: Array, index: Ints, axis: int = 0) -> Array:
    size = x.shape[axis]
    if index.size and (index.min() < -size or index.max() >= size):
        invalid = int(index.max() if index.max() >= size else index.min())
        raise DataError(f"index {invalid} is outside the axis, whose last index is {size - 1}")
    return np.asarray(np.take(x, index, axis=axis))


@operator("Slice", "starts", "ends", "axes")
def _slice_of(
    x: Array,
    starts: ArrayLike,
    ends: ArrayLike,
    axes: ArrayLike | None = None,
    steps: ArrayLike | None = None,
) -> Array:
    firsts = ints_of(starts)
    slices = zip(
        ints_of(axes) or range(len(firsts)),
        firsts,
        ints_of(ends),
        [1] * len(firsts) if steps is None else ints_of(steps),
        strict=True,
    )
    index = [slice(None)] * x.ndim
    for axis, start, end, step in slices:
        size = x.shape[axis]
        begin, stop = _bounds(start, size, step), _bounds(end, size, step)
        index[axis] = slice(max(begin, 0), None if stop < 0 else stop, step)
    return np.ascontiguousarray(x[tuple(index)])


def _bounds(value: int, size: int, step: int) -> int:
    """Return a start or end, clamped as in ONNX; a result of -1 is before all entries."""
    value = value + size if value < 0 else value
    return min(max(value, 0), size) if step > 0 else min(max(value, -1), size - 1)


@operator("Range")
def _range_of(*inputs: Array) -> Array:
    """Return start, start + step, … up to the limit, which is not included."""
    start, limit, step = (np.asarray(x).reshape(()) for x in inputs)
    if step == 0:
        raise DataError("expected a step other than 0")
    count = max(math.ceil(float(limit - start) / float(step)), 0)
    require_room([count])
    return np.asarray(start + np.arange(count).astype(start.dtype) * step)


@operator("Tile")
def _tile(x: Array, repeats: Ints) -> Array:
    counts = ints_of(repeats)
    require_room((n * k for n, k in zip(x.shape, counts, strict=True)), x)
    return np.tile(x, counts)


@operator("Pad", "mode", "pads", "value", check=one_of("mode", "constant", "edge", "reflect"))
def _pad(
    x: Array,
    pads: ArrayLike,
    value: ArrayLike | None = None,
    axes: ArrayLike | None = None,
    *,
    mode: Any = "constant",
) -> Array:
    """Add entries at the ends of axes, or remove them where a number is negative."""
    padded = ints_of(axes) or range(x.ndim)
    ends: list[Any] = [(0, 0)] * x.ndim
    for axis, pair in zip(padded, np.reshape(ints_of(pads), (2, -1)).T.tolist(), strict=True):
        ends[axis] = pair
    sizes = list(zip(x.shape, ends, strict=True))
    require_room((n + min(a, 0) + min(b, 0) for n, (a, b) in sizes), x)
    require_room((n + a + b for n, (a, b) in sizes), x)
    x = x[tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in sizes)]
    width = [(max(a, 0), max(b, 0)) for a, b in ends]
    if mode != "constant":
        return np.pad(x, width, mode)
    return np.pad(x, width, constant_values=0.0 if value is None else np.reshape(value, ()))
