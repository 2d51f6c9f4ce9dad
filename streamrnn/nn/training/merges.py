"""Rules of layers that merge several inputs into one, of one shape or broadcast."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.nn import layers
from streamrnn.nn.kernels.gradients import summed_over
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.recording import Recorded, Recording, Rule


def _concatenate(
    layer: Any, inputs: list[Floats], context: CallContext, recording: Recording
) -> Recorded:
    y = layer.apply(inputs, context)
    axis = layer.from_end % y.ndim
    edges = np.cumsum([0, *(x.shape[axis] for x in inputs)]).tolist()
    before = (slice(None),) * axis

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        dy = dys[0]
        if dy is None:
            return [None] * len(inputs)
        return [np.ascontiguousarray(dy[(*before, slice(a, b))]) for a, b in pairwise(edges)]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


_Share = Callable[[Any, list[Floats], list[Bools | None], Floats, Floats], list[Floats]]
"""Maps (layer, inputs, masks, y, dy) to each input's share of dy, in the shape of y."""


def _merge(share: _Share) -> Rule:
    """Make the rule of a merge of inputs that NumPy can broadcast."""

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


def _times(numbers_of: Callable[[int], list[float]]) -> _Share:
    """Make the shares of a sum of inputs, each times a number."""

    def share(
        layer: Any, inputs: list[Floats], masks: list[Bools | None], y: Floats, dy: Floats
    ) -> list[Floats]:
        return [dy * np.float32(number) for number in numbers_of(len(inputs))]

    return share


def _of_product(
    layer: Any, inputs: list[Floats], masks: list[Bools | None], y: Floats, dy: Floats
) -> list[Floats]:
    joint = layer.compute_mask(inputs, masks)
    factors = [_where(mask, x, np.float32(1)) for x, mask in zip(inputs, masks, strict=True)]
    shares = []
    for i, mask in enumerate(masks):
        dx = dy
        for j, factor in enumerate(factors):
            dx = dx * factor if i != j else dx
        shares.append(_where(joint, _where(mask, dx, np.float32(0)), np.float32(0)))
    return shares


def _of_extreme(
    layer: Any, inputs: list[Floats], masks: list[Bools | None], y: Floats, dy: Floats
) -> list[Floats]:
    """Pass the gradient to the first of equal inputs, which Maximum and Minimum choose.

    `merge` takes the inputs one after the other: a masked input changes nothing, unless all inputs
    before it were masked, too; then it replaces the value.
    """
    best, joint = np.broadcast_to(inputs[0], y.shape), masks[0]
    chosen = np.zeros(y.shape, np.int64)
    for i, (x, mask) in enumerate(zip(inputs[1:], masks[1:], strict=True), start=1):
        wins = layer.choose(best, x) != best
        wins &= _where(mask, np.ones(y.shape, np.bool_), np.False_)
        if joint is not None:
            unseen = ~joint[..., None] & _where(mask, np.ones(y.shape, np.bool_), np.False_)
            wins |= unseen
        chosen[wins] = i
        best = np.where(wins, x, best)
        joint = None if mask is None or joint is None else joint | mask
    return [np.where(chosen == i, dy, np.float32(0)) for i in range(len(inputs))]


def _of_spread(
    layer: Any, inputs: list[Floats], masks: list[Bools | None], y: Floats, dy: Floats
) -> list[Floats]:
    """Pass on (x - mean) / (n * spread) times the gradient, 0 where the spread is 0."""
    number = np.float32(len(inputs))
    mean = reduce(np.add, inputs) / number
    scale = np.where(y > 0, dy / (number * np.where(y > 0, y, 1)), np.float32(0))
    return [(x - mean) * scale for x in inputs]


def _where(mask: Bools | None, values: Any, other: Any) -> Any:
    return values if mask is None else np.where(mask[..., None], values, other)


MERGES: dict[type, Rule] = {
    layers.Add: _merge(_times(lambda n: [1.0] * n)),
    layers.Average: _merge(_times(lambda n: [1.0 / n] * n)),
    layers.Concatenate: _concatenate,
    layers.Maximum: _merge(_of_extreme),
    layers.Minimum: _merge(_of_extreme),
    layers.Multiply: _merge(_of_product),
    layers.Spread: _merge(_of_spread),
    layers.Subtract: _merge(_times(lambda n: [1.0, -1.0])),
}
