"""The operations by which Keras 3 writes masks into functional graphs.

Their output is a mask: bool, given to other layers as `mask=`.
"""

import typing
from functools import reduce
from typing import Unpack

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.arguments import LayerOptions
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.merge import Concatenate, Merge
from streamrnn.nn.layers.registry import ConfigDict, builtin_layer
from streamrnn.nn.layers.structure import Shape


class _MaskOperation(Layer):
    stepwise = True
    makes_mask = True

    def compute_mask(self, inputs: typing.Any, mask: typing.Any = None) -> None:
        """Return None: the output is a mask, and has none."""


@builtin_layer
class NotEqual(_MaskOperation):
    """x != value, element by element: from ids, or from features."""

    config_fields = ("value",)

    def __init__(self, value: float = 0, **kwargs: Unpack[LayerOptions]) -> None:
        super().__init__(**kwargs)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ArgumentError(f"{self}: expected a number to compare with, received {value!r}")
        self.value = value

    def apply(self, inputs: Array, context: CallContext) -> Array:
        mask: Bools = inputs != np.float32(self.value)
        return mask


@builtin_layer
class Any(_MaskOperation):
    """True where any feature is: (B, T, F) -> (B, T). Only over the last axis."""

    def __init__(
        self, axis: typing.Any = -1, keepdims: bool = False, **kwargs: Unpack[LayerOptions]
    ) -> None:
        super().__init__(**kwargs)
        axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
        if axis not in (-1, 2) or keepdims:
            raise ArgumentError(
                f"{self}: only any(axis=-1), over features, is supported, received "
                f"axis={axis}, keepdims={keepdims}"
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

    def merge(self, inputs: list[Array], masks: list[Array | None]) -> Array:
        joined: Array = reduce(np.logical_or, inputs)
        return joined


@builtin_layer
class JoinedMasks(_MaskOperation, Concatenate):
    """Masks of single features, one after the other: Concatenate as an operation."""


@builtin_layer
class ExpandDims(_MaskOperation):
    """A mask of steps (B, T) as one of features, (B, T, 1). Only a new last axis."""

    def __init__(self, axis: int = -1, **kwargs: Unpack[LayerOptions]) -> None:
        super().__init__(**kwargs)
        if axis != -1:
            raise ArgumentError(f"{self}: only axis=-1 is supported, received axis={axis!r}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, 1)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.asarray(inputs)[..., None]


class _Constant(_MaskOperation):
    """A mask of its input's shape that is the same everywhere."""

    value: bool

    def __init__(self, dtype: str = "bool", **kwargs: typing.Any) -> None:
        super().__init__(**kwargs)
        if dtype != "bool":
            raise ArgumentError(f"{self}: only dtype='bool' is supported, received {dtype!r}")

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.full(inputs.shape, self.value, np.bool_)

    def get_config(self) -> ConfigDict:
        return {**super().get_config(), "dtype": "bool"}


@builtin_layer
class ZerosLike(_Constant):
    """False everywhere."""

    value = False


@builtin_layer
class OnesLike(_Constant):
    """True everywhere."""

    value = True
