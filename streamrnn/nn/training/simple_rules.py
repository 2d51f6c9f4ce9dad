"""Rules of layers without matrix products: elementwise, dropout, normalization, merges, and steps.

Layers of the last kind move, repeat, drop or join steps.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import Any

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn import layers
from streamrnn.nn.kernels.activation import derivative_source
from streamrnn.nn.kernels.gradients import summed_over, times_derivative
from streamrnn.nn.kernels.normalization import layer_norm_back, root_norm_back
from streamrnn.nn.layers.activations import LEAST_DEVIATION
from streamrnn.nn.layers.axes import as_rows, from_rows, padded
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.recording import (
    Recorded,
    Recording,
    Rule,
    one_to_one,
    rule_from,
    total_of,
)


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
    alpha = recording.weights_of(layer)["alpha"]

    def back(dy: Floats) -> Floats:
        if trains:
            of_each = np.where(inputs < 0, dy * inputs, np.float32(0))
            recording.add(layer, "alpha", summed_over(of_each, (1, *alpha.shape))[0])
        return np.where(inputs < 0, alpha * dy, dy)

    return one_to_one(layer, inputs, y, context.mask, back, trains=trains)


def _normalization(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a normalization of rows: by mean and variance, or by the root of their squares."""
    inputs, trains = np.ascontiguousarray(inputs), recording.trains(layer)
    x, shape = as_rows(inputs, layer.axes)
    names: tuple[str, ...] = ("scale",)
    gradients: Callable[[Floats], tuple[Floats, ...]]
    if isinstance(layer, layers.LayerNormalization):
        names, weight = ("gamma", "beta"), recording.weights_of(layer).get("gamma")
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

    Masked steps have an output, but do not count in the mean and variance.
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


# ---- merges


def parts_of(dy: Floats, axis: int, inputs: Sequence[Floats]) -> list[Floats]:
    """Return the gradients of arrays that were joined along an axis, cut from `dy`."""
    edges = np.cumsum([0, *(x.shape[axis] for x in inputs)]).tolist()
    before = (slice(None),) * (axis % dy.ndim)
    return [np.ascontiguousarray(dy[(*before, slice(a, b))]) for a, b in pairwise(edges)]


_Masks = list[Bools | None]
_Share = Callable[[Any, list[Floats], _Masks, Floats, Floats], list[Floats]]
"""Maps (layer, inputs, masks, y, dy) to each input's gradient, in the input's shape or in y's."""


def _merge(share: _Share) -> Rule:
    """Make the rule of a merge of inputs that NumPy can broadcast, or join."""

    def rule(
        layer: Any, inputs: list[Floats], context: CallContext, recording: Recording
    ) -> Recorded:
        masks = [None] * len(inputs) if context.mask is None else context.mask
        y, joint = layer.apply(inputs, context), layer.compute_mask(inputs, context.mask)

        def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
            if dys[0] is None:
                return [None] * len(inputs)
            shares = share(layer, inputs, masks, y, dys[0])
            return [summed_over(dx, x.shape) for dx, x in zip(shares, inputs, strict=True)]

        return Recorded([y], [joint], pullback)

    return rule


def _of_product(layer: Any, xs: list[Floats], masks: _Masks, y: Floats, dy: Floats) -> list[Floats]:
    joint = layer.compute_mask(xs, masks)
    factors = [_where(mask, x, np.float32(1)) for x, mask in zip(xs, masks, strict=True)]
    shares = []
    for i, mask in enumerate(masks):
        dx = dy
        for j, factor in enumerate(factors):
            dx = dx * factor if i != j else dx
        shares.append(_where(joint, _where(mask, dx, np.float32(0)), np.float32(0)))
    return shares


def _of_extreme(layer: Any, xs: list[Floats], masks: _Masks, y: Floats, dy: Floats) -> list[Floats]:
    """Pass the gradient to the input that Maximum or Minimum chooses: of equal ones, the first.

    `merge` takes the inputs one after the other: a masked input changes nothing; an
    unmasked one also replaces the value where all inputs before it were masked.
    """
    best, joint = np.broadcast_to(xs[0], y.shape), masks[0]
    chosen = np.zeros(y.shape, np.int64)
    for i, (x, mask) in enumerate(zip(xs[1:], masks[1:], strict=True), start=1):
        present = _where(mask, np.ones(y.shape, np.bool_), np.False_)
        wins = (layer.ufunc(best, x) != best) & present
        if joint is not None:
            wins |= ~joint[..., None] & present
        chosen[wins] = i
        best = np.where(wins, x, best)
        joint = None if mask is None or joint is None else joint | mask
    return [np.where(chosen == i, dy, np.float32(0)) for i in range(len(xs))]


def _of_spread(layer: Any, xs: list[Floats], masks: _Masks, y: Floats, dy: Floats) -> list[Floats]:
    """Pass on (x - mean) / (n * spread) times the gradient, 0 where the spread is 0."""
    number = np.float32(len(xs))
    mean = reduce(np.add, xs) / number
    scale = np.where(y > 0, dy / (number * np.where(y > 0, y, 1)), np.float32(0))
    return [(x - mean) * scale for x in xs]


