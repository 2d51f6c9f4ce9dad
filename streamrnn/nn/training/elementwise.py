"""Rules of layers that compute each element separately, of dropout, and of normalizations."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn import layers
from streamrnn.nn.kernels.activation import derivative_source
from streamrnn.nn.kernels.gradients import summed_over, times_derivative
from streamrnn.nn.kernels.normalization import layer_norm_back, root_norm_back
from streamrnn.nn.layers.activations import LEAST_DEVIATION
from streamrnn.nn.layers.axes import as_rows, from_rows
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.recording import Recorded, Recording, Rule, one_to_one, rule_from


@cache
def from_value(spec: Any) -> bool:
    """Return whether the derivative of an activation follows from its value."""
    return derivative_source(spec) != "input"


def check_activation(layer: Any, spec: Any) -> None:
    """Raise UnsupportedError, naming the layer, if the derivative of an activation is unknown."""
    if derivative_source(spec) is None:
        raise UnsupportedError(f"{layer}: training with the activation {spec!r} is not supported")


def _of_activation(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    spec = layer.activation
    return times_derivative(spec, y if from_value(spec) else np.ascontiguousarray(x), dy)


def _of_moments(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    half = x.shape[-1] // 2
    above = np.ascontiguousarray(y[..., half:] - LEAST_DEVIATION)
    slope = times_derivative("softplus", above, np.ascontiguousarray(dy[..., half:]))
    return np.concatenate([dy[..., :half], slope], axis=-1)


def _of_softmax(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    rows, shape = as_rows(y, layer.axes)
    dx = times_derivative("softmax", rows, as_rows(dy, layer.axes)[0])
    return from_rows(dx, layer.axes, shape)


def _of_relu(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    slope: Floats = np.where(x > layer.threshold, np.float32(1), np.float32(layer.negative_slope))
    if layer.max_value is not None:
        slope = np.where(x < np.float32(layer.max_value), slope, np.float32(0))
    return dy * slope


def _of_leaky_relu(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    return dy * np.where(x > 0, np.float32(1), np.float32(layer.negative_slope))


def _of_elu(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    return dy * np.where(x > 0, np.float32(1), y + np.float32(layer.alpha))


def _of_masking(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    present: Bools = (x != np.float32(layer.mask_value)).any(axis=-1, keepdims=True)
    return dy * present.astype(np.float32)


def _of_scaling(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    scale: Floats = layer.deviation()
    return dy * (scale if layer.invert else np.float32(1) / scale)


def _identity(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    return one_to_one(layer, inputs, inputs, context.mask, lambda dy: dy)


def _dropout(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    call = recording.number_call()
    if not recording.training or layer.rate == 0:
        return _identity(layer, inputs, context, recording)
    shape = layer.mask_shape(inputs.shape)
    factors = recording.factors(layer.seed, call, 0, shape, layer.rate)
    y, slope = layer.combined(inputs, factors), layer.slope(factors)
    return one_to_one(layer, inputs, y, context.mask, lambda dy: dy * slope)


def _gaussian(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    call = recording.number_call()
    if not recording.training or layer.deviation() == 0:
        return _identity(layer, inputs, context, recording)
    noise = layer.noise(recording.generator(layer.seed, call), inputs.shape)
    y = layer.combined(inputs, noise)
    added = isinstance(layer, layers.GaussianNoise)
    slope = np.float32(1) if added else np.float32(1) + noise
    return one_to_one(layer, inputs, y, context.mask, lambda dy: dy * slope)


def _prelu(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    y, trains = layer.apply(inputs, context), recording.trains(layer)
    alpha = recording.weight(layer, "alpha")
    assert alpha is not None

    def back(dy: Floats) -> Floats:
        if trains:
            of_each = np.where(inputs < 0, dy * inputs, np.float32(0))
            recording.add(layer, "alpha", summed_over(of_each, (1, *alpha.shape))[0])
        return np.where(inputs < 0, alpha * dy, dy)

    return one_to_one(layer, inputs, y, context.mask, back, trains=trains)


def _normalization(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a normalization of rows: by their moments, or by their root of squares."""
    inputs, trains = np.ascontiguousarray(inputs), recording.trains(layer)
    x, shape = as_rows(inputs, layer.axes)
    names: tuple[str, ...] = ("scale",)
    gradients: Callable[[Floats], tuple[Floats, ...]]
    if isinstance(layer, layers.LayerNormalization):
        names, weight = ("gamma", "beta"), recording.weight(layer, "gamma")
        gamma = np.ones(layer.features, np.float32) if weight is None else weight.reshape(-1)
        gradients = partial(layer_norm_back, x, gamma, layer.epsilon)
    else:
        gradients = partial(root_norm_back, x, layer.factors(x.shape[1]), layer.root(x.shape[1]))

    def back(dy: Floats) -> Floats:
        dx, *of_weights = gradients(as_rows(dy, layer.axes)[0])
        for name, gradient in zip(names, of_weights if trains else (), strict=False):
            recording.add(layer, name, gradient.reshape(layer.shape))
        return from_rows(dx, layer.axes, shape)

    y = layer.apply(inputs, context)
    return one_to_one(layer, inputs, y, context.mask, back, trains=trains)


def _batch_normalization(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record batch normalization (Ioffe & Szegedy 2015).

    Masked steps have an output, but do not count in the moments.
    """
    axes = tuple(axis for axis in range(-inputs.ndim, 0) if axis != layer.axes[0])
    beside = layer.beside()
    from_batch = context.training and layer.trainable
    mean, variance = layer.moments(inputs, context.mask) if from_batch else layer.moving_moments()
    factor = layer.factor(variance)[beside]
    deviation = np.sqrt(variance + np.float32(layer.epsilon))

    def back(dy: Floats) -> Floats:
        direct: Floats = dy * factor
        if not layer.trainable:
            return direct
        normal = (inputs - mean[beside]) / deviation[beside]
        of_gamma = (dy * normal).sum(axes, np.float64).astype(np.float32)
        of_beta = dy.sum(axes, np.float64).astype(np.float32)
        recording.add(layer, "gamma", of_gamma)
        recording.add(layer, "beta", of_beta)
        if not from_batch:
            return direct
        by_moments = of_beta[beside] + normal * of_gamma[beside]
        dx: Floats = factor * (dy - layer.shares(inputs, context.mask) * by_moments)
        return dx

    y = layer.apply(np.ascontiguousarray(inputs), context)
    return one_to_one(layer, inputs, y, context.mask, back, trains=recording.trains(layer))


ELEMENTWISE: dict[type, Rule] = {
    layers.Activation: rule_from(_of_activation),
    layers.AlphaDropout: _dropout,
    layers.BatchNormalization: _batch_normalization,
    layers.Dropout: _dropout,
    layers.ELU: rule_from(_of_elu),
    layers.Gaussian: rule_from(_of_moments),
    layers.GaussianDropout: _gaussian,
    layers.GaussianNoise: _gaussian,
    layers.Identity: _identity,
    layers.LayerNormalization: _normalization,
    layers.LeakyReLU: rule_from(_of_leaky_relu),
    layers.Masking: rule_from(_of_masking),
    layers.Normalization: rule_from(_of_scaling),
    layers.PReLU: _prelu,
    layers.RMSNormalization: _normalization,
    layers.ReLU: rule_from(_of_relu),
    layers.Rescaling: rule_from(lambda layer, x, y, dy, context: dy * layer.scale),
    layers.Softmax: rule_from(_of_softmax),
    layers.SpatialDropout1D: _dropout,
    layers.UnitNormalization: _normalization,
}
