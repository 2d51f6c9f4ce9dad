"""Embedding, CategoryEncoding and Discretization, and the encodings of lookups as vectors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.nn.kernels import dense
from streamrnn.nn.layers.arguments import Size, first_outside
from streamrnn.nn.layers.built_in import BuiltIn, Stepwise
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, Argument
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape, Shapes
from streamrnn.nn.layers.symbol import symbols_in


@builtin_layer
class Embedding(Stepwise):
    """Integer ids (…) -> (…, output_dim). Weight: embeddings (input_dim, output_dim).

    mask_zero: id 0 is padding; steps with it are masked for the layers that follow. Raises
    DataError for an id outside 0…input_dim - 1, DTypeError for ids that are not whole numbers.
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
        dense.embed(self._weights["embeddings"].value, ids, y)
        return y.reshape(*inputs.shape, self.output_dim)


ENCODINGS = ("multi_hot", "one_hot", "count")
SYNONYMS = {"binary": "multi_hot", "tf-idf": "tf_idf"}
"""Names in earlier versions of Keras -> present names."""


def joins_last(mode: str, input_shape: Shape) -> bool:
    """Return whether an encoding takes the last axis as a set: (…, n) -> (…, size).

    one_hot does for n = 1. The shape with which the layer was built decides: a window that happens
    to have one step stays a window. Mode "int" encodes nothing.
    """
    if mode == "one_hot":
        return len(input_shape) > 1 and input_shape[-1] == 1
    return mode != "int"


def encode_ids(
    ids: Array, size: int, mode: str, *, joins: bool, weights: Sequence[float] | Array | None = None
) -> Floats:
    """Return vectors with 1 at each id (for count: its count, or the sum of its `weights`).

    ids: int64 below `size`; -1 is left out. weights: in the shape of ids.
    """
    one_hot = np.zeros((ids.size, size + 1), np.float32)
    one_hot[np.arange(ids.size), ids.reshape(-1)] = (
        1 if weights is None else np.asarray(weights, np.float32).reshape(-1)
    )
    one_hot = one_hot.reshape(*ids.shape, size + 1)[..., :size]
    if not joins:
        return np.ascontiguousarray(one_hot)
    if mode != "count":
        joined: Floats = one_hot.max(axis=-2, initial=0)
        return joined
    total = np.zeros((*ids.shape[:-1], size), np.float32)
    for place in range(ids.shape[-1]):  # one after the other, since sums of weights may round
        total = total + one_hot[..., place, :]
    return total


