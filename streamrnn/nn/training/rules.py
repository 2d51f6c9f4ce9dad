"""The layers that can be trained, or that gradients pass through: a rule for each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn import layers
from streamrnn.nn.kernels import dense as dense_kernel
from streamrnn.nn.kernels import embedding as embedding_kernel
from streamrnn.nn.kernels.gradients import (
    Projection,
    StridedRows,
    dense_gradients,
    flat_indices,
    flattened,
    project_few,
    times_derivative,
)
from streamrnn.nn.layers import activations, registry
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.training.convolution import convolution, depthwise
from streamrnn.nn.training.elementwise import ELEMENTWISE, check_activation, from_value
from streamrnn.nn.training.operations import check_operation, operation
from streamrnn.nn.training.recording import Recorded, Recording, Rule
from streamrnn.nn.training.recurrent import bidirectional, check_cell, recurrent
from streamrnn.nn.training.shapes import SHAPES


def _dense(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    spec, units = layer.activation, layer.units
    x = np.ascontiguousarray(inputs).reshape(-1, inputs.shape[-1])
    kernel, bias = recording.weight(layer, "kernel"), recording.weight(layer, "bias")
    assert kernel is not None
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
            embedding_kernel.add_rows(gradient, np.ascontiguousarray(ids).reshape(-1), rows)
            recording.add(layer, "embeddings", gradient)
        return [None]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)


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


RULES: dict[type, Rule] = {
    **ELEMENTWISE,
    **SHAPES,
    **dict.fromkeys(registry.own_classes(layers.RNN), recurrent),
    layers.Bidirectional: bidirectional,
    layers.Conv1D: convolution,
    layers.Dense: _dense,
    layers.DepthwiseConv1D: depthwise,
    layers.Embedding: _embedding,
    layers.Operation: operation,
    layers.TimeDistributed: _time_distributed,
}


def check_layer(layer: Any) -> None:
    """Raise UnsupportedError, naming the layer, if it or one of its options has no gradient."""
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
                f"{layer}: training with the moments of each step alone is not supported; "
                f"use {layer.layer} without TimeDistributed, or freeze it (trainable=False)"
            )
        check_layer(layer.layer)
    elif isinstance(
        layer, layers.Dense | layers.Activation | layers.Conv1D | layers.DepthwiseConv1D
    ):
        check_activation(layer, layer.activation)


def rule_of(layer: object) -> Rule:
    """Return the rule of a layer. Raises UnsupportedError, naming the layer, if it has none."""
    rule = RULES.get(type(layer))
    if rule is None:
        trainable = ", ".join(sorted(cls.__name__ for cls in RULES))
        raise UnsupportedError(
            f"{layer}: training is not supported for this layer, nor for what precedes it; layers "
            f"that can be trained: {trainable}. Freeze it (trainable=False) if nothing before it "
            "is trained"
        )
    return rule
