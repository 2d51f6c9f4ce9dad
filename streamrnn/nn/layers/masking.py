"""Masking, and the operations by which Keras 3 writes masks into functional graphs.

The output of an operation is a bool mask, passed to other layers as `mask=`.
"""

import typing
from typing import ClassVar

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.built_in import Stepwise
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, Argument
from streamrnn.nn.layers.merge import Concatenate, Merge
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


@builtin_layer
class Masking(Stepwise):
    """Masks the steps where all features equal mask_value, and sets them to 0 (as in Keras).

    A step that is already masked stays so, as `lengths=` needs; Keras 3 forgets an earlier mask.
    """

    makes_mask = True

    mask_value: float = 0.0

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        present: Bools = (np.asarray(inputs) != np.float32(self.mask_value)).any(axis=-1)
        return present if mask is None else present & mask

    def apply(self, inputs: Array, context: CallContext) -> Array:
        present = (inputs != np.float32(self.mask_value)).any(axis=-1, keepdims=True)
        return np.where(present, inputs, np.float32(0))


class _MaskOperation(Stepwise):
    makes_mask = True

    def compute_mask(self, inputs: typing.Any, mask: typing.Any = None) -> None:
        """Return None: the output is a mask, and has none."""


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
    """True where any feature is: (B, T, F) -> (B, T). Only over the last axis."""

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
    """True where any of its inputs is."""

    ufunc = np.logical_or


@builtin_layer
class JoinedMasks(_MaskOperation, Concatenate):
    """The operation Concatenate: joins masks of single features along the last axis."""


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
