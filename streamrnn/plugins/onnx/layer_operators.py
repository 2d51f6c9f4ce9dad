"""Operators of layers: activations, normalizations, matrix products, convolutions and pooling.

Kernels of layers compute the operators for which such a kernel exists. The kernel of dense layers
computes matrix products, so that no row depends on the others. Windows are over the axes after
batch and channels, (N, C, …).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from streamrnn.base.arrays import Array
from streamrnn.errors import ShapeError, UnsupportedError
from streamrnn.nn.kernels import activation, dense, normalization
from streamrnn.nn.kernels.activation import Spec
from streamrnn.plugins.onnx.graph import (
    NAMES,
    NodeDef,
    Row,
    ints_of,
    limits,
    one_of,
    operator,
    refuse_other_outputs,
    require_room,
    tree_sum,
)

_WINDOW = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


def _register(name: str, row: Row) -> None:
    @operator(row.operator, *row.attributes)
    def run(x: Array, node: NodeDef) -> Array:
        numbers = [float(node.attributes.get(*each)) for each in row.attributes.items()]
        return _applied((name, *numbers), x)


for _name, _row in NAMES.items():
    if _row.by_kernel:
        _register(_name, _row)


def _applied(spec: Spec, x: Array) -> Array:
    if x.dtype != np.float32:
        raise ShapeError(f"expected float32, received {x.dtype}")
    y = np.empty(x.shape, np.float32)
    if x.size:
        activation.run(spec, np.ascontiguousarray(x), y)
    return y


operator("Log")(lambda x: _applied("log", x))  # -inf for 0, NaN below


@operator("ThresholdedRelu", "alpha")
def _thresholded_relu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x <= np.float32(alpha), np.zeros_like(x), x)


@operator("PRelu")
def _prelu(x: Array, slope: Array) -> Array:
    np.broadcast_to(slope, x.shape)  # the slope must not broadcast x
    return np.where(x < 0, x * slope, x)


def _check_celu(node: NodeDef, constants: Mapping[str, Array]) -> None:
    if not (alpha := node.attributes.get("alpha", 1.0)) > 0:
        raise UnsupportedError(f"alpha={alpha} is not supported: expected above 0")


@operator("Celu", "alpha", check=_check_celu)
def _celu(x: Array, alpha: float = 1.0) -> Array:
    """Return x, or alpha (e**(x / alpha) - 1) where x is below zero."""
    scale = np.float32(alpha)
    return np.where(x < 0, scale * _applied("elu", x / scale), x)


@operator("HardSwish")
def _hard_swish(x: Array) -> Array:
    ramp = x * np.float32(1 / 6) + np.float32(0.5)
    return np.asarray(x * np.clip(ramp, np.float32(0), np.float32(1)))


@operator("Swish", "alpha")
def _swish(x: Array, alpha: float = 1.0) -> Array:
    return np.multiply(x, _applied("sigmoid", np.float32(alpha) * x))


@operator("Gelu", "approximate", check=one_of("approximate", "none", "tanh"))
def _gelu(x: Array, approximate: str = "none") -> Array:
    """Return x Phi(x), or its approximation by tanh."""
    if approximate == "none":
        return _applied("gelu", x)
    # (1 + tanh(u)) / 2 is sigmoid(2 u).
    cubic = np.float32(0.044715) * x * x * x
    return np.multiply(x, _applied("sigmoid", np.float32(1.5957691216) * (x + cubic)))


def _rows(x: Array, axis: int | None, opset: int) -> tuple[Array, Callable[[Array], Array]]:
    """Return x as rows to normalize, and a function that restores its shape.

    A row runs along one axis; before opset 13, along all axes from `axis` on.
    """
    if opset < 13:
        first = (1 if axis is None else axis) % max(x.ndim, 1)
        before = int(np.prod(x.shape[:first], dtype=np.int64))
        return x.reshape(before, -1) if x.size else x, lambda y: y.reshape(x.shape)
    last = -1 if axis is None else axis
    return np.moveaxis(x, last, -1), lambda y: np.ascontiguousarray(np.moveaxis(y, -1, last))


@operator("Softmax", "axis")
def _softmax_of(x: Array, axis: int | None = None, *, opset: int) -> Array:
    rows, shaped = _rows(x, axis, opset)
    return shaped(_applied("softmax", rows))


@operator("LogSoftmax", "axis")
def _log_softmax_of(x: Array, axis: int | None = None, *, opset: int) -> Array:
    rows, shaped = _rows(x, axis, opset)
    if not rows.size:
        return shaped(rows)
    rows = rows - rows.max(axis=-1, keepdims=True)
    total = tree_sum(np.moveaxis(_applied("exponential", rows), -1, 0))
    return shaped(rows - _applied("log", total)[..., None])


@operator("LayerNormalization", "axis", "epsilon", "stash_type")
def _layer_normalization(
    x: Array,
    scale: Array,
    shift: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    node: NodeDef,
) -> list[Array]:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + shift over the axes from `axis` on.

    Also return the mean and 1 / sqrt(variance + epsilon) if one of them is an output.
    """
    shape = x.shape[axis % x.ndim :]
    if x.dtype != np.float32:
        raise ShapeError(f"expected float32, received {x.dtype}")
    y = x
    if x.size:
        shift = np.zeros_like(scale) if shift is None else shift
        gamma, beta = (np.ascontiguousarray(np.broadcast_to(w, shape)) for w in (scale, shift))
        rows = (-1, gamma.size)
        x = np.ascontiguousarray(x)
        y = normalization.layer_norm(
            x.reshape(rows), gamma.reshape(-1), beta.reshape(-1), float(epsilon)
        ).reshape(x.shape)
    return [y, *_moments(x, len(shape), epsilon)] if any(node.outputs[1:]) else [y]


