"""The layers that can be trained, or that gradients pass through: a rule for each class."""

import functools
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np

from streamrnn import layers
from streamrnn.arrays import Array, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.kernels import dense as dense_kernel
from streamrnn.kernels import embedding as embedding_kernel
from streamrnn.kernels.gradients import (
    FROM_VALUE,
    Projection,
    StridedRows,
    dense_gradients,
    flat_indices,
    flattened,
    has_derivative,
    project_few,
    times_derivative,
)
from streamrnn.kernels.normalization import layer_norm_back
from streamrnn.layers import activations
from streamrnn.layers.context import CallContext
from streamrnn.training.recording import Recorded, Recording, Rule, one_to_one, total_of
from streamrnn.training.recurrent import (
    bidirectional,
    check_cell,
    check_directions,
    recurrent,
)


@functools.cache
def _from_value(spec: Any) -> bool:
    return spec == "softmax" or has_derivative(spec, FROM_VALUE)


def _dense(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    spec, units = layer.activation, layer.units
    x = np.ascontiguousarray(inputs).reshape(-1, inputs.shape[-1])
    kernel, bias = recording.weight(layer, "kernel"), recording.weight(layer, "bias")
    assert kernel is not None
    if _from_value(spec):
        y = kept = layer.apply(inputs, context)
    else:
        kept = np.empty((*inputs.shape[:-1], units), np.float32)
        dense_kernel.run(dense_kernel.pack(kernel, bias), x, kept.reshape(-1, units))
        y = activations.compute(spec, kept)

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        if dys[0] is None:
            return [None]
        dz = times_derivative(spec, kept, np.ascontiguousarray(dys[0])).reshape(-1, units)
        if recording.trains(layer):
            of_kernel, of_bias = dense_gradients(x, dz)
            recording.add(layer, "kernel", of_kernel)
            recording.add(layer, "bias", of_bias)
        if not wanted[0]:
            return [None]
        dx = recording.array(x.shape)
        if units <= dense_kernel.FEW:
            project_few(dz, np.ascontiguousarray(kernel.T), dx)
        else:
            order = np.ascontiguousarray(flat_indices(kernel.shape)[0].T)
            to_inputs = recording.once(("dense", kernel.shape), lambda: Projection(order))
            to_inputs.run(StridedRows(dz.reshape(-1), 0, units), flattened(kernel), dx[None])
        return [dx.reshape(inputs.shape)]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _layer_normalization(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    x = np.ascontiguousarray(inputs)
    given = recording.weight(layer, "gamma")
    gamma = np.ones(layer.features, np.float32) if given is None else given

    def back(dy: Floats) -> Floats:
        rows = (-1, layer.features)
        dx, of_gamma, of_beta = layer_norm_back(
            x.reshape(rows), gamma, layer.epsilon, np.ascontiguousarray(dy).reshape(rows)
        )
        recording.add(layer, "gamma", of_gamma)
        recording.add(layer, "beta", of_beta)
        return dx.reshape(x.shape)

    y = layer.apply(x, context)
    made = one_to_one(layer, inputs, y, context.mask, back)
    if not recording.trains(layer):
        return made
    # Gradients of weights are wanted even if those of the inputs are not.
    return made._replace(pullback=lambda dys, wanted: made.pullback(dys, [True]))


def _embedding(layer: Any, inputs: Array, context: CallContext, recording: Recording) -> Recorded:
    ids = inputs if inputs.dtype == np.int64 else inputs.astype(np.int64)
    y = layer.apply(ids, context)

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        if dys[0] is not None and recording.trains(layer):
            gradient = np.zeros((layer.input_dim, layer.output_dim), np.float32)
            rows = np.ascontiguousarray(dys[0]).reshape(-1, layer.output_dim)
            embedding_kernel.add_rows(gradient, np.ascontiguousarray(ids).reshape(-1), rows)
            recording.add(layer, "embeddings", gradient)
        return [None]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _activation(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    spec, y = layer.activation, layer.apply(inputs, context)
    kept = y if _from_value(spec) else np.ascontiguousarray(inputs)
    back: Callable[[Floats], Floats] = lambda dy: times_derivative(spec, kept, dy)  # noqa: E731
    return one_to_one(layer, inputs, y, context.mask, back)


def _softmax(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    y = layer.apply(inputs, context)
    return one_to_one(layer, inputs, y, context.mask, lambda dy: times_derivative("softmax", y, dy))


def _slope(slope: Callable[[Any, Floats, Floats], Floats]) -> Rule:
    """Make the rule of an elementwise layer whose derivative NumPy can compute of x and y."""

    def rule(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
        y = layer.apply(inputs, context)
        return one_to_one(layer, inputs, y, context.mask, lambda dy: dy * slope(layer, inputs, y))

    return rule


def _of_relu(layer: Any, x: Floats, y: Floats) -> Floats:
    slope: Floats = np.where(x > layer.threshold, np.float32(1), np.float32(layer.negative_slope))
    if layer.max_value is not None:
        slope = np.where(x < np.float32(layer.max_value), slope, np.float32(0))
    return slope


def _of_leaky_relu(layer: Any, x: Floats, y: Floats) -> Floats:
    return np.where(x > 0, np.float32(1), np.float32(layer.negative_slope))


def _of_elu(layer: Any, x: Floats, y: Floats) -> Floats:
    return np.where(x > 0, np.float32(1), y + np.float32(layer.alpha))


def _of_rescaling(layer: Any, x: Floats, y: Floats) -> Floats:
    scale: Floats = layer.scale
    return scale


def _of_normalization(layer: Any, x: Floats, y: Floats) -> Floats:
    scale: Floats = layer.deviation()
    slope: Floats = scale if layer.invert else np.float32(1) / scale
    return slope


def _of_masking(layer: Any, x: Floats, y: Floats) -> Floats:
    present = (x != np.float32(layer.mask_value)).any(axis=-1, keepdims=True)
    slope: Floats = present.astype(np.float32)
    return slope


def _dropout(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    call = recording.number_call()
    if not recording.training or layer.rate == 0:
        return one_to_one(layer, inputs, inputs, context.mask, lambda dy: dy)
    shape = layer.mask_shape(inputs.shape)
    factors = recording.factors(layer.seed, call, 0, shape, layer.rate)
    return one_to_one(layer, inputs, inputs * factors, context.mask, lambda dy: dy * factors)


def _identity(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    return one_to_one(layer, inputs, inputs, context.mask, lambda dy: dy)


def _reshape(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    y = layer.apply(inputs, context)
    return one_to_one(layer, inputs, y, context.mask, lambda dy: dy.reshape(inputs.shape))


def _repeat(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    def back(dy: Floats) -> Floats:
        total = total_of([dy[:, step] for step in range(dy.shape[1])])
        return np.zeros_like(inputs) if total is None else total

    return one_to_one(layer, inputs, layer.apply(inputs, context), context.mask, back)


def _time_distributed(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    rule = rule_of(layer.layer)
    rows = inputs.reshape(-1, *inputs.shape[2:])
    inner = rule(layer.layer, rows, CallContext(), recording)
    y = inner.outputs[0].reshape(*inputs.shape[:2], *inner.outputs[0].shape[1:])

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        if dys[0] is None:
            return [None]
        (dx,) = inner.pullback([dys[0].reshape(inner.outputs[0].shape)], wanted)
        return [None if dx is None else dx.reshape(inputs.shape)]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _concatenate(
    layer: Any, inputs: list[Floats], context: CallContext, recording: Recording
) -> Recorded:
    y = layer.apply(inputs, context)
    axis = layer.from_end % y.ndim
    edges = np.cumsum([0, *(x.shape[axis] for x in inputs)]).tolist()
    before = (slice(None),) * axis

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        dy = dys[0]
        if dy is None:
            return [None] * len(inputs)
        return [np.ascontiguousarray(dy[(*before, slice(a, b))]) for a, b in pairwise(edges)]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _linear_merge(signs: Callable[[int], list[float]]) -> Rule:
    """Make the rule of a sum of inputs, each times a number."""

    def rule(
        layer: Any, inputs: list[Floats], context: CallContext, recording: Recording
    ) -> Recorded:
        _check_equal_shapes(layer, inputs)
        y = layer.apply(inputs, context)
        numbers = [np.float32(sign) for sign in signs(len(inputs))]

        def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
            dy = dys[0]
            return [None if dy is None else dy * number for number in numbers]

        return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)

    return rule


def _multiply(
    layer: Any, inputs: list[Floats], context: CallContext, recording: Recording
) -> Recorded:
    _check_equal_shapes(layer, inputs)
    masks = [None] * len(inputs) if context.mask is None else context.mask
    y, joint = layer.apply(inputs, context), layer.compute_mask(inputs, masks)
    factors = [
        x if mask is None else np.where(mask[..., None], x, np.float32(1))
        for x, mask in zip(inputs, masks, strict=True)
    ]

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        made: list[Floats | None] = []
        for i, mask in enumerate(masks):
            dx = dy
            for j, factor in enumerate(factors):
                dx = dx * factor if dx is not None and i != j else dx
            for hidden in (mask, joint):
                if dx is not None and hidden is not None:
                    dx = np.where(hidden[..., None], dx, np.float32(0))
            made.append(dx)
        return made

    return Recorded([y], [joint], pullback)


def _spread(
    layer: Any, inputs: list[Floats], context: CallContext, recording: Recording
) -> Recorded:
    """Record Spread: the derivative by x is (x - mean) / (n * spread), 0 where the spread is."""
    _check_equal_shapes(layer, inputs)
    y, number = layer.apply(inputs, context), np.float32(len(inputs))

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None] * len(inputs)
        mean = reduce(np.add, inputs) / number
        scale = np.where(y > 0, dy / (number * np.where(y > 0, y, 1)), np.float32(0))
        return [(x - mean) * scale for x in inputs]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _extreme(
    layer: Any, inputs: list[Floats], context: CallContext, recording: Recording
) -> Recorded:
    """Record Maximum or Minimum; of equal inputs the first has the gradient."""
    _check_equal_shapes(layer, inputs)
    if context.mask is not None:
        raise UnsupportedError(f"{layer}: training with masked inputs is not supported")
    y = layer.apply(inputs, context)

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        made: list[Floats | None] = []
        free = np.ones(y.shape, np.bool_)
        for x in inputs:
            chosen = free & (x == y)
            free &= ~chosen
            made.append(None if dys[0] is None else np.where(chosen, dys[0], np.float32(0)))
        return made

    return Recorded([y], [None], pullback)


def _check_equal_shapes(layer: Any, inputs: list[Floats]) -> None:
    shapes = [x.shape for x in inputs]
    if len(set(shapes)) > 1:
        raise UnsupportedError(
            f"{layer}: training with inputs of different shapes is not supported, received {shapes}"
        )


RULES: dict[type, Rule] = {
    layers.Activation: _activation,
    layers.Add: _linear_merge(lambda n: [1.0] * n),
    layers.Average: _linear_merge(lambda n: [1.0 / n] * n),
    layers.Bidirectional: bidirectional,
    layers.Concatenate: _concatenate,
    layers.Dense: _dense,
    layers.Dropout: _dropout,
    layers.ELU: _slope(_of_elu),
    layers.Embedding: _embedding,
    layers.Flatten: _reshape,
    layers.GRU: recurrent,
    layers.Identity: _identity,
    layers.LSTM: recurrent,
    layers.LayerNormalization: _layer_normalization,
    layers.LeakyReLU: _slope(_of_leaky_relu),
    layers.Masking: _slope(_of_masking),
    layers.Maximum: _extreme,
    layers.Minimum: _extreme,
    layers.Multiply: _multiply,
    layers.Normalization: _slope(_of_normalization),
    layers.RNN: recurrent,
    layers.ReLU: _slope(_of_relu),
    layers.RepeatVector: _repeat,
    layers.Rescaling: _slope(_of_rescaling),
    layers.Reshape: _reshape,
    layers.SimpleRNN: recurrent,
    layers.Softmax: _softmax,
    layers.SpatialDropout1D: _dropout,
    layers.Spread: _spread,
    layers.Subtract: _linear_merge(lambda n: [1.0, -1.0]),
    layers.TimeDistributed: _time_distributed,
}


def check_layer(layer: Any) -> None:
    """Raise UnsupportedError, naming the layer, if it or one of its options has no gradient."""
    rule_of(layer)
    if isinstance(layer, layers.Bidirectional):
        check_directions(layer)
    elif isinstance(layer, layers.RNN):
        check_cell(layer)
    elif isinstance(layer, layers.TimeDistributed):
        check_layer(layer.layer)
    elif isinstance(layer, layers.Dense | layers.Activation):
        spec = layer.activation
        if spec != "softmax" and not has_derivative(spec):
            raise UnsupportedError(
                f"{layer}: training with the activation {spec!r} is not supported"
            )


def rule_of(layer: object) -> Rule:
    """Return the rule of a layer. Raises UnsupportedError that names it if it has none."""
    rule = RULES.get(type(layer))
    if rule is None:
        known = ", ".join(sorted(cls.__name__ for cls in RULES))
        raise UnsupportedError(
            f"{layer}: training is not supported for it, nor for what precedes it; layers that "
            f"can be trained: {known}. Freeze it (trainable=False) if nothing before it is trained"
        )
    return rule
