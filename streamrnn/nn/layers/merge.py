"""Layers that merge several inputs into one, and layers whose output is a mask.

Masks follow Keras: Add and the other element-wise layers mask a step only if all inputs mask it,
and no step if an input has no mask; Concatenate does the same on the last axis. Keras 3 writes
masks into functional graphs as operations: their output is a bool mask, passed to other layers as
`mask=`.
"""

from collections.abc import Sequence
from functools import reduce
from typing import ClassVar

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.axes import axes_from_end
from streamrnn.nn.layers.built_in import Stepwise, Unmasked
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, Argument
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape, Shapes

_MaskList = list[Bools | None] | None


class Merge(Stepwise):
    """Merges inputs element by element; on each axis, their sizes are equal or 1."""

    ufunc: ClassVar[np.ufunc]

    def build(self, input_shape: Shapes) -> None:
        self._listed(input_shape)

    def _listed(self, input_shape: Shapes) -> list[Shape]:
        if isinstance(input_shape, tuple) and any(isinstance(s, list | tuple) for s in input_shape):
            input_shape = [tuple(shape) for shape in input_shape]  # type: ignore[arg-type]
        if not isinstance(input_shape, list) or not input_shape:
            raise ShapeError(
                f"{self}: A merge layer should be called on a list of inputs, received shape "
                f"{input_shape}"
            )
        return input_shape

    def check_input(self, shape: Shapes) -> None:
        self.compute_output_shape(self._listed(shape))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        one, *others = input_shape
        for other in others:
            if len(one) != len(other):
                raise ShapeError(
                    f"{self}: its inputs must have the same number of axes, received {one} and "
                    f"{other}"
                )
            pairs = list(zip(one, other, strict=True))
            if any(a != b and not {a, b} & {1, None} for a, b in pairs):
                raise ShapeError(
                    f"{self}: its inputs cannot be broadcast: expected sizes that are equal, or 1, "
                    f"received {one} and {other}"
                )
            one = tuple(b if a == 1 else a if b in (1, None) else b for a, b in pairs)
        return one

    def compute_mask(self, inputs: list[Floats], mask: _MaskList = None) -> Bools | None:
        self._check_masks(inputs, mask)
        present = [m for m in mask or () if m is not None]
        if mask is None or len(present) < len(mask):
            return None
        joint: Bools = reduce(np.logical_or, present)
        return joint

    def _check_masks(self, inputs: object, mask: object) -> None:
        if mask is None:
            return
        sizes = []
        for what, value in (("mask", mask), ("inputs", inputs)):
            if not isinstance(value, list | tuple):
                raise ShapeError(
                    f"{self}: `{what}` should be a list. Received type: {type(value).__name__}"
                )
            sizes.append(len(value))
        if sizes[0] != sizes[1]:
            raise ShapeError(
                f"{self}: The lists `inputs` and `mask` should have the same length. Received: "
                f"inputs of length {sizes[1]} and mask of length {sizes[0]}"
            )

    def apply(self, inputs: list[Floats], context: CallContext) -> Floats:
        masks = [None] * len(inputs) if context.mask is None else context.mask
        try:
            return self.merge(inputs, masks)
        except ValueError:
            self.compute_output_shape([x.shape for x in inputs])  # says which shapes do not fit
            raise

    def merge(self, inputs: list[Floats], masks: list[Bools | None]) -> Floats:
        """Return the merged array; by default `ufunc` merges the inputs, one after the other."""
        merged: Floats = reduce(self.ufunc, inputs)
        return merged


@builtin_layer
class Add(Merge):
    """The sum of its inputs."""

    ufunc = np.add


@builtin_layer
class Subtract(Merge):
    """The first input minus the second."""

    ufunc = np.subtract

    def build(self, input_shape: Shapes) -> None:
        self.compute_output_shape(self._listed(input_shape))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        if len(input_shape) != 2:
            raise ShapeError(
                f"{self}: A `Subtract` layer should be called on exactly 2 inputs, received "
                f"{len(input_shape)}"
            )
        return super().compute_output_shape(input_shape)