def _moments(x: Array, rank: int, epsilon: float) -> list[Array]:
    """Return mean and 1 / sqrt(variance + epsilon) over the last `rank` axes, kept with size 1."""
    sizes = (*x.shape[: x.ndim - rank], *[1] * rank)
    values = np.moveaxis(x.reshape(*sizes, -1), -1, 0)
    n = np.float32(max(len(values), 1))
    mean: Array = tree_sum(values) / n
    errors = values - mean
    variance = tree_sum(errors * errors) / n
    return [mean, np.float32(1) / np.sqrt(variance + np.float32(epsilon))]


def _check_batch_normalization(node: NodeDef, constants: Mapping[str, Array]) -> None:
    refuse_other_outputs(node, constants)
    if node.attributes.get("training_mode", 0):
        raise UnsupportedError("training_mode is set; export the model in eval mode")
    if not node.attributes.get("spatial", 1):
        raise UnsupportedError("spatial=0 is not supported")


@operator(
    "BatchNormalization",
    "epsilon",
    "momentum",
    "spatial",
    "training_mode",
    check=_check_batch_normalization,
)
def _batch_normalization(x: Array, *weights: Array, epsilon: float = 1e-5) -> Array:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + shift for each channel (axis 1)."""
    columns = [w.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else w for w in weights]
    scale, shift, mean, variance = columns
    factor = scale / np.sqrt(variance + np.float32(epsilon))
    np.broadcast_to(factor, x.shape)  # the weights must not broadcast x
    return np.asarray((x - mean) * factor + shift)


@operator("MatMul")
def _matmul(x: Array, w: Array) -> Array:
    """Return x W. Each is a vector, a matrix, or matrices whose leading axes are broadcast."""
    if w.ndim == 1:
        return _matrices(np.atleast_2d(x), w[:, None]).reshape(x.shape[:-1])
    if x.ndim == 1:
        return _matrices(x[None], w).reshape(*w.shape[:-2], w.shape[-1])
    return _matrices(x, w)


def _matrices(x: Array, w: Array) -> Array:
    if w.ndim == 2:
        return _product(x, w, None)
    lead = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    require_room((*lead, x.shape[-2], w.shape[-1]), x, w)
    require_room((*lead, *w.shape[-2:]), x, w)
    pairs = zip(
        np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:]),
        np.broadcast_to(w, (*lead, *w.shape[-2:])).reshape(-1, *w.shape[-2:]),
        strict=True,
    )
    products = [_product(a, b, None) for a, b in pairs]
    return np.array(products, np.float32).reshape(*lead, x.shape[-2], w.shape[-1])


@operator("Gemm", "alpha", "beta", "transA", "transB")
def _gemm(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    x = x.T if transA else x
    w = np.float32(alpha) * (w.T if transB else w)
    if bias is None:
        return _product(x, w, None)
    shift = np.float32(beta) * bias
    if bias.ndim > 1 and len(bias) > 1:  # each row has its own
        y = _product(x, w, None)
        y += shift  # must not broadcast y
        return y
    return _product(x, w, np.broadcast_to(shift.reshape(-1), w.shape[1]))


def _product(x: Array, w: Array, bias: Array | None) -> Array:
    """Return x W + b over the last axis of x, each row independently."""
    if x.shape[-1] != w.shape[0] or x.dtype != np.float32 or w.dtype != np.float32:
        raise ShapeError(f"{x.dtype} {x.shape} cannot be multiplied by {w.dtype} {w.shape}")
    require_room((*x.shape[:-1], w.shape[1]), x)
    y = np.empty((*x.shape[:-1], w.shape[1]), np.float32)
    packed = dense.pack(
        np.ascontiguousarray(w), None if bias is None else np.ascontiguousarray(bias)
    )
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    dense.run(packed, rows, y.reshape(-1, w.shape[1]), activation="linear")
    return y


def _strides_and_dilations(node: NodeDef, rank: int) -> tuple[list[int], list[int]]:
    strides, dilations = (node.attributes.get(k, [1] * rank) for k in ("strides", "dilations"))
    return ints_of(strides), ints_of(dilations)


def _windows(
    node: NodeDef, x: Array, sizes: tuple[int, ...], pads: Sequence[tuple[int, int]], fill: float
) -> Array:
    """Return the windows of x (N, C, …) as (N, C, positions …, sizes …), padded with `fill`."""
    padded = [n + a + b for n, (a, b) in zip(x.shape[2:], pads, strict=True)]
    require_room((*x.shape[:2], *padded), x)
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    strides, dilations = _strides_and_dilations(node, len(sizes))
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
    if any(n < span for n, span in zip(x.shape[2:], spans, strict=True)):
        raise ShapeError(f"windows of {spans} do not fit into {list(x.shape[2:])}")
    axes = tuple(range(2, x.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    view: Array = windows[(slice(None), slice(None), *steps)]
    require_room(view.shape, x)
    return view


def _pads(node: NodeDef, x: Array, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the padding before and after the values, for each axis along which windows move."""
    rank, attributes = x.ndim - 2, node.attributes
    if rank != len(sizes):
        raise ShapeError(f"kernel {list(sizes)} does not fit an input of shape {x.shape}")
    strides, dilations = _strides_and_dilations(node, rank)
    if min((*strides, *dilations, *sizes), default=1) < 1:
        raise ShapeError("sizes, strides and dilations must be 1 or more")
    explicit = ints_of(attributes.get("pads", [0] * 2 * rank))
    pads = []
    for i in range(rank):
        span = (sizes[i] - 1) * dilations[i] + 1
        before, after = explicit[i], explicit[i + rank]
        kind, n = attributes.get("auto_pad", "NOTSET"), x.shape[2 + i]
        if kind in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-n // strides[i]) - 1) * strides[i] + span - n, 0)
            before = total // 2 if kind == "SAME_UPPER" else total - total // 2
            after = total - before
        elif kind == "VALID":
            before = after = 0
        if attributes.get("ceil_mode", 0):
            # A window that begins in the padding after the end does not count.
            more = -(n + before + after - span) % strides[i]
            last = n + before + after - span + more
            after += more if last < n + before else 0
        pads.append((before, after))
    return pads


