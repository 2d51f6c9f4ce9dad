"""Dropout, and other layers that return their input unless training."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import ClassVar, SupportsIndex, Unpack

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.arguments import LayerOptions
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.gated import checked_rate, checked_seed, dropout_mask
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import builtin_layer


@builtin_layer
class Dropout(Layer):
    """With training=True: each element is 0 with probability rate, else divided by 1 - rate.

    noise_shape: 1 on the axes that share a mask. seed: layers with one seed draw the same masks.
    """

    stepwise = True
    config_fields: ClassVar[tuple[str, ...]] = ("rate", "noise_shape", "seed")

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.rate = checked_rate(str(self), "rate", rate)
        self.noise_shape = _checked_noise_shape(str(self), noise_shape)
        self.seed = checked_seed(str(self), seed)
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


def _checked_noise_shape(owner: str, given: object) -> tuple[int | None, ...] | None:
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
class SpatialDropout1D(Dropout):
    """Dropout of whole features: one mask for all steps of a row."""

    config_fields = ("rate", "seed")

    def __init__(
        self, rate: float, seed: int | None = None, **kwargs: Unpack[LayerOptions]
    ) -> None:
        super().__init__(rate, seed=seed, **kwargs)

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 1, shape[2])


@builtin_layer
class ActivityRegularization(Layer):
    """Returns its input: it only affects training."""

    stepwise = True
    config_fields = ("l1", "l2")

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Unpack[LayerOptions]) -> None:
        super().__init__(**kwargs)
        self.l1 = l1
        self.l2 = l2

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return inputs
