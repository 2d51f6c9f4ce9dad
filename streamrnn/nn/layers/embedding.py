"""Embedding: a row of a table for each token id."""

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import DataError
from streamrnn.nn.kernels import embedding
from streamrnn.nn.layers.arguments import Size
from streamrnn.nn.layers.built_in import Stepwise
from streamrnn.nn.layers.casts import first_outside
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


@builtin_layer
class Embedding(Stepwise):
    """Integer ids (…) -> (…, output_dim). Weight: embeddings (input_dim, output_dim).

    mask_zero: id 0 is padding; its steps are masked for the layers that follow. Raises DataError
    for an id outside 0…input_dim - 1, DTypeError for ids that are not whole numbers.
    """

    input_dtype = "int64"

    input_dim: Size
    output_dim: Size
    embeddings_initializer: Initial = Initial("uniform")
    mask_zero: bool = False
    input_length: Accepted = Accepted(None)

    def complete(self) -> None:
        self.makes_mask = self.supports_masking = self.mask_zero

    def build(self, input_shape: Shape | None = None) -> None:
        self.add_weight(
            "embeddings", (self.input_dim, self.output_dim), self.embeddings_initializer
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        if not self.mask_zero:
            return mask
        present: Bools = np.asarray(inputs) != 0
        return present if mask is None else present & mask

    def apply(self, inputs: Array, context: CallContext) -> Array:
        if inputs.dtype != np.int64:
            inputs = self._cast(inputs)
        ids = inputs.reshape(-1)
        if ids.size and (ids.min() < 0 or ids.max() >= self.input_dim):
            place = first_outside(inputs, self.input_dim, context.lengths)
            if place is not None:
                raise DataError(
                    f"{self}: token id {int(inputs[place])} at {place} is outside "
                    f"0…{self.input_dim - 1}"
                )
        y = np.empty((ids.size, self.output_dim), np.float32)
        embedding.run(self._weights["embeddings"].value, ids, y)
        return y.reshape(*inputs.shape, self.output_dim)
