"""Arithmetic, comparisons and reductions: NumPy where it is exact, else our own functions."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import DataError, UnsupportedError
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import (
    NodeInputs,
    Pairwise,
    axes_of,
    check_of,
    operator,
    require_room,
    tree,
    tree_sum,
)

_MAX_POWER = 64


def _pair(node: NodeDef, function: Pairwise, a: Array, b: Array) -> Array:
    require_room(node, np.broadcast_shapes(a.shape, b.shape), a, b)
    return np.asarray(function(a, b))


def _pairwise(name: str, function: Pairwise, *attributes: str) -> None:
    @operator(name, *attributes)
    def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
        a, b = inputs
        return _pair(node, function, a, b)


def _of_many(name: str, function: Pairwise) -> None:
    """Register an operator of one input or more, taken from the first to the last."""

    @operator(name)
    def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
        found: Array = reduce(lambda a, b: _pair(node, function, a, b), inputs)
        return found


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if (b == 0).any():
        raise DataError("division of integers by zero")
    return np.trunc(a / b).astype(a.dtype)


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
def _mean_of_inputs(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the mean of the inputs."""
    total = reduce(lambda a, b: _pair(node, lambda x, y: x + y, a, b), inputs)
    made: Array = np.divide(total, np.float32(len(inputs)))
    return made


@operator("Mod", "fmod")
def _mod(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the remainder, with the sign of b, or with fmod=1 of a."""
    a, b = inputs
    if a.dtype.kind == "i" and (b == 0).any():
        raise DataError(f"{node}: division of integers by zero")
    return _pair(node, np.fmod if node.attributes.get("fmod", 0) else np.mod, a, b)


def _each(name: str, function: Callable[[Array], Array]) -> None:
    @operator(name)
    def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
        return np.asarray(function(inputs[0]))


_each("Neg", np.negative)
_each("Not", np.logical_not)
_each("Abs", np.abs)
_each("Sqrt", np.sqrt)
_each("Sign", np.sign)
_each("Floor", np.floor)
_each("Ceil", np.ceil)
_each("Round", np.rint)
_each("Reciprocal", lambda x: np.float32(1) / x)


@operator("Where")
def _where(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return values of a where the condition is true, else of b."""
    condition: Array = inputs[0]
    a: Array = inputs[1]
    b: Array = inputs[2]
    require_room(node, np.broadcast_shapes(condition.shape, a.shape, b.shape), condition, a, b)
    chosen: Array = np.where(condition, a, b)
    return chosen


@operator("Clip", "min", "max")
def _clip(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Limit x: by attributes up to opset 10, by inputs from 11 on."""
    x: Array = inputs[0]
    for position, key, limit in ((1, "min", np.maximum), (2, "max", np.minimum)):
        bound = inputs[position] if len(inputs) > position else node.attributes.get(key)
        if bound is not None:
            x = limit(x, np.asarray(bound, x.dtype).reshape(()))
    return x


@operator("Pow")
def _power(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x to integers by products, to halves with a square root."""
    x, exponent = inputs[0], np.asarray(inputs[1])
    require_room(node, np.broadcast_shapes(x.shape, exponent.shape), x, exponent)
    doubled: Array = np.abs(exponent * 2).astype(np.int64)
    odd, left = doubled % 2 == 1, doubled // 2
    shape = np.broadcast_shapes(x.shape, exponent.shape)
    made: Array = np.ones(shape, x.dtype)
    if odd.any():
        made = np.where(odd, np.sqrt(x), made)
    factor = x
    while left.any():
        made = np.where(left % 2 == 1, made * factor, made)
        factor, left = factor * factor, left // 2
    if (exponent >= 0).all():
        return made
    if x.dtype.kind != "f":
        raise DataError(f"{node}: integers to a negative power")
    inverse: Array = np.where(exponent < 0, np.float32(1) / made, made)
    return inverse


@check_of("Pow")
def _check_power(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Refuse exponents that are not small multiples of one half."""
    exponent = constants.get(node.inputs[1])
    if exponent is None:
        raise UnsupportedError(f"{node}: its exponent is computed; only a constant is supported")
    twice = exponent * 2.0
    if (twice != np.rint(twice)).any() or (np.abs(exponent) > _MAX_POWER).any():
        raise UnsupportedError(
            f"{node}: exponents can be multiples of 0.5 up to {_MAX_POWER}, received "
            f"{exponent.reshape(-1).tolist()!r:.60}"
        )


def _reduction(name: str, function: Callable[[Array], Array]) -> None:
    """Register a reduction. function: of the values (n, …) over their first axis."""

    @operator(name, "axes", "keepdims", "noop_with_empty_axes")
    def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
        x = inputs[0]
        axes = axes_of(node, inputs)
        if not axes:
            axes = [] if node.attributes.get("noop_with_empty_axes", 0) else list(range(x.ndim))
        if any(not -x.ndim <= axis < x.ndim for axis in axes):
            raise DataError(f"{node}: axes {axes} of an array with {x.ndim} axes")
        over = sorted(axis % x.ndim for axis in axes)
        kept = [i for i in range(x.ndim) if i not in over]
        sizes = [x.shape[i] for i in kept]
        count = int(np.prod([x.shape[i] for i in over], dtype=np.int64))
        y = function(np.transpose(x, over + kept).reshape(count, *sizes))
        if node.attributes.get("keepdims", 1):
            y = y.reshape([1 if i in over else n for i, n in enumerate(x.shape)])
        return np.ascontiguousarray(y).reshape(y.shape)


def _mean(x: Array) -> Array:
    total = tree_sum(x)
    return _divide(total, np.asarray(len(x), total.dtype))


_reduction("ReduceSum", tree_sum)
_reduction("ReduceMean", _mean)


def _least(dtype: np.dtype[Any]) -> Any:
    """Return the smallest value of a type: the maximum of no values."""
    if dtype.kind == "f":
        return -np.inf
    return False if dtype.kind == "b" else np.iinfo(dtype).min


def _most(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return np.inf
    return True if dtype.kind == "b" else np.iinfo(dtype).max


_reduction("ReduceMax", lambda x: x.max(axis=0, initial=_least(x.dtype)))
_reduction("ReduceMin", lambda x: x.min(axis=0, initial=_most(x.dtype)))
_reduction("ReduceProd", lambda x: tree(x, lambda a, b: a * b, 1))
_reduction("ReduceL1", lambda x: tree_sum(np.abs(x)))
_reduction("ReduceL2", lambda x: np.sqrt(tree_sum(x * x)))
_reduction("ReduceSumSquare", lambda x: tree_sum(x * x))


def _position(name: str, function: Callable[[Array, int], Array]) -> None:
    @operator(name, "axis", "keepdims", "select_last_index")
    def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
        x, axis = inputs[0], node.attributes.get("axis", 0)
        if node.attributes.get("select_last_index", 0):
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis)
        else:
            found = function(x, axis)
        keep = node.attributes.get("keepdims", 1)
        return np.asarray(np.expand_dims(found, axis) if keep else found, np.int64)


_position("ArgMax", lambda x, axis: np.argmax(x, axis))
_position("ArgMin", lambda x, axis: np.argmin(x, axis))
