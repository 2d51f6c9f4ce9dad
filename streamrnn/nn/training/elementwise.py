"""Rules of layers that compute each element separately, and of dropout."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn import layers
from streamrnn.nn.kernels.activation import derivative_source
from streamrnn.nn.kernels.gradients import summed_over, times_derivative
from streamrnn.nn.layers import activations
from streamrnn.nn.layers.activation import LEAST_DEVIATION
from streamrnn.nn.layers.axes import as_rows, from_rows
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.recording import Recorded, Recording, Rule, one_to_one


@functools.cache
def from_value(spec: Any) -> bool:
    """Return whether the derivative of an activation follows from its value."""
    return derivative_source(spec) != "input"


def check_activation(layer: Any, spec: Any) -> None:
    """Raise UnsupportedError, naming the layer, if the derivative of an activation is unknown."""
    if derivative_source(spec) is None:
        raise UnsupportedError(f"{layer}: training with the activation {spec!r} is not supported")


def _activation(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    spec, y = layer.activation, layer.apply(inputs, context)
    kept = y if from_value(spec) else np.ascontiguousarray(inputs)
    back: Callable[[Floats], Floats] = lambda dy: times_derivative(spec, kept, dy)  # noqa: E731
    return one_to_one(layer, inputs, y, context.mask, back)


def _moments(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    y, half = layer.apply(inputs, context), inputs.shape[-1] // 2
    above = np.ascontiguousarray(y[..., half:] - LEAST_DEVIATION)

    def back(dy: Floats) -> Floats:
        slope = times_derivative("softplus", above, np.ascontiguousarray(dy[..., half:]))
        return np.concatenate([dy[..., :half], slope], axis=-1)

    return one_to_one(layer, inputs, y, context.mask, back)


def _softmax(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    rows, shape = as_rows(inputs, layer.axes)
    y = activations.compute("softmax", rows)

    def back(dy: Floats) -> Floats:
        dx = times_derivative("softmax", y, as_rows(dy, layer.axes)[0])
        return from_rows(dx, layer.axes, shape)

    return one_to_one(layer, inputs, from_rows(y, layer.axes, shape), context.mask, back)


def _slope(slope: Callable[[Any, Floats, Floats], Floats]) -> Rule:
    """Make the rule of an elementwise layer whose derivative NumPy can compute from x and y."""

    def rule(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
        y = layer.apply(inputs, context)
        return one_to_one(layer, inputs, y, context.mask, lambda dy: dy * slope(layer, inputs, y))

    return rule


def _of_relu(layer: Any, x: Floats, y: Floats) -> Floats:
    slope: Floats = np.where(x > layer.threshold, np.float32(1), np.float32(layer.negative_slope))
    if layer.max_value is not None:
        slope = np.where(x < np.float32(layer.max_value), slope, np.float32(0))
    return slope


def _of_leaky_relu(layer: Any, x: Floats, y: Floats) -> Floats:
    return np.where(x > 0, np.float32(1), np.float32(layer.negative_slope))


def _of_elu(layer: Any, x: Floats, y: Floats) -> Floats:
    return np.where(x > 0, np.float32(1), y + np.float32(layer.alpha))


def _of_rescaling(layer: Any, x: Floats, y: Floats) -> Floats:
    scale: Floats = layer.scale
    return scale


def _of_normalization(layer: Any, x: Floats, y: Floats) -> Floats:
    scale: Floats = layer.deviation()
    slope: Floats = scale if layer.invert else np.float32(1) / scale
    return slope


def _of_masking(layer: Any, x: Floats, y: Floats) -> Floats:
    present = (x != np.float32(layer.mask_value)).any(axis=-1, keepdims=True)
    slope: Floats = present.astype(np.float32)
    return slope


def _dropout(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    call = recording.number_call()
    if not recording.training or layer.rate == 0:
        return one_to_one(layer, inputs, inputs, context.mask, lambda dy: dy)
    shape = layer.mask_shape(inputs.shape)
    factors = recording.factors(layer.seed, call, 0, shape, layer.rate)
    return one_to_one(layer, inputs, inputs * factors, context.mask, lambda dy: dy * factors)


def _gaussian(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    call = recording.number_call()
    if not recording.training or layer.deviation() == 0:
        return one_to_one(layer, inputs, inputs, context.mask, lambda dy: dy)
    noise = layer.noise(recording.generator(layer.seed, call), inputs.shape)
    y = layer.combined(inputs, noise)
    added = isinstance(layer, layers.GaussianNoise)
    slope = np.float32(1) if added else np.float32(1) + noise
    return one_to_one(layer, inputs, y, context.mask, lambda dy: dy * slope)


def _alpha_dropout(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    call = recording.number_call()
    if not recording.training or layer.rate == 0:
        return one_to_one(layer, inputs, inputs, context.mask, lambda dy: dy)
    shape = layer.mask_shape(inputs.shape)
    kept = recording.factors(layer.seed, call, 0, shape, layer.rate) > 0
    slope = kept * np.float32(layer.factor())
    y = layer.combined(inputs, kept)
    return one_to_one(layer, inputs, y, context.mask, lambda dy: dy * slope)


def _prelu(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    y = layer.apply(inputs, context)
    alpha = recording.weight(layer, "alpha")
    assert alpha is not None

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None]
        if recording.trains(layer):
            of_each = np.where(inputs < 0, dy * inputs, np.float32(0))
            recording.add(layer, "alpha", summed_over(of_each, (1, *alpha.shape))[0])
        return [np.where(inputs < 0, alpha * dy, dy)]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _identity(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    return one_to_one(layer, inputs, inputs, context.mask, lambda dy: dy)


ELEMENTWISE: dict[type, Rule] = {
    layers.Activation: _activation,
    layers.AlphaDropout: _alpha_dropout,
    layers.Dropout: _dropout,
    layers.ELU: _slope(_of_elu),
    layers.Gaussian: _moments,
    layers.GaussianDropout: _gaussian,
    layers.GaussianNoise: _gaussian,
    layers.Identity: _identity,
    layers.LeakyReLU: _slope(_of_leaky_relu),
    layers.Masking: _slope(_of_masking),
    layers.Normalization: _slope(_of_normalization),
    layers.PReLU: _prelu,
    layers.ReLU: _slope(_of_relu),
    layers.Rescaling: _slope(_of_rescaling),
    layers.Softmax: _softmax,
    layers.SpatialDropout1D: _dropout,
}
