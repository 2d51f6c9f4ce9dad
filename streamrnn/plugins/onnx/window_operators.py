"""Convolutions and pooling: windows over the axes after batch and channels, (N, C, …)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ShapeError, UnsupportedError
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import (
    NodeInputs,
    check_of,
    ints_of,
    one_output,
    operator,
    require_room,
    tree_sum,
)
from streamrnn.plugins.onnx.product_operators import product

_WINDOW = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


@dataclass(frozen=True)
class _Windows:
    """Sizes, strides and dilations of windows by axis, and the padding before and after."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    def of(self, node: NodeDef, x: Array, fill: float) -> Array:
        """Return the windows of x (N, C, …) as (N, C, positions …, sizes …), padded by `fill`."""
        padded = [n + a + b for n, (a, b) in zip(x.shape[2:], self.pads, strict=True)]
        require_room(node, (*x.shape[:2], *padded), x)
        x = np.pad(x, [(0, 0), (0, 0), *self.pads], constant_values=np.float32(fill))
        spans = [(k - 1) * d + 1 for k, d in zip(self.sizes, self.dilations, strict=True)]
        axes = tuple(range(2, x.ndim))
        if any(n < span for n, span in zip(x.shape[2:], spans, strict=True)):
            raise ShapeError(f"{node}: windows of {spans} do not fit into {list(x.shape[2:])}")
        windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
        index = [slice(None), slice(None), *(slice(None, None, s) for s in self.strides)]
        index += [slice(None, None, d) for d in self.dilations]
        view: Array = windows[tuple(index)]
        require_room(node, view.shape, x)
        return view


