"""Pools over time: of windows, and of whole sequences. None of them can run on streams."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.nn.layers.axes import (
    DataFormat,
    OneSize,
    OverTime,
    Padding,
    TimeWindow,
    one_size,
    padded,
)
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Argument, declared
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


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
