"""Layers that change the shape, or the number of steps. They pass no mask on, as in Keras.

ZeroPadding1D, Cropping1D, UpSampling1D and the pools, of windows and of whole sequences, cannot run
on streams, where each input row gives one output row.
"""

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.axes import (
    DataFormat,
    OneSize,
    OverTime,
    Padding,
    TimeWindow,
    TwoSizes,
    one_size,
    padded,
)
from streamrnn.nn.layers.built_in import Unmasked
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, Argument, declared
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


def _size(shape: Shape) -> int | None:
    """Return the product of the sizes of an input's axes; None if a size is unknown."""
    sizes = [n for n in shape if n is not None]
    return math.prod(sizes) if len(sizes) == len(shape) else None


class _ChangesShape(Unmasked):
    ragged = False

    def apply(self, inputs: Array, context: CallContext) -> Array:
        # On a stream, arrays have one more axis: each step is reshaped, not each row.
        lead = inputs.shape[:2] if context.kind == "stream" else inputs.shape[:1]
        shape = self.compute_output_shape((None, *inputs.shape[len(lead) :]))
        return inputs.reshape(*lead, *shape[1:])

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return "it needs the whole time axis" if len(input_shape) > 2 else None


@builtin_layer
class Flatten(_ChangesShape):
    """(B, …) -> (B, the product of the rest)."""

    data_format: Accepted = Accepted(None)

    def complete(self) -> None:
        if self.data_format not in (None, "channels_last"):
            raise ArgumentError(
                f"{self}: data_format={self.data_format!r} is not supported; leave it out, or set "
                "'channels_last'"
            )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], _size(input_shape[1:]))


@builtin_layer
class Permute(_ChangesShape):
    """Reorders the axes after the batch: `dims` are their numbers in the input, counted from 1."""

    dims: Argument[Sequence[int], tuple[int, ...]]

    def complete(self) -> None:
        dims = self.dims
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ArgumentError(
                f"{self}: Invalid permutation argument `dims`: expected the numbers 1 to "
                f"{len(self.dims)} in some order, received {dims}"
            )

    def check_input(self, shape: Shape) -> None:
        if len(shape) != len(self.dims) + 1:
            raise ShapeError(
                f"{self}: dims={self.dims} are for inputs of {len(self.dims) + 1} axes, received "
                f"shape {shape}"
            )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *(input_shape[axis] for axis in self.dims))

    def apply(self, inputs: Array, context: CallContext) -> Array:
        lead = inputs.ndim - len(self.dims)
        axes = [*range(lead), *(lead - 1 + axis for axis in self.dims)]
        return np.ascontiguousarray(inputs.transpose(axes))

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        if self.dims[0] == 1:
            return None  # steps stay steps
        return "it moves the time axis; use windows without carried state"