def _windows(node: NodeDef, x: Array, sizes: tuple[int, ...]) -> _Windows:
    rank, attributes = x.ndim - 2, node.attributes
    if rank != len(sizes):
        raise ShapeError(f"{node}: a kernel of {list(sizes)} for an input of shape {x.shape}")
    strides, dilations = (
        tuple(ints_of(attributes.get(key, [1] * rank))) for key in ("strides", "dilations")
    )
    if min((*strides, *dilations, *sizes), default=1) < 1:
        raise ShapeError(f"{node}: sizes, strides and dilations must be 1 or more")
    given = ints_of(attributes.get("pads", [0] * 2 * rank))
    pads = []
    for i in range(rank):
        span = (sizes[i] - 1) * dilations[i] + 1
        before, after = given[i], given[i + rank]
        kind, n = attributes.get("auto_pad", "NOTSET"), x.shape[2 + i]
        if kind in ("SAME_UPPER", "SAME_LOWER"):
            total = max((-(-n // strides[i]) - 1) * strides[i] + span - n, 0)
            before = total // 2 if kind == "SAME_UPPER" else total - total // 2
            after = total - before
        elif kind == "VALID":
            before = after = 0
        if attributes.get("ceil_mode", 0):
            # A window that begins in the padding after the end is none.
            more = -(n + before + after - span) % strides[i]
            last = n + before + after - span + more
            after += more if last < n + before else 0
        pads.append((before, after))
    return _Windows(sizes, strides, dilations, tuple(pads))


def _kernel_shape(node: NodeDef) -> tuple[int, ...]:
    return tuple(ints_of(node.attributes["kernel_shape"]))


@operator("Conv", *set(_WINDOW) - {"ceil_mode"}, "group")
def _convolution(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the products of windows of x (N, C, …) with W (M, C / group, sizes …), plus B (M,)."""
    x, w = inputs[:2]
    groups, sizes = node.attributes.get("group", 1), w.shape[2:]
    channels, made = x.shape[1], w.shape[0]
    if groups < 1 or w.shape[1] * groups != channels or made % groups:
        raise ShapeError(f"{node}: weights {w.shape}, {groups} groups, input {x.shape}")
    if _kernel_shape(node) != sizes if "kernel_shape" in node.attributes else False:
        raise ShapeError(f"{node}: kernel_shape {_kernel_shape(node)}, weights {w.shape}")
    view = _windows(node, x, sizes).of(node, x, 0.0)
    rank = len(sizes)
    positions = view.shape[2 : 2 + rank]
    rows = np.moveaxis(view, 1, 1 + rank)  # (N, positions …, C, sizes …)
    bias = inputs[2] if len(inputs) > 2 else None
    parts = []
    for g in range(groups):
        part = slice(g * channels // groups, (g + 1) * channels // groups)
        filters = slice(g * made // groups, (g + 1) * made // groups)
        within = rows[(slice(None), *[slice(None)] * rank, part)]
        flat = within.reshape(*within.shape[: 1 + rank], w[0].size)
        shift = None if bias is None else bias[filters]
        parts.append(product(node, flat, w[filters].reshape(-1, w[0].size).T, shift))
    y = np.concatenate(parts, axis=-1)
    return np.ascontiguousarray(np.moveaxis(y, -1, 1)).reshape(len(x), made, *positions)


@operator("MaxPool", *_WINDOW, "storage_order")
def _max_pool(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the largest value of each window."""
    x, sizes = inputs[0], _kernel_shape(node)
    view = _windows(node, x, sizes).of(node, x, -np.inf)
    largest: Array = view.max(axis=tuple(range(2 + len(sizes), view.ndim)))
    return largest


@operator("AveragePool", *_WINDOW, "count_include_pad")
def _average_pool(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the mean of each window; padding counts as zeros, or not at all."""
    x, sizes = inputs[0], _kernel_shape(node)
    windows = _windows(node, x, sizes)
    total = _summed(windows.of(node, x, 0.0), len(sizes))
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    if node.attributes.get("count_include_pad", 0):
        pads = ints_of(node.attributes.get("pads", [0] * 2 * len(sizes)))
        exact = tuple(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
        if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            exact = windows.pads
        ones = np.pad(ones, [(0, 0), (0, 0), *exact], constant_values=np.float32(1))
        beyond = [(0, b[1] - a[1]) for a, b in zip(exact, windows.pads, strict=True)]
        windows = _Windows(sizes, windows.strides, windows.dilations, tuple(beyond))
    return total / _summed(windows.of(node, ones, 0.0), len(sizes))


def _summed(view: Array, rank: int) -> Array:
    """Return the sums over the last `rank` axes."""
    flat = view.reshape(*view.shape[:-rank], -1)
    return tree_sum(np.moveaxis(flat, -1, 0))


def _flat(x: Array) -> Array:
    """Return x (N, C, …) as (values, N, C)."""
    return np.moveaxis(x.reshape(*x.shape[:2], -1), -1, 0)


@operator("GlobalAveragePool")
def _global_average_pool(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the mean of each channel, with axes of size 1."""
    x: Array = inputs[0]
    values = _flat(x)
    made: Array = tree_sum(values) / np.float32(len(values))
    return made.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


@operator("GlobalMaxPool")
def _global_max_pool(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the largest value of each channel, with axes of size 1."""
    x: Array = inputs[0]
    largest: Array = _flat(x).max(axis=0)
    return largest.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def _check(node: NodeDef, constants: Mapping[str, Array]) -> None:
    kind = node.attributes.get("auto_pad", "NOTSET")
    if kind not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        raise UnsupportedError(f"{node}: auto_pad={kind!r} is not supported")
    if any(n < 0 for n in ints_of(node.attributes.get("pads", []))):
        raise UnsupportedError(f"{node}: negative pads are not supported")


def _check_pool(node: NodeDef, constants: Mapping[str, Array]) -> None:
    _check(node, constants)
    if [name for name in node.outputs[1:] if name]:
        raise UnsupportedError(f"{node}: indices as a second output are not supported")


check_of("Conv")(_check)
check_of("AveragePool")(_check)
check_of("MaxPool")(_check_pool)
one_output("GlobalAveragePool", "GlobalMaxPool")
