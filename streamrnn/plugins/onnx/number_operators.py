"""Arithmetic, comparisons and reductions: by NumPy where it is exact, else by our functions.

Between DequantizeLinear and the next QuantizeLinear, a graph computes in float32. Weights stored as
integers become float32 when the graph is folded. QuantizeLinear followed by DequantizeLinear rounds
a value to one that the integers of the file can express.
"""

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import DataError, UnsupportedError
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import (
    Pairwise,
    ints_of,
    limits,
    operator,
    require_room,
    tree,
    tree_sum,
)

_MAX_POWER = 64
_TYPES = {"int8": np.int8, "uint8": np.uint8}
_CODES = {2: "uint8", 3: "int8"}
_SCALED = ("axis", "block_size", "output_dtype")


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
    """Return powers of x: by products for integer exponents, with a square root for halves.

    The result has the type of x.
    """
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
    if quantizes and zero and str(getattr(constants.get(zero), "dtype", "")) not in _TYPES:
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
    dtype = _TYPES[_CODES.get(output_dtype, "uint8")] if zero is None else zero.dtype
    ends = np.iinfo(dtype)
    whole = np.rint(x / _along(axis, x, scale))
    if zero is not None:
        whole = whole + _along(axis, x, zero).astype(np.float32)
    return np.minimum(np.maximum(whole, ends.min), ends.max).astype(dtype)
