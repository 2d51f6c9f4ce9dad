"""Attention and Dot, which combine the steps of two sequences. They have no gradient.

The inputs of attention are queries (B, T, F), values (B, S, V) and keys (B, S, F), by default the
values. For each query it returns a mean of the values, weighted by the softmax of the scores that
the keys get with the query. Masks follow Keras: masked values have no weight, and the queries' mask
is passed on.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import dense
from streamrnn.nn.kernels.normalization import Root, root_norm
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.activations import LEAST, compute
from streamrnn.nn.layers.arguments import Rate, Seed, Size, positive_integer
from streamrnn.nn.layers.axes import axes_from_end
from streamrnn.nn.layers.built_in import BuiltIn, Unmasked
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.conv1d import Dense
from streamrnn.nn.layers.declared import Accepted, Argument
from streamrnn.nn.layers.gated import dropout_mask
from streamrnn.nn.layers.initializers import Initial, Seeded
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.merge import Merge
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape, Shapes
from streamrnn.nn.layers.weights import WeightAttribute

_WHY = "it needs the whole time axis; use windows without carried state"


class _Attending(Seeded, BuiltIn):
    """The base of attention layers. use_causal_mask=True in a call: a query sees no later steps."""

    ragged = False
    sequence_input = True
    call_options: tuple[str, ...] = ("use_causal_mask",)
    dropout: Any

    def check_input(self, shape: Any) -> None:
        several = isinstance(shape, list) and len(shape) in (2, 3)
        if not several or {len(one) for one in shape} != {3}:
            raise ShapeError(
                f"{self}: expected a list [queries, values] or [queries, values, keys], each "
                f"(batch, time, features), received shape {shape}"
            )
        (_, values, *_), keys = shape, shape[-1]
        rows = {None, *(one[0] for one in shape)}
        if len(rows) > 2 or len({None, values[1], keys[1]}) > 2:
            raise ShapeError(
                f"{self}: expected as many rows in each input, and a key for each value, received "
                f"shapes {shape}"
            )

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return mask and mask[0]

    def why_not_stepwise(self, input_shape: Shapes) -> str:
        return _WHY

    def seen(self, scores: Floats, context: CallContext) -> Bools | None:
        """Return which values (…, S) each query (…, T) sees; None if it sees all."""
        mask = context.mask and context.mask[1]
        seen: Bools | None = None if mask is None else mask[:, None]
        if context.options.get("use_causal_mask"):
            past = np.tri(*scores.shape[-2:], dtype=np.bool_)
            seen = past if seen is None else seen & past
        return seen

    def mean(self, scores: Floats, values: Floats, context: CallContext) -> Floats:
        """Return means of the values, weighted by the softmax of the scores."""
        weights = compute("softmax", scores)
        if context.training and self.dropout:
            weights = weights * dropout_mask(self._random, weights.shape, self.dropout)
        return dense.products(weights, values)


@builtin_layer
class Attention(_Attending):
    """(B, T, F), (B, S, V) -> (B, T, V): dot-product attention (Luong et al. 2015).

    score_mode: "dot" is the dot product of query and key; "concat" is the sum of
    tanh(query + key). Weights, one number each: scale if use_scale, concat_score_weight for
    "concat". dropout: of the means' weights, with training=True.
    """

    scale = WeightAttribute("use_scale")
    concat_score_weight = WeightAttribute()

    use_scale: bool = False
    score_mode: str = "dot"
    dropout: Rate = Rate(0.0)
    seed: Seed = Seed(None)

    def complete(self) -> None:
        if self.score_mode not in ("dot", "concat"):
            raise ArgumentError(
                f"{self}: score_mode must be one of dot, concat, received {self.score_mode!r}"
            )

    def build(self, input_shape: list[Shape]) -> None:
        names = ["scale"] * self.use_scale + ["concat_score_weight"] * (self.score_mode != "dot")
        for name in names:
            self.add_weight(name, (), initializers.get("ones"))

    def check_input(self, shape: Any) -> None:
        super().check_input(shape)
        self.expect_features(shape[-1], self.known_features(shape[0]))

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return (*input_shape[0][:2], input_shape[1][2])

    def apply(self, inputs: list[Floats], context: CallContext) -> Array:
        self.check_input([x.shape for x in inputs])  # numbers of steps are known only now
        scores = self.scores(inputs[0], inputs[-1])
        seen = self.seen(scores, context)
        if seen is not None:
            scores = np.where(seen, scores, scores - np.float32(1e9))
        y = self.mean(scores, inputs[1], context)
        mask = self.compute_mask(inputs, context.mask)
        return y if mask is None else np.where(mask[..., None], y, np.float32(0))

    def scores(self, queries: Floats, keys: Floats) -> Floats:
        """Return the score of each key for each query: (B, T, S)."""
        scale = self._weights.get("scale", np.float32(1))
        if self.score_mode == "dot":
            return dense.products(queries, keys.swapaxes(1, 2)) * scale
        ones = np.ones(queries.shape[2], np.float32)
        return _of_sums(queries, keys, scale, ones) * self._weights["concat_score_weight"]


def _of_sums(queries: Floats, keys: Floats, inner: Any, outer: Floats) -> Floats:
    """Return (B, T, S): the sum over features of outer * tanh(inner * (query + key))."""
    scores = np.empty((*queries.shape[:2], keys.shape[1]), np.float32)
    packed, sums = dense.pack(outer[:, None]), np.empty((keys[..., 0].size, 1), np.float32)
    for step in range(queries.shape[1]):  # all steps at once would take T times the memory
        y = compute("tanh", inner * (queries[:, step, None] + keys))
        dense.run(packed, y.reshape(-1, len(outer)), sums)
        scores[:, step] = sums.reshape(scores[:, step].shape)
    return scores


@builtin_layer
class AdditiveAttention(Attention):
    """Attention whose score is the sum of scale * tanh(query + key) (Bahdanau et al. 2015).

    Weight: scale (F,) if use_scale.
    """

    use_scale: bool = True
    score_mode: Any = Argument(init=False)

    def complete(self) -> None:
        """There is no `score_mode`."""

    def build(self, input_shape: list[Shape]) -> None:
        if self.use_scale:
            shape = (self.known_features(input_shape[0]),)
            self.add_weight("scale", shape, initializers.get("glorot_uniform"))

    def scores(self, queries: Floats, keys: Floats) -> Floats:
        ones = np.ones(queries.shape[2], np.float32)
        return _of_sums(queries, keys, np.float32(1), self._weights.get("scale", ones))


@builtin_layer
class Dot(Unmasked, Merge):
    """(B, …), (B, …) -> (B, …, …): sums of products along an axis of each of two inputs.

    axes: the axis, counted with the batch, or one for each input. The output has the other axes of
    the first input, then the second input's. normalize: whether vectors along the axes are first
    divided by their length, so that the sums are cosines. On streams, it runs on vectors alone.
    """

    stepwise = False

    axes: Argument[int | Sequence[int], int | Sequence[int]]
    normalize: bool = False

    def build(self, input_shape: Shapes) -> None:
        shapes = self._listed(input_shape)
        axes = self.axes if isinstance(self.axes, list | tuple) else [self.axes] * 2
        if (len(shapes), len(axes)) != (2, 2):
            raise ShapeError(
                f"{self}: expected two inputs, and axes as one number or two, received shapes "
                f"{shapes} and axes={self.axes!r}"
            )
        pairs = zip(axes, shapes, strict=True)
        self.along = [axes_from_end(self, axis, len(shape))[0] for axis, shape in pairs]
        self.ragged = max(map(len, shapes)) == 2

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        pairs = list(zip(input_shape, self.along, strict=True))
        rows, sizes = {s[0] for s in input_shape}, {shape[axis] for shape, axis in pairs}
        if len(rows - {None}) > 1 or len(sizes - {None}) > 1:
            raise ShapeError(
                f"{self}: its inputs must have as many rows and the same size along "
                f"axes={self.axes!r}, received shapes {input_shape}"
            )
        rest = [n for shape, axis in pairs for n in (*shape[1:axis], *shape[axis:][1:])]
        return (input_shape[0][0], *(rest or [1]))

    def why_not_stepwise(self, input_shape: list[Shape]) -> str | None:
        return None if self.ragged else _WHY

    def apply(self, inputs: list[Floats], context: CallContext) -> Array:
        lead = inputs[0].shape[: 2 if context.kind == "stream" else 1]
        inputs = [x.reshape(math.prod(lead), *x.shape[len(lead) :]) for x in inputs]
        _, *shape = self.compute_output_shape([x.shape for x in inputs])
        vectors = []
        for x, axis in zip(inputs, self.along, strict=True):
            moved = np.moveaxis(x, axis, -1)
            size, count = moved.shape[-1], math.prod(moved.shape[1:-1])
            rows = moved.reshape(len(x) * count, size)
            if self.normalize:
                rows = root_norm(rows, np.ones(size, np.float32), Root(1.0, 0.0, 1e7))
            vectors.append(rows.reshape(len(x), count, size))
        return dense.products(vectors[0], vectors[1].swapaxes(1, 2)).reshape(*lead, *shape)


class _Projection(Dense):
    """A Dense whose kernel has several axes of inputs or of units, as in Keras."""

    sizes: tuple[tuple[int, ...], tuple[int, ...]]

    def build(self, input_shape: Shape) -> None:
        inputs, units = self.sizes
        self.add_weight("kernel", inputs + units, self.kernel_initializer)
        if self.use_bias:
            self.add_weight("bias", units, self.bias_initializer)

    def packable(self) -> dict[str, bool]:
        return {}

    def _run(self, x_NF: Floats, y_NU: Floats) -> None:
        if self._packed is None:
            bias = np.ravel(self._weights["bias"]) if self.use_bias else None
            self._packed = dense.pack(self._weights["kernel"].reshape(-1, self.units), bias)
        dense.run(self._packed, x_NF, y_NU)


@builtin_layer
class MultiHeadAttention(_Attending):
    """(B, T, F), (B, S, V) -> (B, T, output_shape): attention of several heads (Vaswani 2017).

    Called on a query, a value and perhaps a key, or on a list of them. Each head projects them to
    `key_dim`, `value_dim` (by default key_dim) and `key_dim` features; a last projection turns
    their means into output_shape, by default F. attention_mask in a call: bool (B, T, S), False
    where a query does not see a value. dropout: of the means' weights, with training=True.
    Weights: kernel and bias of the projections query, key, value and attention_output.
    """

    call_options = ("attention_mask", "use_causal_mask", "query", "value", "key")

    num_heads: Size
    key_dim: Size
    value_dim: Argument[int | None, int] = Argument(default=None)
    dropout: Rate = Rate(0.0)
    use_bias: bool = True
    output_shape: Argument[int | Sequence[int] | None, tuple[int, ...]] = Argument(default=None)
    attention_axes: Argument[int | Sequence[int] | None, Any] = Argument(default=None)
    sliding_window: Accepted = Accepted(None)
    flash_attention: Accepted = Accepted(None)
    kernel_initializer: Initial = Initial("glorot_uniform")
    bias_initializer: Initial = Initial("zeros")
    use_gate: Accepted = Accepted(False)
    seed: Seed = Seed(None)

    def complete(self) -> None:
        self.value_dim = positive_integer(self, "value_dim", self.value_dim or self.key_dim)
        sizes: Any = self.output_shape
        sizes = sizes if isinstance(sizes, list | tuple) else [sizes] if sizes else []
        self.output_shape = tuple(positive_integer(self, "output_shape", n) for n in sizes)
        if self.attention_axes not in (None, 1, -2, [1], (1,), [-2], (-2,)):
            raise ArgumentError(
                f"{self}: attention_axes must be 1, the time axis, received {self.attention_axes!r}"
            )
        for name in ("sliding_window", "use_gate"):
            if value := getattr(self, name):
                raise ArgumentError(f"{self}: {name}={value!r} is not supported; leave it out")
        self._parts: dict[str, Layer] = {}

    def __call__(  # type: ignore[override]
        self, query: Any, value: Any = None, key: Any = None, **options: Any
    ) -> Any:
        """Compute the outputs; see Layer, and MultiHeadAttention for the arguments."""
        inputs = [x for x in (query, value, key) if x is not None]
        return super().__call__(query if value is None else inputs, **options)

    def children(self) -> dict[str, Layer]:
        return self._parts

    def build(self, input_shape: list[Shape]) -> None:
        features = [self.known_features(shape) for shape in (*input_shape, input_shape[1])[:3]]
        keys, values = (self.num_heads, self.key_dim), (self.num_heads, self.value_dim)
        for key, name, inputs, units in (
            ("query_dense", "query", (features[0],), keys),
            ("key_dense", "key", (features[2],), keys),
            ("value_dense", "value", (features[1],), values),
            ("output_dense", "attention_output", values, self.output_shape or (features[0],)),
        ):
            initial = self.kernel_initializer, self.bias_initializer
            part = _Projection(math.prod(units), None, self.use_bias, *initial, name=name)
            part.sizes = inputs, units
            part.build(())
            self.adopt(part)
            self._parts[key] = part

    def check_input(self, shape: Any) -> None:
        super().check_input(shape)
        for key, one in zip(("query", "value", "key"), (*shape, shape[1])[:3], strict=True):
            self._parts[f"{key}_dense"].check_input(one)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        return (*input_shape[0][:2], *(self.output_shape or input_shape[0][2:]))

    def seen(self, scores: Floats, context: CallContext) -> Bools | None:
        queries, _, *keys = context.mask or (None, None)
        masks = [super().seen(scores, context), context.options.get("attention_mask")]
        masks += [None if queries is None else queries[..., None]]
        masks += [key[:, None] for key in keys if key is not None]
        arrays = [np.asarray(mask, np.bool_) for mask in masks if mask is not None]
        by_head = [mask if mask.ndim > 3 else mask[..., None, :, :] for mask in arrays]
        return reduce(np.logical_and, by_head) if by_head else None

    def apply(self, inputs: list[Floats], context: CallContext) -> Array:
        shapes = [x.shape for x in inputs]
        self.check_input(shapes)  # numbers of steps are known only now
        (batch, steps, _), heads = shapes[0], self.num_heads

        def by_head(key: str, x: Floats) -> Floats:
            y = self._parts[key].apply(x, context)
            y = y.reshape(*x.shape[:2], heads, y.shape[2] // heads).swapaxes(1, 2)
            return np.ascontiguousarray(y).reshape(batch * heads, x.shape[1], y.shape[3])

        queries = by_head("query_dense", inputs[0]) * np.float32(self.key_dim**-0.5)
        keys, values = by_head("key_dense", inputs[-1]), by_head("value_dense", inputs[1])
        scores = dense.products(queries, keys.swapaxes(1, 2))
        scores = scores.reshape(batch, heads, *scores.shape[1:])
        seen = self.seen(scores, context)
        if seen is not None:
            scores = np.where(seen, scores, LEAST)
        y = self.mean(scores.reshape(batch * heads, *scores.shape[2:]), values, context)
        y = y.reshape(batch, heads, steps, self.value_dim)
        if self.dropout and seen is not None:  # of a query that sees nothing, as in Keras 3
            y = np.where(seen.any(axis=-1, keepdims=True), y, np.float32(0))
        y = np.ascontiguousarray(y.swapaxes(1, 2)).reshape(batch, steps, heads * self.value_dim)
        output: Array = self._parts["output_dense"].apply(y, context)
        return output.reshape(batch, steps, *(self.output_shape or output.shape[2:]))
