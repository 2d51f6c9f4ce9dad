"""Activations as layers."""

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers import activations
from streamrnn.nn.layers.activations import Activated
from streamrnn.nn.layers.axes import AlongAxes, as_rows, checked_axis, from_rows
from streamrnn.nn.layers.built_in import Stepwise
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, Argument
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.symbol import symbols_in

_LEAST = np.float32(-3e38)
LEAST_DEVIATION = np.float32(1e-3)
"""Smallest deviation that Gaussian gives: without it, the density could grow without limit."""


@builtin_layer
class Activation(Stepwise):
    """Any activation by name: Activation("tanh")."""

    activation: Activated

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return activations.compute(self.activation, inputs)


@builtin_layer
class ReLU(Stepwise):
    """x, at most max_value, where x > threshold; else negative_slope (x - threshold)."""

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def complete(self) -> None:
        self.negative_slope = self.negative_slope or 0.0
        self.threshold = self.threshold or 0.0

    def apply(self, inputs: Array, context: CallContext) -> Array:
        threshold, slope = np.float32(self.threshold), np.float32(self.negative_slope)
        low = inputs <= threshold if threshold else inputs < threshold  # as Keras 3 computes it
        y = np.where(low, slope * (inputs - threshold), inputs)
        return y if self.max_value is None else np.minimum(y, np.float32(self.max_value))


@builtin_layer
class LeakyReLU(Stepwise):
    """x where x >= 0, else negative_slope x. Keras 2 calls negative_slope `alpha`."""

    negative_slope: float = 0.3
    _: KW_ONLY
    alpha: Accepted = Accepted(None)

    def complete(self) -> None:
        if self.alpha is not None:
            self.negative_slope = self.alpha

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.where(inputs < 0, np.float32(self.negative_slope) * inputs, inputs)


@builtin_layer
class ELU(Stepwise):
    """x where x > 0, else alpha (exp(x) - 1)."""

    alpha: float = 1.0

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y = activations.compute("elu", inputs)
        return np.where(inputs > 0, y, np.float32(self.alpha) * y)


@builtin_layer
class PReLU(Stepwise):
    """x where x >= 0, else alpha x, with a learned alpha. Weight: alpha, in the shape of one input.

    shared_axes: axes (from 1; as in Keras, 0 is the last one) along which all values share an
    alpha; time must be one of them where the number of steps is unknown.
    """

    alpha_initializer: Initial = Initial("zeros")
    shared_axes: Argument[Sequence[int] | int | None, Sequence[int] | None] = Argument(default=None)

    def complete(self) -> None:
        if self.shared_axes is not None:
            words = "shared_axes must be an int or a list/tuple of ints"
            axes = checked_axis(self, self.shared_axes, words)
            self.shared_axes = axes if isinstance(axes, list) else [axes]

    def build(self, input_shape: Shape) -> None:
        sizes = list(input_shape[1:])
        for axis in self.shared_axes or ():
            if not 1 - len(sizes) <= axis <= len(sizes):
                raise ArgumentError(
                    f"{self}: shared_axes={self.shared_axes} is out of bounds for an input of "
                    f"{len(input_shape)} axes (batch first)"
                )
            sizes[axis - 1] = 1
        shape = [size for size in sizes if size is not None]
        if len(shape) < len(sizes):
            raise ArgumentError(
                f"{self}: an axis must have a known size, or be in shared_axes, received shape "
                f"{input_shape}; share alpha over time with shared_axes=[1]"
            )
        self.add_weight("alpha", shape, self.alpha_initializer)

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        alpha = self._weights["alpha"].shape
        return "it has an alpha for each step" if len(alpha) > 1 and alpha[0] != 1 else None

    def check_input(self, shape: Shape) -> None:
        alpha = self._weights["alpha"].shape
        if alpha and alpha[-1] != 1:  # one alpha for all features fits any number of them
            self.expect_features(shape, alpha[-1])
        sizes = zip(alpha[::-1], (1, *shape[1:])[::-1], strict=False)
        if len(alpha) > len(shape) or any(m not in (1, n) and n is not None for m, n in sizes):
            raise ShapeError(
                f"{self}: an alpha of shape {alpha} does not fit an input of shape {shape}; make "
                "another layer for it"
            )

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.where(inputs < 0, self._weights["alpha"] * inputs, inputs)


@builtin_layer
class Softmax(AlongAxes):
    """exp(x) / sum of exp(x) over an axis, or over several. Over time it cannot run on streams.

    A call on arrays also takes a mask of values, with as many axes as the inputs; for inputs (B, F)
    it may have fewer. Where the mask is False, the output is 0 and the sum leaves the value out, as
    in Keras.
    """

    def __call__(self, inputs: Any, *args: Any, mask: Any = None, **kwargs: Any) -> Any:
        """Compute the outputs; see Layer, and Softmax for the mask."""
        of_steps = mask is None or bool(symbols_in([inputs, mask]))
        if of_steps or (np.ndim(inputs) > 2 and np.ndim(mask) < np.ndim(inputs)):
            return super().__call__(inputs, *args, mask=mask, **kwargs)
        x, taken = self._cast(inputs), np.asarray(mask)
        taken = taken if taken.dtype == bool else taken > 0.5
        try:
            taken = np.broadcast_to(taken, x.shape)
        except ValueError:
            raise ShapeError(
                f"{self}: a mask must be broadcastable to inputs of shape {x.shape}, and must "
                f"not have more dimensions, received shape {taken.shape}"
            ) from None
        y = super().__call__(np.where(taken, x, _LEAST), *args, **kwargs)
        return np.where(taken, y, np.float32(0))

    def apply(self, inputs: Array, context: CallContext) -> Array:
        rows, shape = as_rows(inputs, self.axes)
        return from_rows(activations.compute("softmax", rows), self.axes, shape)


@builtin_layer
class Gaussian(Stepwise):
    """Means and standard deviations of K normal distributions, from 2 K inputs. Not in Keras.

    The first K inputs are the means, unchanged; the others give the deviations,
    softplus(x) + 0.001. The layer follows a Dense of 2 K units at the end of a model, and
    the model's loss is `gaussian_nll`.
    """

    def check_input(self, shape: Shape) -> None:
        if shape[-1] is None or shape[-1] % 2:
            raise ShapeError(
                f"{self}: expected a mean and a deviation of each label, an even number of "
                f"features, received shape {shape}. Change the units of the layer before it"
            )

    def apply(self, inputs: Array, context: CallContext) -> Array:
        half = inputs.shape[-1] // 2
        above = activations.compute("softplus", np.ascontiguousarray(inputs[..., half:]))
        return np.concatenate([inputs[..., :half], above + LEAST_DEVIATION], axis=-1)