def _where(mask: Bools | None, values: Any, other: Any) -> Any:
    return values if mask is None else np.where(mask[..., None], values, other)


# ---- steps


def _of_repeated(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    total = total_of([dy[:, step] for step in range(dy.shape[1])])
    return np.zeros_like(x) if total is None else total


def _of_upsampling(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    total: Floats = reduce(np.add, [dy[:, again :: layer.size] for again in range(layer.size)])
    return total


def _of_pool_means(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    return _spread(layer, x, [dy / layer.sizes(x.shape[1])[:, None]] * layer.pool_size)


def _of_pool_maxima(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    """Pass the gradient to the first step with the maximum of a window (as in Keras on JAX)."""
    left, shares = np.ones(y.shape, np.bool_), []
    for values in layer.windows(x, -np.inf):
        wins = left & (values == y)
        shares.append(np.where(wins, dy, np.float32(0)))
        left &= ~wins
    return _spread(layer, x, shares)


def _spread(layer: Any, x: Floats, shares: list[Floats]) -> Floats:
    """Add up the gradients of steps over all windows; gradients of padding are dropped.

    shares: the gradients of step 0, 1, … in each window.
    """
    before, after = layer.window.pads(x.shape[1])
    dx = np.zeros((len(x), before + x.shape[1] + after, x.shape[2]), np.float32)
    for view, share in zip(layer.window.views(dx, shares[0].shape[1]), shares, strict=True):
        view += share
    return dx[:, before : before + x.shape[1]]


def _of_global_max(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    """Divide the gradient equally among the steps that have the maximum (as in Keras on JAX)."""
    if not layer.keepdims:
        y, dy = y[:, None], dy[:, None]
    wins = x == y
    count = wins.sum(axis=1, keepdims=True).astype(np.float32)
    return np.where(wins, dy / count, np.float32(0))


def _of_global_mean(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    if not layer.keepdims:
        dy = dy[:, None]
    share = dy / layer.counts(x, context).astype(np.float32)[:, None]
    dx: Floats = _where(context.mask, np.broadcast_to(share, x.shape), np.float32(0))
    return dx


_reshaped = rule_from(lambda layer, x, y, dy, context: dy.reshape(x.shape))


SIMPLE_RULES: dict[type, Rule] = {
    layers.Activation: rule_from(_of_activation),
    layers.Add: _merge(lambda layer, xs, masks, y, dy: [dy] * len(xs)),
    layers.AlphaDropout: _dropout,
    layers.Average: _merge(
        lambda layer, xs, masks, y, dy: [dy * np.float32(1.0 / len(xs))] * len(xs)
    ),
    layers.AveragePooling1D: rule_from(_of_pool_means),
    layers.BatchNormalization: _batch_normalization,
    layers.Concatenate: _merge(lambda layer, xs, masks, y, dy: parts_of(dy, layer.from_end, xs)),
    layers.Cropping1D: rule_from(lambda layer, x, y, dy, context: padded(dy, layer.cropping, 0)),
    layers.Dropout: _dropout,
    layers.ELU: rule_from(_of_elu),
    layers.Flatten: _reshaped,
    layers.Gaussian: rule_from(_of_moments),
    layers.GaussianDropout: _gaussian,
    layers.GaussianNoise: _gaussian,
    layers.GlobalAveragePooling1D: rule_from(_of_global_mean),
    layers.GlobalMaxPooling1D: rule_from(_of_global_max),
    layers.Identity: _identity,
    layers.LayerNormalization: _normalization,
    layers.LeakyReLU: rule_from(_of_leaky_relu),
    layers.Masking: rule_from(_of_masking),
    layers.MaxPooling1D: rule_from(_of_pool_maxima),
    layers.Maximum: _merge(_of_extreme),
    layers.Minimum: _merge(_of_extreme),
    layers.Multiply: _merge(_of_product),
    layers.Normalization: rule_from(_of_scaling),
    layers.PReLU: _prelu,
    layers.Permute: rule_from(
        lambda layer, x, y, dy, context: dy.transpose(np.argsort([0, *layer.dims]).tolist())
    ),
    layers.RMSNormalization: _normalization,
    layers.ReLU: rule_from(_of_relu),
    layers.RepeatVector: rule_from(_of_repeated),
    layers.Rescaling: rule_from(lambda layer, x, y, dy, context: dy * layer.scale),
    layers.Reshape: _reshaped,
    layers.Softmax: rule_from(_of_softmax),
    layers.SpatialDropout1D: _dropout,
    layers.Spread: _merge(_of_spread),
    layers.Subtract: _merge(lambda layer, xs, masks, y, dy: [dy, -dy]),
    layers.UnitNormalization: _normalization,
    layers.UpSampling1D: rule_from(_of_upsampling),
    layers.ZeroPadding1D: rule_from(
        lambda layer, x, y, dy, context: dy[:, layer.padding[0] :][:, : x.shape[1]]
    ),
}
