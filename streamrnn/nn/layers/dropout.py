"""Dropout, and other layers that return their input unless training."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.arguments import Rate, Seed
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.gated import dropout_mask
from streamrnn.nn.layers.registry import builtin_layer


def _checked_noise_shape(owner: object, _: str, given: object) -> tuple[int | None, ...] | None:
    """Return the axes of a noise_shape as a tuple. Raises ArgumentError, in Keras's words."""
    if given is None:
        return None
    invalid = f"{owner}: Invalid value received for argument `noise_shape`. Expected"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ArgumentError(
            f"{invalid} an iterable of integers (e.g., a tuple or list). "
            f"Received: noise_shape={given!r}"
        )
    axes = tuple(given)
    for number, size in enumerate(axes):
        if size is not None and (isinstance(size, bool) or not isinstance(size, SupportsIndex)):
            raise ArgumentError(
                f"{invalid} all elements to be integers or None. Received element at index "
                f"{number} with type {type(size).__name__}: {size!r}"
            )
        if size is not None and index(size) < 1:
            raise ArgumentError(
                f"{invalid} all dimensions to be positive integers or None. Received negative or "
                f"zero value at index {number}: {size}"
            )
    return axes


@builtin_layer
class Dropout(BuiltIn):
    """With training=True: each element is 0 with probability rate, else divided by 1 - rate.

    noise_shape: 1 on the axes that share a mask. seed: layers with one seed draw the same masks.
    """

    stepwise = True

    rate: Rate
    noise_shape: Argument[Sequence[int | None] | None, tuple[int | None, ...] | None] = Argument(
        default=None, check=_checked_noise_shape
    )
    seed: Seed = Seed(None)

    def complete(self) -> None:
        self._random: np.random.Generator | None = None

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the mask for inputs of this shape."""
        if self.noise_shape is None:
            return shape
        return tuple(n if m is None else m for m, n in zip(self.noise_shape, shape, strict=True))

    def apply(self, inputs: Array, context: CallContext) -> Array:
        if not context.training or self.rate == 0:
            return inputs
        if self._random is None:
            self._random = np.random.default_rng(self.seed)
        return inputs * dropout_mask(self._random, self.mask_shape(inputs.shape), self.rate)


@builtin_layer
class SpatialDropout1D(Dropout):
    """Dropout of whole features: one mask for all steps of a row."""

    noise_shape: Any = Argument(init=False)

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 1, shape[2])


@builtin_layer
class ActivityRegularization(BuiltIn):
    """Returns its input: it only affects training."""

    stepwise = True

    l1: float = 0.0
    l2: float = 0.0

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return inputs
