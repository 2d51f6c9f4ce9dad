"""DepthwiseConv1D and SeparableConv1D: each feature is filtered by itself.

Neither has causal padding in Keras, so neither runs on streams. They pass no mask on.
"""

from collections.abc import Sequence
from typing import ClassVar, Unpack

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.nn.kernels import dense
from streamrnn.nn.layers import activations, initializers
from streamrnn.nn.layers.activations import ActivationLike
from streamrnn.nn.layers.arguments import LayerOptions, strictly_positive
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.initializers import InitializerLike
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.time_windows import (
    TimeWindow,
    check_data_format,
    checked_padding,
    one_size,
    padded,
)
from streamrnn.nn.layers.variable import WeightAttribute


class _Depthwise(Layer):
    """The arguments of both, and their filters of single features."""

    supports_masking = False
    ragged = False
    sequence_input = True
    features: int
    config_fields: ClassVar[tuple[str, ...]] = (
        "kernel_size",
        "strides",
        "padding",
        "depth_multiplier",
        "dilation_rate",
        "activation",
        "use_bias",
        "depthwise_initializer",
        "bias_initializer",
    )

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_data_format(self, data_format)
        self.kernel_size = one_size(self, "kernel_size", kernel_size)
        self.strides = one_size(self, "strides", strides)
        self.dilation_rate = one_size(self, "dilation_rate", dilation_rate)
        self.padding = checked_padding(self, padding, "valid", "same")
        self.window = TimeWindow(self.kernel_size, self.strides, self.dilation_rate, self.padding)
        self.depth_multiplier = strictly_positive(str(self), "depth_multiplier", depth_multiplier)
        self.activation = activations.get(activation, str(self))
        self.use_bias = use_bias
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.bias_initializer = initializers.get(bias_initializer)

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
    config_fields = (*_Depthwise.config_fields, "filters", "pointwise_initializer")

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        depth_multiplier: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        pointwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            depth_multiplier,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            depthwise_initializer,
            bias_initializer,
            **kwargs,
        )
        self.filters = strictly_positive(str(self), "filters", filters)
        self.pointwise_initializer = initializers.get(pointwise_initializer)

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
