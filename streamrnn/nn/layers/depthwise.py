"""DepthwiseConv1D and SeparableConv1D: each feature is filtered by itself.

Neither has causal padding in Keras, so neither runs on streams. They pass no mask on.
"""

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.nn.kernels import dense
from streamrnn.nn.layers import activations
from streamrnn.nn.layers.activations import Activated
from streamrnn.nn.layers.arguments import Filters
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import declared
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.time_windows import (
    DataFormat,
    OneSize,
    Padding,
    TimeWindow,
    padded,
)
from streamrnn.nn.layers.variable import WeightAttribute


@declared
class DepthwiseArguments:
    """The arguments of both, after the first ones."""

    _: KW_ONLY
    strides: OneSize = OneSize(1)
    padding: Padding = Padding("valid", "same")
    depth_multiplier: Filters = Filters(1)
    data_format: DataFormat = DataFormat(None)
    dilation_rate: OneSize = OneSize(1)
    activation: Activated = Activated(None)
    use_bias: bool = True
    depthwise_initializer: Initial = Initial("glorot_uniform")
    bias_initializer: Initial = Initial("zeros")


class _Depthwise(BuiltIn, DepthwiseArguments):
    """Filters of single features."""

    supports_masking = False
    ragged = False
    sequence_input = True
    features: int
    kernel_size: Any

    def complete(self) -> None:
        self.window = TimeWindow(self.kernel_size, self.strides, self.dilation_rate, self.padding)

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self.features, rank=3)
        self.window.count_for(self, shape[1])

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        return None

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return (
            f'padding="{self.padding}" looks at later steps or leaves out some; use '
            'Conv1D(groups=…, padding="causal")'
        )

    def filtered(self, x: Floats, kernel: Floats) -> Floats:
        """Return each feature by `depth_multiplier` filters, (B, windows, F M); tap after tap."""
        count = self.window.count_for(self, x.shape[1]) or 0
        y = np.zeros((len(x), count, *kernel.shape[1:]), np.float32)
        if count:
            steps = padded(x, self.window.pads(x.shape[1]), 0)
            for view, tap in zip(self.window.views(steps, count), kernel, strict=True):
                y = y + view[..., None] * tap
        return y.reshape(len(x), count, -1)


@builtin_layer
class DepthwiseConv1D(_Depthwise):
    """(B, T, F) -> (B, windows, F depth_multiplier).

    Weights: kernel (kernel_size, F, depth_multiplier), bias (F depth_multiplier,).
    """

    kernel_size: OneSize

    def build(self, input_shape: Shape) -> None:
        self.features = self.known_features(input_shape)
        shape = (self.kernel_size, self.features, self.depth_multiplier)
        self.add_weight("kernel", shape, self.depthwise_initializer)
        if self.use_bias:
            size = self.features * self.depth_multiplier
            self.add_weight("bias", (size,), self.bias_initializer)
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        features = self.known_features(input_shape) * self.depth_multiplier
        return (input_shape[0], self.window.count_for(self, input_shape[1]), features)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y = self.filtered(inputs, self._weights["kernel"])
        return activations.compute(
            self.activation, y + self._weights["bias"] if self.use_bias else y
        )


@builtin_layer
class SeparableConv1D(_Depthwise):
    """(B, T, F) -> (B, windows, filters): a DepthwiseConv1D, then a Dense.

    Weights: depthwise_kernel (kernel_size, F, depth_multiplier), pointwise_kernel
    (1, F depth_multiplier, filters), bias (filters,).
    """

    depthwise_kernel = WeightAttribute()
    pointwise_kernel = WeightAttribute()

    filters: Filters
    kernel_size: OneSize
    _: KW_ONLY
    pointwise_initializer: Initial = Initial("glorot_uniform")
    after: ClassVar = {
        "depth_multiplier": "dilation_rate",
        "pointwise_initializer": "depthwise_initializer",
    }

    def build(self, input_shape: Shape) -> None:
        self.features = self.known_features(input_shape)
        shape = (self.kernel_size, self.features, self.depth_multiplier)
        self.add_weight("depthwise_kernel", shape, self.depthwise_initializer)
        shape = (1, self.features * self.depth_multiplier, self.filters)
        self.add_weight("pointwise_kernel", shape, self.pointwise_initializer)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer)
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.window.count_for(self, input_shape[1]), self.filters)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        z = self.filtered(inputs, self._weights["depthwise_kernel"])
        y = np.empty((*z.shape[:2], self.filters), np.float32)
        packed = dense.pack(self._weights["pointwise_kernel"][0], self._weights.get("bias"))
        rows = np.ascontiguousarray(z).reshape(-1, z.shape[2])
        dense.run(packed, rows, y.reshape(-1, self.filters), activation=self.activation)
        return y
