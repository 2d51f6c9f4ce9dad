"""Dropout and noise, which change their input only with training=True, and identity layers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.arguments import Rate, Seed
from streamrnn.nn.layers.built_in import Stepwise
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Argument, declared
from streamrnn.nn.layers.gated import dropout_mask
from streamrnn.nn.layers.initializers import Seeded, normal
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


class NoiseShape(Argument[Sequence[int | None] | None, tuple[int | None, ...] | None]):
    """The shape of a mask. Errors have Keras's words."""

    def take(self, owner: object, name: str, value: Any) -> tuple[int | None, ...] | None:
        if value is None:
            return None
        invalid = f"{owner}: Invalid value received for argument `noise_shape`. Expected"
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ArgumentError(
                f"{invalid} an iterable of integers (e.g., a tuple or list). "
                f"Received: noise_shape={value!r}"
            )
        axes = tuple(value)
        for number, size in enumerate(axes):
            if size is not None and (isinstance(size, bool) or not isinstance(size, SupportsIndex)):
                raise ArgumentError(
                    f"{invalid} all elements to be integers or None. Received element at index "
                    f"{number} with type {type(size).__name__}: {size!r}"
                )
            if size is not None and index(size) < 1:
                raise ArgumentError(
                    f"{invalid} all dimensions to be positive integers or None. Received negative "
                    f"or zero value at index {number}: {size}"
                )
        return axes


@builtin_layer
class Dropout(Seeded, Stepwise):
    """With training=True: each element is 0 with probability rate, else divided by 1 - rate.

    noise_shape: the shape of the mask: 1 shares one value along an axis, None takes the input's
    size; a shorter shape, without None, is for the last axes. seed: layers with the same seed draw
    equal masks.
    """

    rate: Rate
    noise_shape: NoiseShape = NoiseShape(None)
    seed: Seed = Seed(None)

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the mask for inputs of this shape. Raises ShapeError."""
        if self.noise_shape is None:
            return shape
        mask = tuple(n if m is None else m for m, n in zip(self.noise_shape, shape, strict=False))
        pairs = zip(mask[::-1], shape[::-1], strict=False)
        if len(self.noise_shape) > len(shape) or any(m not in (1, n) for m, n in pairs):
            raise ShapeError(
                f"{self}: noise_shape={self.noise_shape} does not fit inputs of shape {shape}: set "
                "1, None or the input's size for each axis"
            )
        return mask

    def apply(self, inputs: Array, context: CallContext) -> Array:
        if not context.training or self.rate == 0:
            return inputs
        mask = dropout_mask(self._random, self.mask_shape(inputs.shape), self.rate)
        return self.combined(inputs, mask)

    def combined(self, inputs: Floats, mask: Floats) -> Floats:
        """Return the output for a mask, which is 0 where an element is dropped."""
        return inputs * mask

    def slope(self, mask: Floats) -> Floats:
        """Return the derivative of the output with respect to the input."""
        return mask


@builtin_layer
class SpatialDropout1D(Dropout):
    """Dropout of whole features: one mask for all steps of a row."""

    noise_shape: Any = Argument(init=False)

    def check_input(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise ShapeError(f"{self}: expected (batch, time, features), received shape {shape}")

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], 1, shape[2])


@builtin_layer
class ActivityRegularization(Stepwise):
    """Returns its input.

    l1, l2: for Keras's training. Training here refuses the layer if weights before it are trained.
    """

    l1: float = 0.0
    l2: float = 0.0

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return inputs


@builtin_layer
class Identity(Stepwise):
    """Returns its input."""

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return inputs


@declared
class GaussianLayer(Seeded, Stepwise):
    """With training=True: combines its input with normal noise, from a seed as in Dropout."""

    _: KW_ONLY
    seed: Seed = Seed(None)

    def deviation(self) -> float:
        """Return the standard deviation of the noise."""
        raise NotImplementedError

    def combined(self, inputs: Floats, noise: Floats) -> Floats:
        """Return the inputs combined with noise of mean 0 and the same shape."""
        raise NotImplementedError

    def apply(self, inputs: Array, context: CallContext) -> Array:
        if not context.training or self.deviation() == 0:
            return inputs
        return self.combined(inputs, self.noise(self._random, inputs.shape))

    def noise(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Draw noise of mean 0."""
        return (normal(generator, shape) * self.deviation()).astype(np.float32)


@builtin_layer
class GaussianNoise(GaussianLayer):
    """With training=True: adds noise of standard deviation `stddev`.

    seed: layers with the same seed draw the same noise.
    """

    stddev: Rate

    def deviation(self) -> float:
        return self.stddev

    def combined(self, inputs: Floats, noise: Floats) -> Floats:
        return inputs + noise


@builtin_layer
class GaussianDropout(GaussianLayer):
    """With training=True: multiplies by noise of mean 1, variance rate / (1 - rate).

    Srivastava et al. 2014. seed: layers with the same seed draw the same noise.
    """

    rate: Rate

    def deviation(self) -> float:
        if self.rate == 1:
            raise ArgumentError(f"{self}: the variance of rate=1 is infinite; use a smaller rate")
        return math.sqrt(self.rate / (1 - self.rate))

    def combined(self, inputs: Floats, noise: Floats) -> Floats:
        return inputs * (np.float32(1) + noise)


@builtin_layer
class AlphaDropout(Dropout):
    """With training=True: sets each element x to -1.7581 with probability rate; returns a x + b.

    a and b keep mean 0 and variance 1 (Klambauer et al. 2017, for selu). noise_shape, seed: as in
    Dropout.
    """

    def combined(self, inputs: Floats, mask: Floats) -> Floats:
        dropped = np.float32(_DROPPED)
        b = np.float32(-self.factor() * _DROPPED * self.rate)
        return np.float32(self.factor()) * np.where(mask > 0, inputs, dropped) + b

    def slope(self, mask: Floats) -> Floats:
        return (mask > 0) * np.float32(self.factor())

    def factor(self) -> float:
        """Return a, by which kept elements are multiplied."""
        if self.rate == 1:
            raise ArgumentError(f"{self}: rate=1 keeps nothing; use a smaller rate")
        return 1 / math.sqrt((1 - self.rate) * (1 + self.rate * _DROPPED**2))


_DROPPED = -1.6732632423543772 * 1.0507009873554805