@builtin_layer
class Average(Merge):
    """The mean of its inputs."""

    def merge(self, inputs: list[Floats], masks: list[Bools | None]) -> Floats:
        total: Floats = reduce(np.add, inputs)
        return total / np.float32(len(inputs))


@builtin_layer
class Spread(Merge):
    """The standard deviation of a mixture; the inputs are its members' forecasts. Not in Keras.

    sqrt(variance + mean of (x - mean)**2) over the inputs x, where `variance`, one number or one
    for each unit (or each step and unit), is the variance of the members' errors (Lakshminarayanan
    et al. 2017, arXiv 1612.01474).
    """

    variance: Argument[float | Sequence[float] | Floats, Floats] = Argument(default=0.0)

    def complete(self) -> None:
        value = self.variance
        self.variance = np.array(value, np.float32)
        if self.variance.ndim > 2 or not (self.variance >= 0).all():
            raise ArgumentError(
                f"{self}: variance must be one number, or one for each unit, each 0 or more, "
                f"received {value!r}"
            )

    def build(self, input_shape: Shapes) -> None:
        units = self._listed(input_shape)[0][-1]
        if self.variance.ndim and self.variance.shape[-1] != units:
            raise ShapeError(
                f"{self}: expected one variance for each of {units} units, received "
                f"{self.variance.shape[-1]}"
            )

    def merge(self, inputs: list[Floats], masks: list[Bools | None]) -> Floats:
        number = np.float32(len(inputs))
        mean = reduce(np.add, inputs) / number
        squares = reduce(np.add, [(x - mean) * (x - mean) for x in inputs])
        spread: Floats = np.sqrt(squares / number + self.variance)
        return spread


@builtin_layer
class Multiply(Merge):
    """The product of its inputs. A masked step counts as 1; a step that all inputs mask gives 0."""

    def merge(self, inputs: list[Floats], masks: list[Bools | None]) -> Floats:
        factors = [
            x if mask is None else np.where(mask[..., None], x, np.float32(1))
            for x, mask in zip(inputs, masks, strict=True)
        ]
        product: Floats = reduce(np.multiply, factors)
        joint = self.compute_mask(inputs, masks)
        return product if joint is None else np.where(joint[..., None], product, np.float32(0))


class _Extreme(Merge):
    """Maximum and Minimum: masked steps are ignored, as in Keras."""

    def merge(self, inputs: list[Floats], masks: list[Bools | None]) -> Floats:
        y, joint = inputs[0], masks[0]
        for x, mask in zip(inputs[1:], masks[1:], strict=True):
            other = x if mask is None else np.where(mask[..., None], x, y)
            if joint is not None:
                y = np.where(joint[..., None], y, other)
            joint = None if mask is None or joint is None else joint | mask
            y = self.ufunc(y, other)
        return y


@builtin_layer
class Maximum(_Extreme):
    """The largest of its inputs, element by element."""

    ufunc = np.maximum


@builtin_layer
class Minimum(_Extreme):
    """The smallest of its inputs, element by element."""

    ufunc = np.minimum


