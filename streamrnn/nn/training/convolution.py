"""Rules of Conv1D and DepthwiseConv1D: on a stream the gradient ends at the window's start."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.nn.kernels import conv1d as kernel
from streamrnn.nn.kernels.gradients import summed_over, times_derivative
from streamrnn.nn.layers import activations
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.conv1d import Conv1D, DepthwiseConv1D
from streamrnn.nn.training.elementwise import from_value
from streamrnn.nn.training.recording import Recorded, Recording


def convolution(
    layer: Conv1D, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a Conv1D. Outputs of steps past a length are zeros."""
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
        dz = times_derivative(spec, kept, _without(absent, dy))
        if recording.trains(layer):
            _add_gradients(layer, before, x, dz, recording)
        if not wanted[0]:
            return [None]
        dx = recording.array(x.shape)
        _write_input_gradients(layer, weights, dz, dx)
        return [dx if layer.causal else np.ascontiguousarray(dx[:, :steps])]

    outputs = y if layer.causal else np.ascontiguousarray(y[:, chosen])
    return Recorded([outputs], [None], pullback)


def depthwise(
    layer: DepthwiseConv1D, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a DepthwiseConv1D. Outputs of steps past a length are zeros."""
    spec, absent = layer.activation, _absent(layer, inputs, context)
    read = layer.with_past(_without(absent, inputs), context)
    before = layer.window.pads(inputs.shape[1])[0]
    count = layer.window.count_for(layer, inputs.shape[1]) or 0
    weights, bias = recording.weight(layer, "kernel"), recording.weight(layer, "bias")
    assert weights is not None
    sums = layer.sums(read, count, weights)
    sums = sums if bias is None else sums + bias
    y = activations.compute(spec, sums)
    kept = y if from_value(spec) else sums

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None]
        of_sums = times_derivative(spec, kept, _without(absent, dy))
        dz = of_sums.reshape(*dy.shape[:2], *weights.shape[1:])
        if recording.trains(layer):
            one = (1, 1, *dz.shape[2:])
            taps = layer.window.views(read, count)
            of_taps = [summed_over(x[..., None] * dz, one) for x in taps]
            recording.add(layer, "kernel", np.concatenate(of_taps)[:, 0])
            recording.add(layer, "bias", summed_over(dz, one).reshape(-1))
        if not wanted[0]:
            return [None]
        dx = np.zeros_like(read)
        for of_tap, tap in zip(layer.window.views(dx, count), weights, strict=True):
            for multiple in range(tap.shape[1]):
                of_tap += dz[..., multiple] * tap[:, multiple]
        return [np.ascontiguousarray(dx[:, before : before + inputs.shape[1]])]

    return Recorded([_without(absent, y)], [None], pullback)


def _absent(layer: Conv1D | DepthwiseConv1D, inputs: Floats, context: CallContext) -> Bools | None:
    """Return which steps (B, T, 1) are past a length; None if no lengths are set."""
    if not layer.causal or context.lengths is None:
        return None
    absent: Bools = (np.arange(inputs.shape[1]) >= context.lengths[:, None])[..., None]
    return absent


def _without(absent: Bools | None, x: Floats) -> Floats:
    """Return x with zeros at absent steps."""
    return np.ascontiguousarray(x if absent is None else np.where(absent, np.float32(0), x))


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
