"""Operators that change or compute shapes."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from streamrnn.base.arrays import Array, Ints
from streamrnn.errors import DataError, UnsupportedError
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import ints_of, one_of, operator, require_room

_TYPES: dict[object, type[np.generic]] = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}
"""Types by their codes in TensorProto."""

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
    """Reshape x; 0 copies a size, -1 is inferred."""
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
