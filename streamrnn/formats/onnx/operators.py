"""The operators besides the recurrent ones, on arrays. Attributes are honoured, or refused.

Every function takes its node, the inputs (None if omitted) and the opset. Sums are computed by the
kernels, so that no result depends on how many rows or steps are computed at once.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from streamrnn.arrays import Array
from streamrnn.errors import DataError, ShapeError, UnsupportedError
from streamrnn.formats.onnx.graph import NodeDef
from streamrnn.kernels import activation, dense, normalization

NodeInputs = list[Any]
"""Arrays, None for an omitted one."""
Operator = Callable[[NodeDef, NodeInputs, int], Array | list[Array]]

OPERATORS: dict[str, Operator] = {}
ALLOWED: dict[str, frozenset[str]] = {}
"""The attributes that an operator's function supports."""

MAX_VALUES = 1 << 25
"""The number of values that an array may have whatever the size of its inputs: 128 MB."""
_MAX_GROWTH = 64


def operator(name: str, *attributes: str) -> Callable[[Operator], Operator]:
    """Register the function of an operator."""

    def register(function: Operator) -> Operator:
        OPERATORS[name] = function
        ALLOWED[name] = frozenset(attributes)
        return function

    return register


def require_room(node: NodeDef, shape: Iterable[int], *inputs: Array) -> None:
    """Raise ShapeError for an array to be made that is far larger than `inputs`."""
    sizes = tuple(int(n) for n in shape)
    size = 1
    for n in sizes:
        size *= n
    limit = MAX_VALUES + _MAX_GROWTH * sum(x.size for x in inputs)
    if size > limit or any(n < 0 for n in sizes):
        raise ShapeError(
            f"{node} would make an array of shape {sizes}; the limit is {limit:,} values"
        )


def _ints(value: object) -> list[int]:
    return [int(n) for n in np.asarray(value).reshape(-1)]


def _axes(node: NodeDef, inputs: NodeInputs, position: int = 1) -> list[int] | None:
    """Return axes: an attribute up to opset 12, an input from 13 on."""
    if len(inputs) > position and inputs[position] is not None:
        return _ints(inputs[position])
    axes = node.attributes.get("axes")
    return None if axes is None else _ints(axes)


# ---- shapes


