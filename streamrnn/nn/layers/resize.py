"""Layers that change the number of steps: ZeroPadding1D, Cropping1D, UpSampling1D.

They pass no mask on, as in Keras, and cannot run on streams, where each row gives one row.
"""

from typing import ClassVar

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.time_windows import DataFormat, TwoSizes, padded


class _Resizes(BuiltIn):
    supports_masking = False
    ragged = False
    sequence_input = True
    why: ClassVar[str]

    def check_input(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise ShapeError(f"{self}: expected (batch, time, features), received shape {shape}")
        self.steps(shape[1])

    def steps(self, given: int | None) -> int | None:
        """Return the number of steps of the output. Raises ShapeError if there are none."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.steps(input_shape[1]), input_shape[2])

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        return None

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return self.why


@builtin_layer
class ZeroPadding1D(_Resizes):
    """(B, T, F) -> (B, before + T + after, F): adds steps of zeros. padding: (before, after)."""

    why = 'it adds steps; in place of it and a convolution use Conv1D(padding="causal")'

    padding: TwoSizes = TwoSizes(1)
    data_format: DataFormat = DataFormat(None)

    def steps(self, given: int | None) -> int | None:
        return None if given is None else given + sum(self.padding)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return padded(inputs, self.padding, 0)


@builtin_layer
class Cropping1D(_Resizes):
    """(B, T, F) -> without the first and the last steps. cropping: (first, last), or both."""

    why = "it leaves out steps; leave them out of the output rows"

    cropping: TwoSizes = TwoSizes((1, 1))

    def steps(self, given: int | None) -> int | None:
        if not given:
            return given
        if given <= sum(self.cropping):
            raise ShapeError(
                f"{self}: the `cropping` parameter of `Cropping1D` layer must be smaller than the "
                f"input, received cropping={self.cropping} for {given} steps"
            )
        return given - sum(self.cropping)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        first, steps = self.cropping[0], self.steps(inputs.shape[1]) or 0
        return np.ascontiguousarray(inputs[:, first : first + steps])


@builtin_layer
class UpSampling1D(_Resizes):
    """(B, T, F) -> (B, T size, F): each step `size` times."""

    why = "it repeats steps; windows without carried state take it"

    size: int = 2

    def complete(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ArgumentError(
                f"{self}: `size` should be a positive integer, received {self.size!r}"
            )

    def steps(self, given: int | None) -> int | None:
        return None if given is None else given * self.size

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return np.repeat(inputs, self.size, axis=1)
