"""Rules of layers that normalize over axes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import layers
from streamrnn.nn.kernels.normalization import layer_norm_back, root_norm_back
from streamrnn.nn.layers.axes import as_rows, from_rows
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.recording import Recorded, Recording, Rule, one_to_one


def _layer_normalization(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    x, shape = as_rows(np.ascontiguousarray(inputs), layer.axes)
    weight = recording.weight(layer, "gamma")
    gamma = np.ones(layer.features, np.float32) if weight is None else weight.reshape(-1)

    def back(dy: Floats) -> Floats:
        dy_rows = as_rows(dy, layer.axes)[0]
        dx, of_gamma, of_beta = layer_norm_back(x, gamma, layer.epsilon, dy_rows)
        recording.add(layer, "gamma", of_gamma.reshape(layer.shape))
        recording.add(layer, "beta", of_beta.reshape(layer.shape))
        return from_rows(dx, layer.axes, shape)

    return _with_weights(layer, inputs, context, recording, back)


def _batch_normalization(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record batch normalisation (Ioffe and Szegedy 2015).

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

    return _with_weights(layer, inputs, context, recording, back)


def _root_normalization(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    x, shape = as_rows(np.ascontiguousarray(inputs), layer.axes)
    gamma, root = layer.factors(x.shape[1]), layer.root(x.shape[1])

    def back(dy: Floats) -> Floats:
        dx, of_gamma = root_norm_back(x, gamma, root, as_rows(dy, layer.axes)[0])
        if isinstance(layer, layers.RMSNormalization):
            recording.add(layer, "scale", of_gamma.reshape(layer.shape))
        return from_rows(dx, layer.axes, shape)

    return _with_weights(layer, inputs, context, recording, back)


def _with_weights(
    layer: Any,
    inputs: Floats,
    context: CallContext,
    recording: Recording,
    back: Callable[[Floats], Floats],
) -> Recorded:
    y = layer.apply(np.ascontiguousarray(inputs), context)
    recorded = one_to_one(layer, inputs, y, context.mask, back)
    if not recording.trains(layer):
        return recorded
    # Gradients of weights are wanted even if gradients of the inputs are not.
    return recorded._replace(pullback=lambda dys, wanted: recorded.pullback(dys, [True]))


NORMALIZATIONS: dict[type, Rule] = {
    layers.BatchNormalization: _batch_normalization,
    layers.LayerNormalization: _layer_normalization,
    layers.RMSNormalization: _root_normalization,
    layers.UnitNormalization: _root_normalization,
}
