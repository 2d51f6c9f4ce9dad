"""Activations and normalizations, by the kernels of the layers."""

from collections.abc import Callable, Mapping

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ShapeError, UnsupportedError
from streamrnn.nn.kernels import activation, normalization
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import (
    NodeInputs,
    check_of,
    operator,
    refuse_other_outputs,
    tree_sum,
)


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
_activation("Exp", "exponential")
_activation("Erf", "erf")
_activation("Mish", "mish")
_activation(
    "Selu",
    "selu",
    {"alpha": ("alpha", 1.67326319217681884765625), "gamma": ("scale", 1.05070102214813232421875)},
)


def _applied(kernel: str, x: Array) -> Array:
    y = np.empty(x.shape, np.float32)
    if x.size:
        activation.run(kernel, np.ascontiguousarray(x, dtype=np.float32), y)
    return y


@operator("Log")
def _log_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return the logarithm: -inf of 0, NaN below."""
    return _applied("log", inputs[0])


@operator("ThresholdedRelu", "alpha")
def _thresholded_relu(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x where it is above alpha, else 0."""
    x: Array = inputs[0]
    alpha = np.float32(node.attributes.get("alpha", 1.0))
    return np.where(x <= alpha, np.zeros_like(x), x)


@operator("PRelu")
def _prelu(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x, below zero times a slope."""
    x: Array = inputs[0]
    slope: Array = inputs[1]
    np.broadcast_to(slope, x.shape)  # the slope may not widen x
    made: Array = np.where(x < 0, x * slope, x)
    return made


@operator("Celu", "alpha")
def _celu(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x, below zero alpha (e**(x / alpha) - 1)."""
    x: Array = inputs[0]
    alpha = np.float32(node.attributes.get("alpha", 1.0))
    made: Array = np.where(x < 0, alpha * _applied("elu", x / alpha), x)
    return made


@operator("HardSwish")
def _hard_swish(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x max(0, min(1, x / 6 + 1 / 2))."""
    x: Array = inputs[0]
    ramp = x * np.float32(1 / 6) + np.float32(0.5)
    made: Array = x * np.clip(ramp, np.float32(0), np.float32(1))
    return made


@operator("Swish", "alpha")
def _swish(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x sigmoid(alpha x)."""
    x: Array = inputs[0]
    return np.multiply(x, _applied("sigmoid", np.float32(node.attributes.get("alpha", 1.0)) * x))


@operator("Gelu", "approximate")
def _gelu(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x Phi(x), or its approximation by tanh."""
    x: Array = inputs[0]
    if node.attributes.get("approximate", "none") == "none":
        return _applied("gelu", x)
    # (1 + tanh(u)) / 2 is sigmoid(2 u).
    cubic = np.float32(0.044715) * x * x * x
    return np.multiply(x, _applied("sigmoid", np.float32(1.5957691216) * (x + cubic)))


@check_of("Gelu")
def _check_gelu(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Refuse other approximations."""
    if (kind := node.attributes.get("approximate", "none")) not in ("none", "tanh"):
        raise UnsupportedError(f"{node}: approximate={kind!r} is not supported")


def _rows(node: NodeDef, x: Array, opset: int) -> tuple[Array, Callable[[Array], Array]]:
    """Return x as rows to normalize, and what shapes the result like x.

    Over one axis; before opset 13 over all axes from `axis` on.
    """
    axis = node.attributes.get("axis", -1 if opset >= 13 else 1)
    if opset < 13:
        before = 1
        for n in x.shape[: axis % max(x.ndim, 1)]:
            before *= n
        return x.reshape(before, -1) if x.size else x, lambda y: y.reshape(x.shape)
    moved = np.moveaxis(x, axis, -1)
    return moved, lambda y: np.ascontiguousarray(np.moveaxis(y, -1, axis))


@operator("Softmax", "axis")
def _softmax_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Compute softmax over one axis; before opset 13 over all axes from `axis` on."""
    rows, shaped = _rows(node, inputs[0], opset)
    return shaped(_applied("softmax", rows))


@operator("LogSoftmax", "axis")
def _log_softmax_of(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Compute x - log(sum of e**x) over one axis; before opset 13 over all from `axis` on."""
    rows, shaped = _rows(node, inputs[0], opset)
    if not rows.size:
        return shaped(rows)
    rows = rows - rows.max(axis=-1, keepdims=True)
    total = tree_sum(np.moveaxis(_applied("exponential", rows), -1, 0))
    return shaped(rows - _applied("log", total)[..., None])


@operator("LayerNormalization", "axis", "epsilon", "stash_type")
def _layer_normalization(node: NodeDef, inputs: NodeInputs, opset: int) -> list[Array]:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + b over the axes from `axis` on.

    Also the mean and 1 / sqrt(variance + epsilon), where they are outputs.
    """
    x, scale = inputs[0], inputs[1]
    shape = x.shape[node.attributes.get("axis", -1) % x.ndim :]
    beta = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros_like(scale)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if x.dtype != np.float32:
        raise ShapeError(f"{node}: expected float32, received {x.dtype}")
    y = np.empty(x.shape, np.float32)
    if x.size:
        gamma, beta = (np.ascontiguousarray(np.broadcast_to(w, shape)) for w in (scale, beta))
        rows = (-1, gamma.size)
        x = np.ascontiguousarray(x)
        normalization.layer_norm(
            x.reshape(rows), gamma.reshape(-1), beta.reshape(-1), epsilon, y.reshape(rows)
        )
    return [y, *_moments(x, len(shape), epsilon)] if any(node.outputs[1:]) else [y]


def _moments(x: Array, rank: int, epsilon: float) -> list[Array]:
    """Return mean and 1 / sqrt(variance + epsilon) over the last `rank` axes, which become 1."""
    sizes = (*x.shape[: x.ndim - rank], *[1] * rank)
    values = np.moveaxis(x.reshape(*sizes, -1), -1, 0)
    n = np.float32(max(len(values), 1))
    mean: Array = tree_sum(values) / n
    errors = values - mean
    variance = tree_sum(errors * errors) / n
    return [mean, np.float32(1) / np.sqrt(variance + np.float32(epsilon))]


@operator("BatchNormalization", "epsilon", "momentum", "spatial", "training_mode")
def _batch_normalization(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return (x - mean) / sqrt(variance + epsilon) * scale + b of each channel, axis 1."""
    x, *given = inputs
    columns = [w.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else w for w in given]
    scale, shift, mean, variance = columns
    factor = scale / np.sqrt(variance + np.float32(node.attributes.get("epsilon", 1e-5)))
    np.broadcast_to(factor, x.shape)  # the weights may not widen x
    made: Array = (x - mean) * factor + shift
    return made


@check_of("BatchNormalization")
def _check_batch_normalization(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Refuse training, whose mean is that of the batch."""
    refuse_other_outputs(node, constants)
    if node.attributes.get("training_mode", 0):
        raise UnsupportedError(f"{node}: training_mode is set; export the model in eval mode")
    if not node.attributes.get("spatial", 1):
        raise UnsupportedError(f"{node}: spatial=0 is not supported")