class Encoder(BuiltIn):
    """The base of layers that turn values into vectors or, with output_mode="int", into ids."""

    supports_masking = False

    if TYPE_CHECKING:  # an argument of each subclass
        output_mode: str

    def complete(self) -> None:
        self.output_mode = SYNONYMS.get(self.output_mode, self.output_mode)
        self._joins = self.output_mode not in ("int", "one_hot")

    def build(self, input_shape: Shape) -> None:
        self._joins = joins_last(self.output_mode, input_shape)
        self.ragged = self.why_not_stepwise(input_shape) is None

    def _size(self) -> int:
        """Return the size of vectors."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if self.output_mode == "int":
            return input_shape
        return (*(input_shape[:-1] if self._joins else input_shape), self._size())

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        if self._joins and len(input_shape) < 3:
            return 'it joins all steps of a sequence in one vector; use output_mode="one_hot"'
        return None


@builtin_layer
class CategoryEncoding(Encoder):
    """Integers -> float32 vectors of num_tokens elements.

    one_hot: each integer becomes a vector: (…) -> (…, num_tokens), but (…, 1) -> (…, num_tokens).
    multi_hot, count: the last axis is a set: (…, n) -> (…, num_tokens), 1 or the count for each
    integer in it. An array may also be one sample without a batch: (n,), or a single
    number. Raises DataError for an integer outside 0…num_tokens - 1.
    """

    input_dtype = "int64"

    num_tokens: Argument[int | None, int] = Argument(default=None)
    output_mode: str = "multi_hot"

    def complete(self) -> None:
        super().complete()
        if self.num_tokens is None:
            raise ArgumentError(f"{self}: num_tokens must be set to use this layer")
        if (
            isinstance(self.num_tokens, bool)
            or not isinstance(self.num_tokens, int)
            or self.num_tokens < 1
        ):
            raise ArgumentError(
                f"{self}: `num_tokens` must be an integer, 1 or more, received {self.num_tokens!r}"
            )
        if self.output_mode not in ENCODINGS:
            raise ArgumentError(
                f"{self}: Unknown arg for output_mode: {self.output_mode}; expected one of "
                f"{', '.join(ENCODINGS)}"
            )

    def check_input(self, shape: Shapes) -> None:
        if isinstance(shape, list) or len(shape) < 1 + self._joins:
            raise ShapeError(f"{self}: expected one array (batch, …, n), received shape {shape}")

    def _size(self) -> int:
        return self.num_tokens

    def apply(self, inputs: Array, context: CallContext) -> Array:
        ids = self._checked(inputs if inputs.dtype == np.int64 else self._cast(inputs), context)
        return encode_ids(ids, self.num_tokens, self.output_mode, joins=self._joins)

    def __call__(self, inputs: Any, *args: Any, count_weights: Any = None, **kwargs: Any) -> Any:
        """Encode integers; count_weights: what each adds to its count, for output_mode="count"."""
        symbolic = bool(symbols_in(inputs))
        batched = symbolic or np.ndim(inputs) > (self.output_mode != "one_hot")
        if count_weights is None and batched:
            return super().__call__(inputs, *args, **kwargs)
        if symbolic:
            raise ArgumentError(f"{self}: count_weights need a call on arrays, not on symbols")
        if count_weights is not None and self.output_mode != "count":
            raise ArgumentError(
                f"{self}: `count_weights` is not used when `output_mode` is not 'count', received "
                f"output_mode={self.output_mode!r}"
            )
        ids = self._checked(np.atleast_1d(self._cast(inputs)), CallContext())
        if count_weights is not None and np.shape(count_weights) != ids.shape:
            raise ShapeError(
                f"{self}: expected count_weights of shape {ids.shape}, received shape "
                f"{np.shape(count_weights)}"
            )
        joins = np.ndim(inputs) == 0 or joins_last(self.output_mode, ids.shape)
        return encode_ids(
            ids, self.num_tokens, self.output_mode, joins=joins, weights=count_weights
        )

    def _checked(self, ids: Array, context: CallContext) -> Array:
        place = first_outside(ids, self.num_tokens, context.lengths)
        if place is not None:
            raise DataError(
                f"{self}: {int(ids[place])} is outside 0…{self.num_tokens - 1}; raise num_tokens, "
                "or let a lookup before this layer map unknown values to a number"
            )
        # Past the end of a row there may be any number.
        return ids if context.lengths is None else np.clip(ids, 0, self.num_tokens - 1)


@builtin_layer
class Discretization(Encoder):
    """Numbers -> int64 bins of the same shape, or with "one_hot" vectors as in CategoryEncoding.

    Bin i has the numbers from bin_boundaries[i - 1] to below bin_boundaries[i], in float32.
    num_bins, epsilon: how Keras learned the boundaries.
    """

    stepwise = True

    bin_boundaries: Argument[Sequence[float] | None, list[float]] = Argument(default=None)
    num_bins: Accepted = Accepted(None)
    epsilon: Accepted = Accepted(0.01)
    output_mode: str = "int"

    def complete(self) -> None:
        super().complete()
        if not self.bin_boundaries or (np.diff(self.bin_boundaries) < 0).any():
            raise ArgumentError(
                f"{self}: expected bin_boundaries in ascending order, received "
                f"{self.bin_boundaries!r}; np.quantile(numbers, shares) gives such a list"
            )
        if self.output_mode not in ("int", "one_hot"):
            raise ArgumentError(
                f"{self}: output_mode must be int or one_hot, received {self.output_mode!r}"
            )

    def _size(self) -> int:
        return len(self.bin_boundaries) + 1

    def apply(self, inputs: Array, context: CallContext) -> Array:
        edges = np.array(self.bin_boundaries, np.float32)
        bins = np.searchsorted(edges, inputs, side="right").astype(np.int64)
        if self.output_mode == "int":
            return bins
        return encode_ids(bins, self._size(), self.output_mode, joins=self._joins)
