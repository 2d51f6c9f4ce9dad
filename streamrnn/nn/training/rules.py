"""The layers that can be trained, or that gradients pass through: a rule for each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn import layers
from streamrnn.nn.kernels import conv1d as conv_kernel
from streamrnn.nn.kernels import dense as dense_kernel
from streamrnn.nn.kernels.gradients import (
    Projection,
    StridedRows,
    add_rows,
    dense_gradients,
    flat_indices,
    flattened,
    project_few,
    summed_over,
    times_derivative,
)
from streamrnn.nn.layers import activations, registry
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.operations import check_operation, operation
from streamrnn.nn.training.recording import Recorded, Recording, Rule
from streamrnn.nn.training.recurrent import bidirectional, check_cell, recurrent
from streamrnn.nn.training.simple_rules import SIMPLE_RULES, check_activation, from_value


def _dense(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    spec, units = layer.activation, layer.units
    x = np.ascontiguousarray(inputs).reshape(-1, inputs.shape[-1])
    weights = recording.weights_of(layer)
    kernel, bias = weights["kernel"], weights.get("bias")
    if from_value(spec):
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


def _embedding(layer: Any, inputs: Array, context: CallContext, recording: Recording) -> Recorded:
    ids = inputs if inputs.dtype == np.int64 else inputs.astype(np.int64)
    y = layer.apply(ids, context)

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        if dys[0] is not None and recording.trains(layer):
            gradient = np.zeros((layer.input_dim, layer.output_dim), np.float32)
            rows = np.ascontiguousarray(dys[0]).reshape(-1, layer.output_dim)
            add_rows(gradient, np.ascontiguousarray(ids).reshape(-1), rows)
            recording.add(layer, "embeddings", gradient)
        return [None]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _time_distributed(
    layer: Any, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    rule = rule_of(layer.layer)
    rows, mask = layer.rows(inputs, context.mask)
    inner = rule(layer.layer, rows, CallContext(mask), recording)
    y = inner.outputs[0].reshape(*inputs.shape[:2], *inner.outputs[0].shape[1:])

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        if dys[0] is None:
            return [None]
        (dx,) = inner.pullback([dys[0].reshape(inner.outputs[0].shape)], wanted)
        return [None if dx is None else dx.reshape(inputs.shape)]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


def _convolution(
    layer: layers.Conv1D, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a Conv1D.

    If it is causal, steps past a length do not count. On a stream, the gradient ends at the start
    of the window, as in a DepthwiseConv1D.
    """
    spec, absent = layer.activation, _absent(layer, inputs, context)
    x, steps, lengths = _without(absent, inputs), inputs.shape[1], context.lengths
    lengths = lengths if layer.causal else None
    chosen = slice(None) if layer.causal else layer.chosen(steps)
    x = x if layer.causal else layer.extended(x)
    past = layer.past_inputs(x, context)
    before = past.copy()
    y = kept = np.zeros((*x.shape[:2], layer.filters), np.float32)
    if from_value(spec):
        layer.convolve(x, lengths, past, y, spec)
    else:
        layer.convolve(x, lengths, past, kept, "linear")
        y = activations.compute(spec, kept)
    kernel = recording.weights_of(layer)["kernel"]

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None]
        if not layer.causal:
            of_all = np.zeros_like(kept)
            of_all[:, chosen] = dy
            dy = of_all
        dz = times_derivative(spec, kept, _without(absent, dy))
        if recording.trains(layer):
            _add_gradients(layer, before, x, dz, recording)
        if not wanted[0]:
            return [None]
        dx = recording.array(x.shape)
        _write_input_gradients(layer, kernel, dz, dx)
        return [dx if layer.causal else np.ascontiguousarray(dx[:, :steps])]

    outputs = y if layer.causal else np.ascontiguousarray(y[:, chosen])
    return Recorded([outputs], [None], pullback)


