"""Rules of layers that merge inputs into one, or that move, repeat, drop or join steps."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.nn import layers
from streamrnn.nn.kernels.gradients import summed_over
from streamrnn.nn.layers.axes import padded
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.recording import Recorded, Recording, Rule, rule_from, total_of

# ---- merges


def parts_of(dy: Floats, axis: int, inputs: Sequence[Floats]) -> list[Floats]:
    """Return the gradients of arrays that were joined along an axis."""
    edges = np.cumsum([0, *(x.shape[axis] for x in inputs)]).tolist()
    before = (slice(None),) * (axis % dy.ndim)
    return [np.ascontiguousarray(dy[(*before, slice(a, b))]) for a, b in pairwise(edges)]


_Masks = list[Bools | None]
_Share = Callable[[Any, list[Floats], _Masks, Floats, Floats], list[Floats]]
"""Maps (layer, inputs, masks, y, dy) to each input's share of dy, in its shape or in y's."""


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
    """Pass the gradient to the first of equal inputs, which Maximum and Minimum choose.

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


# ---- one input


def _of_repeated(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    total = total_of([dy[:, step] for step in range(dy.shape[1])])
    return np.zeros_like(x) if total is None else total


def _of_upsampling(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    total: Floats = reduce(np.add, [dy[:, again :: layer.size] for again in range(layer.size)])
    return total


def _of_pool_means(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    return _spread(layer, x, [dy / layer.sizes(x.shape[1])[:, None]] * layer.pool_size)


def _of_pool_maxima(layer: Any, x: Floats, y: Floats, dy: Floats, context: CallContext) -> Floats:
    """Pass the gradient to the first of equal values (as in Keras on JAX)."""
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
    """Divide the gradient among equal values (as in Keras on JAX)."""
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


SHAPES: dict[type, Rule] = {
    layers.Add: _merge(lambda layer, xs, masks, y, dy: [dy] * len(xs)),
    layers.Average: _merge(
        lambda layer, xs, masks, y, dy: [dy * np.float32(1.0 / len(xs))] * len(xs)
    ),
    layers.AveragePooling1D: rule_from(_of_pool_means),
    layers.Concatenate: _merge(lambda layer, xs, masks, y, dy: parts_of(dy, layer.from_end, xs)),
    layers.Cropping1D: rule_from(lambda layer, x, y, dy, context: padded(dy, layer.cropping, 0)),
    layers.Flatten: _reshaped,
    layers.GlobalAveragePooling1D: rule_from(_of_global_mean),
    layers.GlobalMaxPooling1D: rule_from(_of_global_max),
    layers.MaxPooling1D: rule_from(_of_pool_maxima),
    layers.Maximum: _merge(_of_extreme),
    layers.Minimum: _merge(_of_extreme),
    layers.Multiply: _merge(_of_product),
    layers.Permute: rule_from(
        lambda layer, x, y, dy, context: dy.transpose(np.argsort([0, *layer.dims]).tolist())
    ),
    layers.RepeatVector: rule_from(_of_repeated),
    layers.Reshape: _reshaped,
    layers.Spread: _merge(_of_spread),
    layers.Subtract: _merge(lambda layer, xs, masks, y, dy: [dy, -dy]),
    layers.UpSampling1D: rule_from(_of_upsampling),
    layers.ZeroPadding1D: rule_from(
        lambda layer, x, y, dy, context: dy[:, layer.padding[0] :][:, : x.shape[1]]
    ),
}
