"""The rule of Conv1D: on a stream its gradient stops at the inputs before the window."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn.kernels import conv1d as kernel
from streamrnn.nn.kernels.gradients import times_derivative
from streamrnn.nn.layers import activations
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.conv1d import Conv1D
from streamrnn.nn.training.elementwise import from_value
from streamrnn.nn.training.recording import Recorded, Recording


def convolution(
    layer: Conv1D, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a Conv1D. Outputs of steps past a length are zeros."""
    spec, x, absent = layer.activation, np.ascontiguousarray(inputs), None
    steps, lengths = x.shape[1], context.lengths if layer.causal else None
    if lengths is not None:
        absent = (np.arange(steps) >= lengths[:, None])[..., None]
        x = np.where(absent, np.float32(0), x)
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
    weights = recording.weight(layer, "kernel")
    assert weights is not None

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None]
        if not layer.causal:
            of_all = np.zeros_like(kept)
            of_all[:, chosen] = dy
            dy = of_all
        if absent is not None:
            dy = np.where(absent, np.float32(0), dy)
        dz = times_derivative(spec, kept, np.ascontiguousarray(dy))
        if recording.trains(layer):
            _add_gradients(layer, before, x, dz, recording)
        if not wanted[0]:
            return [None]
        dx = recording.array(x.shape)
        _write_input_gradients(layer, weights, dz, dx)
        return [dx if layer.causal else np.ascontiguousarray(dx[:, :steps])]

    outputs = y if layer.causal else np.ascontiguousarray(y[:, chosen])
    return Recorded([outputs], [layer.compute_mask(inputs, context.mask)], pullback)


def _add_gradients(
    layer: Conv1D, before: Floats, x: Floats, dz: Floats, recording: Recording
) -> None:
    """Add the gradients of the kernel and of the bias."""
    by_group = [
        kernel.weight_gradients(
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


def _write_input_gradients(layer: Conv1D, weights: Floats, dz: Floats, dx: Floats) -> None:
    if layer.groups == 1:
        kernel.input_gradients(weights, dz, dx, layer.dilation_rate)
        return
    for inputs, filters in zip(
        layer.shares(dx.shape[-1]), layer.shares(layer.filters), strict=True
    ):
        share = np.empty(dx[..., inputs].shape, np.float32)
        of_group = (
            np.ascontiguousarray(weights[..., filters]),
            np.ascontiguousarray(dz[..., filters]),
        )
        kernel.input_gradients(*of_group, share, layer.dilation_rate)
        dx[..., inputs] = share