def _depthwise(
    layer: layers.DepthwiseConv1D, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a DepthwiseConv1D; if it is causal, outputs of steps past a length are zeros."""
    spec, absent = layer.activation, _absent(layer, inputs, context)
    read = layer.with_past(_without(absent, inputs), context)
    before = layer.window.pads(inputs.shape[1])[0]
    count = layer.window.count_for(layer, inputs.shape[1]) or 0
    weights = recording.weights_of(layer)
    kernel, bias = weights["kernel"], weights.get("bias")
    sums = layer.sums(read, count, kernel)
    sums = sums if bias is None else sums + bias
    y = activations.compute(spec, sums)
    kept = y if from_value(spec) else sums

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None]
        of_sums = times_derivative(spec, kept, _without(absent, dy))
        dz = of_sums.reshape(*dy.shape[:2], *kernel.shape[1:])
        if recording.trains(layer):
            one = (1, 1, *dz.shape[2:])
            taps = layer.window.views(read, count)
            of_taps = [summed_over(x[..., None] * dz, one) for x in taps]
            recording.add(layer, "kernel", np.concatenate(of_taps)[:, 0])
            recording.add(layer, "bias", summed_over(dz, one).reshape(-1))
        if not wanted[0]:
            return [None]
        dx = np.zeros_like(read)
        for of_tap, tap in zip(layer.window.views(dx, count), kernel, strict=True):
            for multiple in range(tap.shape[1]):
                of_tap += dz[..., multiple] * tap[:, multiple]
        return [np.ascontiguousarray(dx[:, before : before + inputs.shape[1]])]

    return Recorded([_without(absent, y)], [None], pullback)


def _absent(
    layer: layers.Conv1D | layers.DepthwiseConv1D, inputs: Floats, context: CallContext
) -> Bools | None:
    """Return which steps (B, T, 1) are past a length; None without lengths, or if not causal."""
    if not layer.causal or context.lengths is None:
        return None
    absent: Bools = (np.arange(inputs.shape[1]) >= context.lengths[:, None])[..., None]
    return absent


def _without(absent: Bools | None, x: Floats) -> Floats:
    """Return x with zeros at absent steps."""
    return np.ascontiguousarray(x if absent is None else np.where(absent, np.float32(0), x))


def _add_gradients(
    layer: layers.Conv1D, before: Floats, x: Floats, dz: Floats, recording: Recording
) -> None:
    by_group = [
        conv_kernel.weight_gradients(
            np.ascontiguousarray(before[..., inputs]),
            np.ascontiguousarray(x[..., inputs]),
            np.ascontiguousarray(dz[..., filters]),
            layer.kernel_size,
            layer.dilation_rate,
        )
        for inputs, filters in zip(
            layer.shares(x.shape[-1]), layer.shares(layer.filters), strict=True
        )
    ]
    recording.add(
        layer, "kernel", np.concatenate([of_kernel for of_kernel, _ in by_group], axis=-1)
    )
    recording.add(layer, "bias", np.concatenate([of_bias for _, of_bias in by_group]))


def _write_input_gradients(layer: layers.Conv1D, weights: Floats, dz: Floats, dx: Floats) -> None:
    if layer.groups == 1:
        conv_kernel.input_gradients(weights, dz, dx, layer.dilation_rate)
        return
    for inputs, filters in zip(
        layer.shares(dx.shape[-1]), layer.shares(layer.filters), strict=True
    ):
        share = np.empty(dx[..., inputs].shape, np.float32)
        of_group = (
            np.ascontiguousarray(weights[..., filters]),
            np.ascontiguousarray(dz[..., filters]),
        )
        conv_kernel.input_gradients(*of_group, share, layer.dilation_rate)
        dx[..., inputs] = share


RULES: dict[type, Rule] = {
    **SIMPLE_RULES,
    **dict.fromkeys(registry.own_classes(layers.RNN), recurrent),
    layers.Bidirectional: bidirectional,
    layers.Conv1D: _convolution,
    layers.Dense: _dense,
    layers.DepthwiseConv1D: _depthwise,
    layers.Embedding: _embedding,
    layers.Operation: operation,
    layers.TimeDistributed: _time_distributed,
}


def check_layer(layer: Any) -> None:
    """Raise UnsupportedError, naming the layer, if the layer or an option has no gradient."""
    rule_of(layer)
    if isinstance(layer, layers.Bidirectional):
        for direction in (layer.forward_layer, layer.backward_layer):
            check_cell(direction, direction.runner)
    elif isinstance(layer, layers.RNN):
        check_cell(layer, layer.runner)
    elif isinstance(layer, layers.Operation):
        check_operation(layer)
    elif isinstance(layer, layers.TimeDistributed):
        if layer.layer.moves_in_training and layer.layer.trainable:
            raise UnsupportedError(
                f"{layer}: training with the mean and variance of each step alone is not "
                f"supported; use {layer.layer} without TimeDistributed, or freeze that layer "
                "(trainable=False)"
            )
        check_layer(layer.layer)
    elif isinstance(
        layer, layers.Dense | layers.Activation | layers.Conv1D | layers.DepthwiseConv1D
    ):
        check_activation(layer, layer.activation)


def rule_of(layer: object) -> Rule:
    """Return the rule of a layer. Raises UnsupportedError, naming a layer that has none."""
    rule = RULES.get(type(layer))
    if rule is None:
        trainable = ", ".join(sorted(cls.__name__ for cls in RULES))
        raise UnsupportedError(
            f"{layer}: training is not supported for this layer, nor for layers before it; layers "
            f"that can be trained: {trainable}. Freeze this layer (trainable=False) if no layer "
            "before it is trained"
        )
    return rule