_check_auto_pad = one_of("auto_pad", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def _check(node: NodeDef, constants: Mapping[str, Array]) -> None:
    _check_auto_pad(node, constants)
    if any(n < 0 for n in ints_of(node.attributes.get("pads", []))):
        raise UnsupportedError("negative pads are not supported")
    if node.op == "MaxPool" and any(node.outputs[1:]):
        raise UnsupportedError("indices as a second output are not supported")


@operator("Conv", *set(_WINDOW) - {"ceil_mode"}, "group", check=_check)
def _convolution(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    group: int = 1,
    kernel_shape: ArrayLike | None = None,
    node: NodeDef,
) -> Array:
    """Return the products of windows of x (N, C, …) and W (M, C / group, sizes …), plus B (M,)."""
    sizes, channels, outputs = w.shape[2:], x.shape[1], w.shape[0]
    if group < 1 or w.shape[1] * group != channels or outputs % group:
        raise ShapeError(f"weights {w.shape} in {group} groups do not fit input {x.shape}")
    if kernel_shape is not None and tuple(ints_of(kernel_shape)) != sizes:
        raise ShapeError(f"kernel_shape {ints_of(kernel_shape)} does not fit weights {w.shape}")
    view = _windows(node, x, sizes, _pads(node, x, sizes), 0.0)
    rank = len(sizes)
    positions = view.shape[2 : 2 + rank]
    rows = np.moveaxis(view, 1, 1 + rank)  # (N, positions …, C, sizes …)
    parts = []
    for g in range(group):
        part = slice(g * channels // group, (g + 1) * channels // group)
        filters = slice(g * outputs // group, (g + 1) * outputs // group)
        within = rows[(slice(None), *[slice(None)] * rank, part)]
        flat = within.reshape(*within.shape[: 1 + rank], w[0].size)
        shift = None if bias is None else bias[filters]
        parts.append(_product(flat, w[filters].reshape(-1, w[0].size).T, shift))
    y = np.concatenate(parts, axis=-1)
    return np.ascontiguousarray(np.moveaxis(y, -1, 1)).reshape(len(x), outputs, *positions)


@operator("MaxPool", *_WINDOW, "storage_order", check=_check)
def _max_pool(x: Array, kernel_shape: ArrayLike, node: NodeDef) -> Array:
    sizes = tuple(ints_of(kernel_shape))
    view = _windows(node, x, sizes, _pads(node, x, sizes), limits(x.dtype)[0])
    return np.asarray(view.max(axis=tuple(range(2 + len(sizes), view.ndim))))


@operator("AveragePool", *_WINDOW, "count_include_pad", check=_check)
def _average_pool(
    x: Array, kernel_shape: ArrayLike, count_include_pad: int = 0, *, node: NodeDef
) -> Array:
    """Return the mean of each window; padding counts as zeros, or not at all."""
    sizes = tuple(ints_of(kernel_shape))
    pads = _pads(node, x, sizes)
    total = _summed(_windows(node, x, sizes, pads, 0.0), len(sizes))
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    not_counted = pads
    if count_include_pad:
        stated = ints_of(node.attributes.get("pads", [0] * 2 * len(sizes)))
        exact = list(zip(stated[: len(sizes)], stated[len(sizes) :], strict=True))
        if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            exact = pads
        ones = np.pad(ones, [(0, 0), (0, 0), *exact], constant_values=np.float32(1))
        not_counted = [(0, b[1] - a[1]) for a, b in zip(exact, pads, strict=True)]  # of ceil_mode
    return total / _summed(_windows(node, ones, sizes, not_counted, 0.0), len(sizes))


def _summed(view: Array, rank: int) -> Array:
    flat = view.reshape(*view.shape[:-rank], -1)
    return tree_sum(np.moveaxis(flat, -1, 0))


@operator("GlobalAveragePool", check=refuse_other_outputs)
def _global_average_pool(x: Array) -> Array:
    values = np.moveaxis(x.reshape(*x.shape[:2], -1), -1, 0)
    mean: Array = tree_sum(values) / np.float32(len(values))
    return mean.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


@operator("GlobalMaxPool", check=refuse_other_outputs)
def _global_max_pool(x: Array) -> Array:
    return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))