@builtin_layer
class Concatenate(Merge):
    """Its inputs one after the other along `axis` (by default the features)."""

    axis: int = -1

    def build(self, input_shape: Shapes) -> None:
        rank = len(self._listed(input_shape)[0])
        # Counted from the end, so that it means the same when a stream adds a time axis.
        (self.from_end,) = axes_from_end(self, self.axis, rank)
        self.ragged = self.from_end == -1

    def why_not_stepwise(self, input_shape: list[Shape]) -> str | None:
        if len(input_shape[0]) == 3 and self.from_end == -2:
            return "it joins sequences along the time axis"
        return None

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        first = list(input_shape[0])
        for shape in input_shape[1:]:
            fits = len(shape) == len(first) and all(
                i == len(first) + self.from_end or None in (a, b) or a == b
                for i, (a, b) in enumerate(zip(first, shape, strict=False))
            )
            if not fits:
                raise ShapeError(
                    f"{self}: its inputs do not fit: a `Concatenate` layer requires inputs with "
                    f"matching shapes except for the concatenation axis, received {input_shape}"
                )
            a, b = first[self.from_end], shape[self.from_end]
            first[self.from_end] = None if a is None or b is None else a + b
        return tuple(first)

    def compute_mask(self, inputs: list[Floats], mask: _MaskList = None) -> Bools | None:
        self._check_masks(inputs, mask)
        if mask is None or all(m is None for m in mask):
            return None
        full = [
            np.ones(x.shape[:2], np.bool_) if m is None else m
            for x, m in zip(inputs, mask, strict=True)
        ]
        if inputs[0].ndim == 3 and self.from_end == -2:
            return np.concatenate(full, axis=1)
        joint: Bools = reduce(np.logical_or, full)
        return joint

    def merge(self, inputs: list[Floats], masks: list[Bools | None]) -> Floats:
        return np.concatenate(inputs, axis=self.from_end)


@builtin_layer
class Masking(Stepwise):
    """Masks the steps where all features equal mask_value, and sets them to 0 (as in Keras).

    A step that is already masked stays masked, as `lengths=` needs; Keras 3 forgets earlier masks.
    """

    makes_mask = True

    mask_value: float = 0.0

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        present: Bools = (np.asarray(inputs) != np.float32(self.mask_value)).any(axis=-1)
        return present if mask is None else present & mask

    def apply(self, inputs: Array, context: CallContext) -> Array:
        present = (inputs != np.float32(self.mask_value)).any(axis=-1, keepdims=True)
        return np.where(present, inputs, np.float32(0))


class _MaskOperation(Unmasked):
    makes_mask = stepwise = True


@builtin_layer
class NotEqual(_MaskOperation):
    """x != value, element by element, on ids or features."""

    value: float = 0

    def complete(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise ArgumentError(
                f"{self}: expected a number to compare with, received {self.value!r}"
            )

    def apply(self, inputs: Array, context: CallContext) -> Array:
        mask: Bools = inputs != np.float32(self.value)
        return mask


@builtin_layer
class Any(_MaskOperation):
    """True where any feature is True: (B, T, F) -> (B, T). Only over the last axis."""

    axis: Accepted = Accepted(-1)
    keepdims: Accepted = Accepted(False)

    def complete(self) -> None:
        axis = self.axis
        axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
        if axis not in (-1, 2) or self.keepdims:
            raise ArgumentError(
                f"{self}: only any(axis=-1), over features, is supported, received "
                f"axis={axis}, keepdims={self.keepdims}"
            )

    def check_input(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise ArgumentError(f"{self}: expected (batch, time, features), received shape {shape}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[:-1]

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.asarray(inputs.any(axis=-1))


@builtin_layer
class LogicalOr(_MaskOperation, Merge):
    """True where any of its inputs is True."""

    ufunc = np.logical_or


@builtin_layer
class JoinedMasks(_MaskOperation, Concatenate):
    """Keras's operation Concatenate: joins masks of single features along the last axis."""


@builtin_layer
class ExpandDims(_MaskOperation):
    """A mask of steps (B, T) as a mask of features (B, T, 1). Only a new last axis is supported."""

    axis: Accepted = Accepted(-1)

    def complete(self) -> None:
        if self.axis != -1:
            raise ArgumentError(f"{self}: only axis=-1 is supported, received axis={self.axis!r}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, 1)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.asarray(inputs)[..., None]


@builtin_layer
class ZerosLike(_MaskOperation):
    """A mask of its input's shape, False everywhere."""

    value: ClassVar[bool] = False

    dtype: Argument[str, str] = Argument(default="bool")

    def complete(self) -> None:
        if self.dtype != "bool":
            raise ArgumentError(f"{self}: only dtype='bool' is supported, received {self.dtype!r}")

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.full(inputs.shape, self.value, np.bool_)


@builtin_layer
class OnesLike(ZerosLike):
    """A mask of its input's shape, True everywhere."""

    value = True