@builtin_layer
class Reshape(_ChangesShape):
    """(B, …) -> (B, *target_shape); one entry may be -1."""

    target_shape: Argument[Sequence[int], tuple[int, ...]]

    def complete(self) -> None:
        target: Any = self.target_shape
        several = isinstance(target, Iterable) and not isinstance(target, str)
        sizes = tuple(target) if several else (target,)
        for size in sizes:
            whole = isinstance(size, SupportsIndex) and not isinstance(size, bool)
            if not whole or index(size) < -1:
                raise ArgumentError(
                    f"{self}: `target_shape` must be a tuple of integers, with -1 for one free "
                    f"axis, received {target!r}"
                )
        self.target_shape = tuple(map(index, sizes))
        if self.target_shape.count(-1) > 1:
            raise ArgumentError(f"{self}: only one axis may be -1, received {self.target_shape}")

    def check_input(self, shape: Shape) -> None:
        self.compute_output_shape(shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        target_size = math.prod(n for n in self.target_shape if n != -1)
        size = _size(input_shape[1:])
        if size is None:
            return (input_shape[0], *(None if n == -1 else n for n in self.target_shape))
        free = -1 in self.target_shape
        if size != target_size and not (free and target_size and size % target_size == 0):
            raise ShapeError(
                f"{self}: cannot reshape {size} values of shape {input_shape[1:]} to "
                f"{self.target_shape}"
            )
        return (input_shape[0], *(size // target_size if n == -1 else n for n in self.target_shape))

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        if len(input_shape) == 2 and len(self.target_shape) > 1:
            return "it makes a sequence out of each row"
        return super().why_not_stepwise(input_shape)


@builtin_layer
class RepeatVector(_ChangesShape):
    """(B, F) -> (B, n, F): the same vector at each of n steps."""

    n: Argument[SupportsIndex, int]

    def complete(self) -> None:
        if not isinstance(self.n, SupportsIndex):
            raise ArgumentError(f"{self}: Expected an integer value for `n`, got {type(self.n)}")
        if index(self.n) < 1:
            raise ArgumentError(
                f"{self}: Argument `n` should be a positive integer. Received: n={self.n}"
            )
        self.n = index(self.n)

    def check_input(self, shape: Shape) -> None:
        if len(shape) != 2:
            raise ShapeError(f"{self}: expected (batch, features), received shape {shape}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.n, input_shape[1])

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.repeat(inputs[:, None], self.n, axis=1)

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return "it makes a new sequence out of each row"


@builtin_layer
class ZeroPadding1D(OverTime):
    """(B, T, F) -> (B, before + T + after, F): adds steps of zeros.

    padding: (before, after), or one number for both.
    """

    why = 'it adds steps; instead of it and a convolution, use Conv1D(padding="causal")'

    padding: TwoSizes = TwoSizes(1)
    data_format: DataFormat = DataFormat(None)

    def steps(self, input_steps: int | None) -> int | None:
        return None if input_steps is None else input_steps + sum(self.padding)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return padded(inputs, self.padding, 0)


@builtin_layer
class Cropping1D(OverTime):
    """(B, T, F) -> (B, T - first - last, F). cropping: (first, last), or one number for both."""

    why = "it leaves out steps; remove their rows from the output instead"

    cropping: TwoSizes = TwoSizes((1, 1))

    def steps(self, input_steps: int | None) -> int | None:
        if not input_steps:
            return input_steps
        if input_steps <= sum(self.cropping):
            raise ShapeError(
                f"{self}: `cropping` must remove fewer steps than the input has, received "
                f"cropping={self.cropping} for {input_steps} steps"
            )
        return input_steps - sum(self.cropping)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        first, steps = self.cropping[0], self.steps(inputs.shape[1]) or 0
        return np.ascontiguousarray(inputs[:, first : first + steps])


@builtin_layer
class UpSampling1D(OverTime):
    """(B, T, F) -> (B, T size, F): each step `size` times."""

    why = "it repeats steps; use windows without carried state"

    size: int = 2

    def complete(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ArgumentError(
                f"{self}: `size` should be a positive integer, received {self.size!r}"
            )

    def steps(self, input_steps: int | None) -> int | None:
        return None if input_steps is None else input_steps * self.size

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.repeat(inputs, self.size, axis=1)


@declared
class _Pool(OverTime):
    why = "it makes one step out of several; use windows without carried state"

    pool_size: OneSize
    strides: Argument[int | Sequence[int] | None, int] = Argument(default=None)
    padding: Padding = Padding("valid", "same")
    data_format: DataFormat = DataFormat(None)

    def complete(self) -> None:
        strides: Any = self.strides
        self.strides = one_size(self, "strides", self.pool_size if strides is None else strides)
        self.window = TimeWindow(self.pool_size, self.strides, 1, self.padding)

    def steps(self, input_steps: int | None) -> int | None:
        return self.window.count_for(self, input_steps)

    def windows(self, x: Floats, value: float) -> list[Floats]:
        """Return the inputs 0, 1, … of all windows, (B, windows, F) each, padded with a value."""
        count = self.steps(x.shape[1]) or 0
        steps = padded(x, self.window.pads(x.shape[1]), value)
        return list(self.window.views(steps, count)) if count else [x[:, :0]]


@builtin_layer
class MaxPooling1D(_Pool):
    """(B, T, F) -> (B, windows, F): the largest value of each window. It passes no mask on."""

    pool_size: OneSize = OneSize(2)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        largest: Floats = reduce(np.maximum, self.windows(inputs, -np.inf))
        return largest + np.float32(0)  # NumPy may return 0 or -0: make both 0


@builtin_layer
class AveragePooling1D(_Pool):
    """(B, T, F) -> (B, windows, F): the mean of each window, its padding left out."""

    def apply(self, inputs: Array, context: CallContext) -> Array:
        total: Floats = reduce(np.add, self.windows(inputs, 0))
        return total / self.sizes(inputs.shape[1])[:, None]

    def sizes(self, steps: int) -> Floats:
        """Return the number of inputs in each window that are not padding, (windows,)."""
        ones = np.ones((1, steps, 1), np.float32)
        counts: Floats = np.sum([values[0, :, 0] for values in self.windows(ones, 0)], axis=0)
        return counts


@declared
class _Global(OverTime):
    why = "it needs the whole time axis; use windows without carried state"

    data_format: DataFormat = DataFormat(None)
    keepdims: bool = False

    def steps(self, input_steps: int | None) -> int:
        return 1

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *(1,) * self.keepdims, input_shape[2])


@builtin_layer
class GlobalMaxPooling1D(_Global):
    """(B, T, F) -> (B, F): the largest value over time, masked steps included, as in Keras."""

    def apply(self, inputs: Array, context: CallContext) -> Array:
        if not inputs.shape[1]:
            return np.zeros((len(inputs), *(1,) * self.keepdims, inputs.shape[2]), np.float32)
        largest: Floats = inputs.max(axis=1, keepdims=self.keepdims)
        return largest + np.float32(0)  # NumPy may return 0 or -0: make both 0


@builtin_layer
class GlobalAveragePooling1D(_Global):
    """(B, T, F) -> (B, F): the mean over the unmasked steps; NaN where all are masked."""

    supports_masking = True

    def apply(self, inputs: Array, context: CallContext) -> Array:
        total = np.zeros((len(inputs), inputs.shape[2]), np.float64)
        for step in range(inputs.shape[1]):  # one after the other: the order decides the bits
            values = inputs[:, step]
            if context.mask is not None:
                values = np.where(context.mask[:, step, None], values, np.float32(0))
            total = total + values
        with np.errstate(invalid="ignore"):
            mean: Floats = (total / self.counts(inputs, context)).astype(np.float32)
        return mean[:, None] if self.keepdims else mean

    def counts(self, inputs: Array, context: CallContext) -> Array:
        """Return the number of steps that are not masked, (B, 1)."""
        if context.mask is None:
            return np.full((len(inputs), 1), inputs.shape[1])
        counts: Array = context.mask.sum(axis=1)[:, None]
        return counts
