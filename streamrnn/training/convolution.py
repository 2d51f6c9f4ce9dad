"""The rule of Conv1D: its gradient stops at the inputs before the window."""

from collections.abc import Sequence

import numpy as np

from streamrnn.arrays import Floats
from streamrnn.kernels import conv1d as kernel
from streamrnn.kernels.gradients import times_derivative
from streamrnn.layers import activations
from streamrnn.layers.context import CallContext
from streamrnn.layers.conv1d import Conv1D
from streamrnn.training.elementwise import from_value
from streamrnn.training.recording import Recorded, Recording


def convolution(
    layer: Conv1D, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record a Conv1D. Outputs of steps past a length are zeros."""
    spec, x, absent = layer.activation, np.ascontiguousarray(inputs), None
    if context.lengths is not None:
        absent = (np.arange(x.shape[1]) >= context.lengths[:, None])[..., None]
        x = np.where(absent, np.float32(0), x)
    past = layer.past_inputs(x, context)
    before = past.copy()
    y = kept = np.zeros((*x.shape[:2], layer.filters), np.float32)
    if from_value(spec):
        layer.convolve(x, context.lengths, past, y, spec)
    else:
        layer.convolve(x, context.lengths, past, kept, "linear")
        y = activations.compute(spec, kept)
    weights = recording.weight(layer, "kernel")
    assert weights is not None

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None]
        if absent is not None:
            dy = np.where(absent, np.float32(0), dy)
        dz = times_derivative(spec, kept, np.ascontiguousarray(dy))
        if recording.trains(layer):
            of_kernel, of_bias = kernel.weight_gradients(
                before, x, dz, layer.kernel_size, layer.dilation_rate
            )
            recording.add(layer, "kernel", of_kernel)
            recording.add(layer, "bias", of_bias)
        if not wanted[0]:
            return [None]
        dx = recording.array(x.shape)
        kernel.input_gradients(weights, dz, dx, layer.dilation_rate)
        return [dx]

    return Recorded([y], [layer.compute_mask(inputs, context.mask)], pullback)
