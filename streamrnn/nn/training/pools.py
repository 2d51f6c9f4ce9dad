"""Rules of layers that choose, repeat, drop or join steps."""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import layers
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.time_windows import padded
from streamrnn.nn.training.recording import Recorded, Recording, Rule, one_to_one


def _rule(back: Callable[[Any, Floats, Floats, Floats, CallContext], Floats]) -> Rule:
    """Make the rule of a layer without weights: back(layer, x, y, dy, context) is dx."""

    def rule(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
        y = layer.apply(inputs, context)
        gradient: Callable[[Floats], Floats]
        gradient = lambda dy: back(layer, inputs, y, dy, context)  # noqa: E731
        return one_to_one(layer, inputs, y, context.mask, gradient)

    return rule


def _of_permute(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    return dy.transpose([0, *(1 + axis for axis in np.argsort(layer.dims).tolist())])


def _of_padding(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    first = layer.padding[0]
    return dy[:, first : first + x.shape[1]]


def _of_cropping(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    return padded(dy, layer.cropping, 0)


def _of_upsampling(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    total = dy[:, 0 :: layer.size]
    for again in range(1, layer.size):
        total = total + dy[:, again :: layer.size]
    return total


def _of_average(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    share = dy / layer.sizes(x.shape[1])[:, None]
    return _spread(layer, x, [share] * layer.pool_size)


def _of_max(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    """Pass the gradient to the first of equal values (as Keras on JAX)."""
    left, shares = np.ones(y.shape, np.bool_), []
    for values in layer.windows(x, -np.inf):
        wins = left & (values == y)
        shares.append(np.where(wins, dy, np.float32(0)))
        left &= ~wins
    return _spread(layer, x, shares)


def _spread(layer: Any, x: Floats, shares: list[Floats]) -> Floats:
    """Add the gradients of input 0, 1, … of all windows; gradients of padding are dropped."""
    before, after = layer.window.pads(x.shape[1])
    dx = np.zeros((len(x), before + x.shape[1] + after, x.shape[2]), np.float32)
    for view, share in zip(layer.window.views(dx, shares[0].shape[1]), shares, strict=True):
        view += share
    return dx[:, before : before + x.shape[1]]


def _of_global_max(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    """Divide the gradient among equal values (as Keras on JAX)."""
    wins = x == _with_time(layer, y)
    count = wins.sum(axis=1, keepdims=True).astype(np.float32)
    return np.where(wins, _with_time(layer, dy) / count, np.float32(0))


def _of_global_average(
    layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext
) -> Floats:
    share = _with_time(layer, dy) / layer.counts(x, context).astype(np.float32)[:, None]
    dx = np.broadcast_to(share, x.shape)
    return dx if context.mask is None else np.where(context.mask[..., None], dx, np.float32(0))


def _with_time(layer: Any, y: Floats) -> Floats:
    return y if layer.keepdims else y[:, None]


POOLS: dict[type, Rule] = {
    layers.AveragePooling1D: _rule(_of_average),
    layers.Cropping1D: _rule(_of_cropping),
    layers.GlobalAveragePooling1D: _rule(_of_global_average),
    layers.GlobalMaxPooling1D: _rule(_of_global_max),
    layers.MaxPooling1D: _rule(_of_max),
    layers.Permute: _rule(_of_permute),
    layers.UpSampling1D: _rule(_of_upsampling),
    layers.ZeroPadding1D: _rule(_of_padding),
}
