"""Activations and normalizations, computed by the kernels of layers where there are any."""

from collections.abc import Callable, Mapping

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ShapeError, UnsupportedError
from streamrnn.nn.kernels import activation, normalization
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import (
    NAMES,
    Row,
    one_of,
    operator,
    refuse_other_outputs,
    tree_sum,
)


def _register(name: str, row: Row) -> None:
    parameters = activation.parameters_of(name)

    @operator(row.operator, *row.attributes)
    def run(x: Array, node: NodeDef) -> Array:
        numbers = [float(node.attributes.get(*each)) for each in row.attributes.items()]
        return _applied(name, x, **dict(zip(parameters, numbers, strict=False)))


for _name, _row in NAMES.items():
    if _row.by_kernel:
        _register(_name, _row)


def _applied(kernel: str, x: Array, **parameters: float) -> Array:
    if x.dtype != np.float32:
        raise ShapeError(f"expected float32, received {x.dtype}")
    y = np.empty(x.shape, np.float32)
    if x.size:
        activation.run(kernel, np.ascontiguousarray(x), y, **parameters)
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
    """Return (x - mean) / sqrt(variance + epsilon) * scale + b over the axes from `axis` on.

    Also return the mean and 1 / sqrt(variance + epsilon), where they are outputs.
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
    """Return (x - mean) / sqrt(variance + epsilon) * scale + b for each channel (axis 1)."""
    columns = [w.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else w for w in weights]
    scale, shift, mean, variance = columns
    factor = scale / np.sqrt(variance + np.float32(epsilon))
    np.broadcast_to(factor, x.shape)  # the weights must not broadcast x
    return np.asarray((x - mean) * factor + shift)
