"""Operators that change shapes, and those that compute them."""

from collections.abc import Mapping

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import DataError, UnsupportedError
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import (
    NodeInputs,
    axes_of,
    check_of,
    ints_of,
    operator,
    require_room,
)


@operator("Identity")
def _identity(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x."""
    x: Array = inputs[0]
    return x


@operator("Dropout", "ratio", "seed", "is_test")
def _dropout(node: NodeDef, inputs: NodeInputs, opset: int) -> list[Array]:
    """Return x and, as its mask, True everywhere: nothing is dropped outside training."""
    x: Array = inputs[0]
    return [x, np.ones(x.shape, np.bool_)]


@check_of("Dropout")
def _check_dropout(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Refuse training_mode, if it is set or not constant."""
    mode = node.inputs[2] if len(node.inputs) > 2 else ""
    if mode and (mode not in constants or constants[mode].any()):
        raise UnsupportedError(
            f"{node}: training_mode is set, or computed; export the model in eval mode"
        )


_TYPES: dict[object, type[np.generic]] = {
    1: np.float32,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
}
"""By their codes in TensorProto."""


@operator("Cast", "to", "saturate", "round_mode")
def _cast(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Cast x to a type, given by its code in TensorProto."""
    x: Array = inputs[0]
    return x.astype(_TYPES[node.attributes["to"]])


@check_of("Cast")
def _check_cast(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Refuse other types."""
    if node.attributes.get("to") not in _TYPES:
        raise UnsupportedError(
            f"{node}: to={node.attributes.get('to')} is not supported; supported are float32, "
            "int32, int64, bool"
        )


@operator("CastLike", "saturate", "round_mode")
def _cast_like(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Cast x to the type of another input."""
    x: Array = inputs[0]
    return x.astype(inputs[1].dtype)


@operator("Shape", "start", "end")
def _shape_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the sizes of the axes."""
    shape = inputs[0].shape
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    return np.array(shape[start:end], np.int64)


@operator("ConstantOfShape", "value")
def _constant_of_shape(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Fill an array with one value."""
    shape = ints_of(inputs[0])
    require_room(node, shape)
    dtype, value = node.attributes.get("value", ("float32", 0.0))
    return np.full(shape, value, dtype)


@operator("Expand")
def _expand(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Repeat x along axes of size 1."""
    shape = np.broadcast_shapes(inputs[0].shape, tuple(ints_of(inputs[1])))
    require_room(node, shape)
    return np.ascontiguousarray(np.broadcast_to(inputs[0], shape))


@operator("Transpose", "perm")
def _transpose(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Permute the axes of x."""
    return np.ascontiguousarray(np.transpose(inputs[0], node.attributes.get("perm")))


@operator("Squeeze", "axes")
def _squeeze(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Remove axes of size 1."""
    axes = axes_of(node, inputs)
    x: Array = inputs[0]
    return np.squeeze(x, None if axes is None else tuple(axes))


@operator("Unsqueeze", "axes")
def _unsqueeze(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Insert axes of size 1."""
    axes = axes_of(node, inputs)
    if axes is None:
        raise UnsupportedError(f"{node}: axes are missing")
    return np.expand_dims(inputs[0], tuple(axes))


@operator("Reshape", "allowzero")
def _reshape(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Reshape x; 0 copies a size, -1 is inferred."""
    x: Array = inputs[0]
    shape = ints_of(inputs[1])
    if not node.attributes.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


@operator("Flatten", "axis")
def _flatten(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Reshape x to two axes: those before `axis`, and the others."""
    x: Array = inputs[0]
    axis = node.attributes.get("axis", 1)
    before = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(before, -1) if x.size else x.reshape(before, 0)


@operator("Concat", "axis")
def _concat(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Concatenate the inputs along an axis."""
    return np.concatenate(inputs, axis=node.attributes.get("axis", 0))


@operator("Split", "axis", "split", "num_outputs")
def _split_of(node: NodeDef, inputs: NodeInputs, opset: int) -> list[Array]:
    """Split x along an axis, into equal parts or parts of given sizes."""
    x, axis = inputs[0], node.attributes.get("axis", 0)
    sizes = inputs[1] if len(inputs) > 1 else node.attributes.get("split")
    if sizes is not None:
        return np.split(x, np.cumsum(ints_of(sizes))[:-1], axis=axis)
    parts, size = len(node.outputs), x.shape[axis]
    step = -(-size // parts)
    return np.split(x, [min(step * i, size) for i in range(1, parts)], axis=axis)


@operator("Gather", "axis")
def _gather(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Take the entries of x at these indices of an axis."""
    x, index = inputs
    axis = node.attributes.get("axis", 0)
    size = x.shape[axis]
    if index.size and (index.min() < -size or index.max() >= size):
        invalid = int(index.max() if index.max() >= size else index.min())
        raise DataError(f"{node}: index {invalid} is outside 0…{size - 1}")
    taken: Array = np.take(x, index, axis=axis)
    return taken


@operator("Slice", "starts", "ends", "axes")
def _slice_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Slice x along some axes."""
    x = inputs[0]
    given = [inputs[i] if len(inputs) > i else None for i in range(1, 5)]
    attributes = node.attributes
    starts = ints_of(attributes["starts"] if given[0] is None else given[0])
    ends = ints_of(attributes["ends"] if given[1] is None else given[1])
    axes = axes_of(node, inputs, 3) or list(range(len(starts)))
    steps = [1] * len(starts) if given[3] is None else ints_of(given[3])
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.shape[axis]
        begin, stop = _bounds(start, size, step), _bounds(end, size, step)
        index[axis] = slice(begin, None if stop < 0 else stop, step)
    return np.ascontiguousarray(x[tuple(index)])


def _bounds(value: int, size: int, step: int) -> int:
    """Return a start or end, clamped as in the standard; -1 is before the first for steps < 0."""
    value = value + size if value < 0 else value
    return min(max(value, 0), size) if step > 0 else min(max(value, -1), size - 1)


@operator("Size")
def _size_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the number of values."""
    return np.array(inputs[0].size, np.int64)


@operator("Range")
def _range_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return start, start + step, …, below the limit."""
    start, limit, step = (np.asarray(x).reshape(()) for x in inputs)
    if step == 0:
        raise DataError(f"{node}: its step is 0")
    count = max(int(np.ceil((limit - start) / step)), 0)
    require_room(node, [count])
    steps = np.arange(count).astype(start.dtype)
    made: Array = start + steps * step
    return made


@operator("Tile")
def _tile(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Repeat x along its axes."""
    x, repeats = inputs[0], ints_of(inputs[1])
    require_room(node, (n * k for n, k in zip(x.shape, repeats, strict=True)), x)
    return np.tile(x, repeats)


@operator("Pad", "mode", "pads", "value")
def _pad(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Add entries at the ends of axes, or remove them where a number is negative."""
    x = inputs[0]
    pads = ints_of(node.attributes["pads"] if len(inputs) < 2 else inputs[1])
    axes = axes_of(node, inputs, 3) or list(range(x.ndim))
    width = [(0, 0)] * x.ndim
    cut = [slice(None)] * x.ndim
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        cut[axis] = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
        width[axis] = (max(before, 0), max(after, 0))
    x = x[tuple(cut)]
    require_room(node, (n + a + b for n, (a, b) in zip(x.shape, width, strict=True)), x)
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        return np.pad(x, width, mode)
    given = inputs[2] if len(inputs) > 2 else None
    value = node.attributes.get("value", 0.0) if given is None else np.asarray(given).reshape(())
    return np.pad(x, width, constant_values=value)


@check_of("Pad")
def _check_pad(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Refuse other modes."""
    mode = node.attributes.get("mode", "constant")
    if mode not in ("constant", "edge", "reflect"):
        raise UnsupportedError(
            f"{node}: mode={mode!r} is not supported; supported are constant, edge and reflect"
        )