@operator("Identity")
def identity(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x."""
    x: Array = inputs[0]
    return x


@operator("Dropout", "ratio", "seed", "is_test")
def dropout(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x: nothing is dropped outside training."""
    if len(inputs) > 2 and inputs[2] is not None and bool(np.asarray(inputs[2]).reshape(-1)[0]):
        raise UnsupportedError(f"{node}: training_mode is set; export the model in eval mode")
    x: Array = inputs[0]
    return x


@operator("Cast", "to", "saturate", "round_mode")
def cast(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Cast x to a type, given by its code in TensorProto."""
    types = {1: np.float32, 6: np.int32, 7: np.int64, 9: np.bool_}
    if node.attributes.get("to") not in types:
        raise UnsupportedError(
            f"{node}: to={node.attributes.get('to')} is not supported; supported are float32, "
            "int32, int64, bool"
        )
    x: Array = inputs[0]
    return x.astype(types[node.attributes["to"]])


@operator("Shape", "start", "end")
def shape_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the sizes of the axes."""
    shape = inputs[0].shape
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    return np.array(shape[start:end], np.int64)


@operator("ConstantOfShape", "value")
def constant_of_shape(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Fill an array with one value."""
    shape = _ints(inputs[0])
    require_room(node, shape)
    dtype, value = node.attributes.get("value", ("float32", 0.0))
    return np.full(shape, value, dtype)


@operator("Expand")
def expand(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Repeat x along axes of size 1."""
    shape = np.broadcast_shapes(inputs[0].shape, tuple(_ints(inputs[1])))
    require_room(node, shape)
    return np.ascontiguousarray(np.broadcast_to(inputs[0], shape))


@operator("Transpose", "perm")
def transpose(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Permute the axes of x."""
    return np.ascontiguousarray(np.transpose(inputs[0], node.attributes.get("perm")))


@operator("Squeeze", "axes")
def squeeze(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Remove axes of size 1."""
    axes = _axes(node, inputs)
    x: Array = inputs[0]
    return np.squeeze(x, None if axes is None else tuple(axes))


@operator("Unsqueeze", "axes")
def unsqueeze(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Insert axes of size 1."""
    axes = _axes(node, inputs)
    if axes is None:
        raise UnsupportedError(f"{node}: axes are missing")
    return np.expand_dims(inputs[0], tuple(axes))


@operator("Reshape", "allowzero")
def reshape(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Reshape x; 0 copies a size, -1 is inferred."""
    x: Array = inputs[0]
    shape = _ints(inputs[1])
    if not node.attributes.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


@operator("Flatten", "axis")
def flatten(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Reshape x to two axes: those before `axis`, and the others."""
    x: Array = inputs[0]
    axis = node.attributes.get("axis", 1)
    before = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(before, -1) if x.size else x.reshape(before, 0)


@operator("Concat", "axis")
def concat(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Concatenate the inputs along an axis."""
    return np.concatenate(inputs, axis=node.attributes.get("axis", 0))


@operator("Split", "axis", "split", "num_outputs")
def split_of(node: NodeDef, inputs: NodeInputs, opset: int) -> list[Array]:
    """Split x along an axis, into equal parts or parts of given sizes."""
    x, axis = inputs[0], node.attributes.get("axis", 0)
    sizes = inputs[1] if len(inputs) > 1 else node.attributes.get("split")
    if sizes is not None:
        return np.split(x, np.cumsum(_ints(sizes))[:-1], axis=axis)
    parts, size = len(node.outputs), x.shape[axis]
    step = -(-size // parts)
    return np.split(x, [min(step * i, size) for i in range(1, parts)], axis=axis)


@operator("Gather", "axis")
def gather(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
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
def slice_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Slice x along some axes."""
    x = inputs[0]
    given = [inputs[i] if len(inputs) > i else None for i in range(1, 5)]
    attributes = node.attributes
    starts = _ints(attributes["starts"] if given[0] is None else given[0])
    ends = _ints(attributes["ends"] if given[1] is None else given[1])
    axes = _axes(node, inputs, 3) or list(range(len(starts)))
    steps = [1] * len(starts) if given[3] is None else _ints(given[3])
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


# ---- arithmetic


def _elementwise(name: str, function: Callable[[Array, Array], Array]) -> None:
    @operator(name)
    def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
        a, b = inputs
        require_room(node, np.broadcast_shapes(a.shape, b.shape), a, b)
        return np.asarray(function(a, b))


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if (b == 0).any():
        raise DataError("division of integers by zero")
    return np.trunc(a / b).astype(a.dtype)


_elementwise("Add", lambda a, b: a + b)
_elementwise("Sub", lambda a, b: a - b)
_elementwise("Mul", lambda a, b: a * b)
_elementwise("Div", _divide)


@operator("Neg")
def neg(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return -x."""
    x: Array = inputs[0]
    return np.negative(x)


@operator("MatMul")
def matmul(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x W, where W is a constant matrix."""
    x, w = inputs
    if w.ndim != 2 or x.ndim < 1:
        raise UnsupportedError(
            f"{node}: only a product with a constant matrix on the right is supported, received "
            f"shapes {x.shape} and {w.shape}"
        )
    return product(node, x, w, None)


@operator("Gemm", "alpha", "beta", "transA", "transB")
def gemm(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return alpha x W + beta b."""
    a, b = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    if node.attributes.get("transA", 0):
        raise UnsupportedError(f"{node}: transA=1 is not supported")
    x, w = inputs[:2]
    w = np.float32(a) * (w.T if node.attributes.get("transB", 0) else w)
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is None:
        return product(node, x, w, None)
    if bias.size not in (1, w.shape[1]):
        shifted: Array = product(node, x, w, None) + np.float32(b) * bias
        return shifted
    return product(node, x, w, np.broadcast_to(np.float32(b) * bias.reshape(-1), w.shape[1]))


def product(node: NodeDef, x: Array, w: Array, bias: Array | None) -> Array:
    """Return x W + b over the last axis of x, each row independently."""
    if x.shape[-1] != w.shape[0] or x.dtype != np.float32 or w.dtype != np.float32:
        raise ShapeError(f"{node}: {x.dtype} {x.shape} cannot be multiplied by {w.dtype} {w.shape}")
    require_room(node, (*x.shape[:-1], w.shape[1]), x)
    y = np.empty((*x.shape[:-1], w.shape[1]), np.float32)
    packed = dense.pack(
        np.ascontiguousarray(w), None if bias is None else np.ascontiguousarray(bias)
    )
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    dense.run(packed, rows, y.reshape(-1, w.shape[1]), activation="linear")
    return y


# ---- activations


def _activation(
    name: str, kernel: str, parameters: dict[str, tuple[str, float]] | None = None
) -> None:
    """Register an activation. parameters: ONNX attribute -> (kernel's parameter, default)."""
    parameters = parameters or {}

    @operator(name, *parameters)
    def run(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
        x = np.ascontiguousarray(inputs[0], dtype=np.float32)
        y = np.empty_like(x)
        values = {
            parameter: float(node.attributes.get(attribute, default))
            for attribute, (parameter, default) in parameters.items()
        }
        if x.size:
            activation.run(kernel, x, y, **values)
        return y


_activation("Relu", "relu")
_activation("Tanh", "tanh")
_activation("Sigmoid", "sigmoid")
_activation("Softplus", "softplus")
_activation("Softsign", "softsign")
_activation("Elu", "elu", {"alpha": ("alpha", 1.0)})
_activation("LeakyRelu", "leaky_relu", {"alpha": ("negative_slope", 0.01)})
_activation("HardSigmoid", "hard_sigmoid_02", {"alpha": ("alpha", 0.2), "beta": ("beta", 0.5)})
_activation("ThresholdedRelu", "thresholded_relu", {"alpha": ("alpha", 1.0)})
_activation(
    "Selu",
    "selu",
    {"alpha": ("alpha", 1.67326319217681884765625), "gamma": ("scale", 1.05070102214813232421875)},
)


@operator("Softmax", "axis")
def softmax_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Compute softmax over one axis; before opset 13 over all axes from `axis` on."""
    x = inputs[0].astype(np.float32)
    axis = node.attributes.get("axis", -1 if opset >= 13 else 1) % max(x.ndim, 1)
    if axis != x.ndim - 1 and opset < 13:
        raise UnsupportedError(
            f"{node}: axis={axis} in opset {opset} spans several axes, which is not supported"
        )
    moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    y = np.empty_like(moved)
    if moved.size:
        activation.run("softmax", moved, y)
    return np.ascontiguousarray(np.moveaxis(y, -1, axis))


@operator("LayerNormalization", "axis", "epsilon", "stash_type")
def layer_normalization(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + b over the last axis."""
    x, scale = inputs[0], inputs[1]
    if node.attributes.get("axis", -1) % x.ndim != x.ndim - 1:
        raise UnsupportedError(f"{node}: only the last axis is supported")
    if any(node.outputs[1:]):
        raise UnsupportedError(f"{node}: mean and deviation as outputs are not supported")
    y = np.empty(x.shape, np.float32)
    rows = (-1, x.shape[-1])
    beta = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros_like(scale)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if scale.shape != x.shape[-1:] or beta.shape != scale.shape or x.dtype != np.float32:
        raise ShapeError(f"{node}: {x.shape} cannot be scaled by {scale.shape}")
    if x.size:
        x = np.ascontiguousarray(x)
        normalization.layer_norm(x.reshape(rows), scale, beta, epsilon, y.reshape(rows))
    return y
