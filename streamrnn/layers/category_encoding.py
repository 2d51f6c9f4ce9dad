"""CategoryEncoding: numbers of categories as vectors of zeros and ones."""

from typing import Unpack

import numpy as np

from streamrnn.arrays import Array, Floats
from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.layers.arguments import LayerOptions
from streamrnn.layers.casts import cast_ids
from streamrnn.layers.context import CallContext
from streamrnn.layers.layer import Layer
from streamrnn.layers.registry import ConfigDict, builtin_layer
from streamrnn.layers.symbol import Shape, Shapes

_MODES = ("multi_hot", "one_hot", "count")


@builtin_layer
class CategoryEncoding(Layer):
    """Integers -> float32 vectors of num_tokens.

    one_hot: each integer becomes a vector: (…) -> (…, num_tokens), but (…, 1) -> (…, num_tokens).
    multi_hot, count: the last axis is a set: (…, n) -> (…, num_tokens), 1 or the count for each
    integer in it. Raises DataError for an integer outside 0…num_tokens - 1.
    """

    input_dtype = "int64"
    supports_masking = False

    def __init__(
        self,
        num_tokens: int | None = None,
        output_mode: str = "multi_hot",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or num_tokens < 1:
            raise ArgumentError(
                f"{self}: num_tokens must be a positive integer, received {num_tokens!r}"
            )
        if output_mode not in _MODES:
            raise ArgumentError(
                f"{self}: output_mode must be one of {', '.join(_MODES)}, received {output_mode!r}"
            )
        self.num_tokens = num_tokens
        self.output_mode = output_mode
        self._joins = output_mode != "one_hot"

    def build(self, input_shape: Shape) -> None:
        # The shape at building decides: a window that happens to have one step stays a window.
        self._joins = self.output_mode != "one_hot" or input_shape[-1:] == (1,)
        self.built = True

    def check_input(self, shape: Shapes) -> None:
        if isinstance(shape, list) or len(shape) < 1 + self._joins:
            raise ShapeError(f"{self}: expected (batch, …), received shape {shape}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        kept = input_shape[:-1] if self._joins else input_shape
        return (*kept, self.num_tokens)

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        if self._joins and len(input_shape) < 3:
            return "it joins all steps of a sequence in one vector"
        return None

    def apply(self, inputs: Array, context: CallContext) -> Array:
        ids = self._checked(inputs if inputs.dtype == np.int64 else self._cast(inputs), context)
        one_hot = np.zeros((ids.size, self.num_tokens), np.float32)
        one_hot[np.arange(ids.size), ids.reshape(-1)] = 1
        one_hot = one_hot.reshape(*ids.shape, self.num_tokens)
        if not self._joins:
            return one_hot
        joined: Floats = (
            one_hot.sum(axis=-2) if self.output_mode == "count" else one_hot.max(axis=-2)
        )
        return joined

    def _checked(self, ids: Array, context: CallContext) -> Array:
        outside = (ids < 0) | (ids >= self.num_tokens)
        if not outside.any():
            return ids
        if context.lengths is not None:  # values past the end of a row do not count
            past = np.arange(ids.shape[1]) >= context.lengths[:, None]
            ids = np.where(past.reshape(past.shape + (1,) * (ids.ndim - 2)), 0, ids)
            outside = (ids < 0) | (ids >= self.num_tokens)
        if outside.any():
            raise DataError(
                f"{self}: {int(ids[outside][0])} is outside 0…{self.num_tokens - 1}; raise "
                "num_tokens, or let the lookup before it map unknown values to a number"
            )
        return ids

    def _cast(self, x: object) -> Array:
        return cast_ids(str(self), x)

    def get_config(self) -> ConfigDict:
        return {
            **super().get_config(),
            "num_tokens": self.num_tokens,
            "output_mode": self.output_mode,
        }
