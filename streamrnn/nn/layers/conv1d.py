"""Conv1D, DepthwiseConv1D and SeparableConv1D; Dense: activation(x K + b) over the last axis.

With causal padding and strides=1, each step has an output that depends only on this step and the
past, so the convolutions run on streams; Keras 3 has this padding for Conv1D alone. DepthwiseConv1D
and SeparableConv1D filter each feature separately. The convolutions pass no mask on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import conv1d, dense
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.integers import integers_pay
from streamrnn.nn.kernels.packing import WeightsLike
from streamrnn.nn.layers import activations
from streamrnn.nn.layers.activations import Activated
from streamrnn.nn.layers.arguments import Filters, Size
from streamrnn.nn.layers.axes import DataFormat, OneSize, Padding, TimeWindow, padded
from streamrnn.nn.layers.built_in import Unmasked
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import declared
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.precision import Packable
from streamrnn.nn.layers.registry import ConfigDict, builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.weights import WeightAttribute


class _Convolution(Unmasked):
    """The base of convolutions. A stream's state is its last inputs, for the next windows."""

    sequence_input = True
    features: int
    instead: ClassVar = "it with "

    if TYPE_CHECKING:  # arguments of each subclass (not all have `filters`)
        filters: int
        kernel_size: int
        strides: int
        dilation_rate: int
        padding: str

    def complete(self) -> None:
        self.window = TimeWindow(self.kernel_size, self.strides, self.dilation_rate, self.padding)
        self.causal = self.padding == "causal" and self.strides == 1
        self.ragged = self.causal

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self.features, rank=3)
        self.window.count_for(self, shape[1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.window.count_for(self, input_shape[1]), self.filters)

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        if self.padding != "causal":
            return (
                f'padding="{self.padding}" looks at later steps or leaves some out; train '
                f'{self.instead}padding="causal"'
            )
        return None if self.causal else f"strides={self.strides} leaves out steps; use strides=1"

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        rows = self.window.reach
        return {"x": (rows, self.features)} if rows else {}

    def past_inputs(self, inputs: Array, context: CallContext) -> Floats:
        """Return the inputs before the first step, (B, reach, F): a stream's state, else zeros.

        Callers advance the state.
        """
        past = (self.window.reach, self.features)
        state = context.state("x", past) if context.kind == "stream" and past[0] else None
        return np.zeros((len(inputs), *past), np.float32) if state is None else state


@builtin_layer
class Conv1D(_Convolution, Packable):
    """(B, T, F) -> (B, windows, filters).

    Weights: kernel (kernel_size, F / groups, filters), bias (filters,). y[t] = activation(b + sum
    over k of x[t * strides + k * dilation_rate - before] W[k]), with zeros outside; `before` is the
    number of steps that the padding adds at the beginning. Features and filters are divided into
    `groups`; each group of features feeds its group of filters. It passes no mask on, as in Keras.

    With padding="causal" and strides=1 it runs on streams: its state is the last
    (kernel_size - 1) * dilation_rate inputs.
    """

    filters: Filters
    kernel_size: OneSize
    strides: OneSize = OneSize(1)
    padding: Padding = Padding("valid", "same", "causal")
    data_format: DataFormat = DataFormat(None)
    dilation_rate: OneSize = OneSize(1)
    groups: Size = Size(1)
    activation: Activated = Activated(None)
    use_bias: bool = True
    kernel_initializer: Initial = Initial("glorot_uniform")
    bias_initializer: Initial = Initial("zeros")

    def complete(self) -> None:
        super().complete()
        if self.filters % self.groups:
            raise ArgumentError(
                f"{self}: filters must be a multiple of groups, received filters={self.filters}, "
                f"groups={self.groups}"
            )
        if self.strides > 1 and self.dilation_rate > 1:
            raise ArgumentError(
                f"{self}: strides={self.strides} and dilation_rate={self.dilation_rate} cannot "
                "both be more than 1"
            )

    def build(self, input_shape: Shape) -> None:
        self.features = self.known_features(input_shape)
        if self.features % self.groups:
            raise ArgumentError(
                f"{self}: the number of features must be a multiple of groups={self.groups}, "
                f"received {self.features}"
            )
        shape = (self.kernel_size, self.features // self.groups, self.filters)
        self.add_weight("kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer)

    def packable(self) -> dict[str, bool]:
        whole = self.built and self.groups == 1 and self._weights["kernel"].size
        return {"kernel": True} if whole else {}

    def pays(self) -> bool:
        return integers_pay(self.kernel_size * self.features, self.filters)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        x = inputs if self.causal else self.extended(inputs)
        y = np.empty((*x.shape[:2], self.filters), np.float32)
        past = self.past_inputs(x, context)
        self.convolve(x, context.lengths if self.causal else None, past, y, self.activation)
        return y if self.causal else np.ascontiguousarray(y[:, self.chosen(inputs.shape[1])])

    def extended(self, x: Floats) -> Floats:
        """Return the inputs with the zeros that the padding adds at the end."""
        return padded(x, (0, self.window.pads(x.shape[1])[1]), 0)

    def chosen(self, steps: int) -> slice:
        """Return the slice of the causal outputs that the padding and the strides keep."""
        count = self.window.count_for(self, steps) or 0
        first = self.window.reach - self.window.pads(steps)[0]
        return slice(first, first + count * self.strides, self.strides) if count else slice(0)

    def convolve(
        self, x: Floats, lengths: Ints | None, past: Floats, y: Floats, activation: Spec
    ) -> None:
        """Write the outputs of each row's first `lengths` steps to `y`; advance `past` in place."""
        by_group = self._packed
        if by_group is None:
            by_group = self._packed = [
                conv1d.pack(kernel, bias, dilation=self.dilation_rate)
                for kernel, bias in self._weights_by_group()
            ]
        if self.groups == 1:
            conv1d.run(by_group[0], x, lengths, None, past, y, activation=activation)
            return
        for packed, inputs, filters in zip(
            by_group, self.shares(x.shape[-1]), self.shares(self.filters), strict=True
        ):
            of_past, of_y = past[..., inputs].copy(), np.ascontiguousarray(y[..., filters])
            share = np.ascontiguousarray(x[..., inputs])
            conv1d.run(packed, share, lengths, None, of_past, of_y, activation="linear")
            past[..., inputs], y[..., filters] = of_past, of_y
        if activation != "linear":
            y[...] = activations.compute(activation, y)

    def shares(self, size: int) -> Iterator[slice]:
        """Yield each group's slice of `size` features or filters."""
        share = size // self.groups
        return (slice(i * share, (i + 1) * share) for i in range(self.groups))

    def _weights_by_group(self) -> Sequence[tuple[WeightsLike, Floats | None]]:
        kernel, bias = self._weights["kernel"], self._weights.get("bias")
        if self.groups == 1:
            return [(self.integers.get("kernel", kernel), bias)]
        return [
            (np.ascontiguousarray(kernel[..., own]), None if bias is None else bias[own])
            for own in self.shares(self.filters)
        ]

    def get_config(self) -> ConfigDict:
        config = super().get_config()
        if self.groups == 1:  # early versions of Keras 2 do not have it
            del config["groups"]
        return config


@declared
class DepthwiseArguments:
    """The arguments that DepthwiseConv1D and SeparableConv1D share, except kernel_size."""

    _: KW_ONLY
    strides: OneSize = OneSize(1)
    padding: Padding = Padding("valid", "same", "causal")
    depth_multiplier: Filters = Filters(1)
    data_format: DataFormat = DataFormat(None)
    dilation_rate: OneSize = OneSize(1)
    activation: Activated = Activated(None)
    use_bias: bool = True
    depthwise_initializer: Initial = Initial("glorot_uniform")
    bias_initializer: Initial = Initial("zeros")


class _Depthwise(_Convolution, DepthwiseArguments):
    """The base of layers that filter each feature separately (in Keras 3, never causally)."""

    def filtered(self, x: Floats, kernel: Floats, context: CallContext) -> Floats:
        """Return each feature filtered by M = `depth_multiplier` filters: (B, windows, F M)."""
        count = self.window.count_for(self, x.shape[1]) or 0
        return self.sums(self.with_past(x, context), count, kernel)

    def sums(self, steps: Floats, count: int, kernel: Floats) -> Floats:
        """Return each feature's weighted sums, (B, count, F M), over steps from `with_past`."""
        y = np.zeros((len(steps), count, *kernel.shape[1:]), np.float32)
        for view, tap in zip(self.window.views(steps, count), kernel, strict=True):
            y = y + view[..., None] * tap
        return y.reshape(len(steps), count, kernel[0].size)

    def with_past(self, x: Floats, context: CallContext) -> Floats:
        """Return the padded x; if `causal`, x after the past inputs, which are then advanced."""
        if not self.causal:
            return padded(x, self.window.pads(x.shape[1]), 0)
        past = self.past_inputs(x, context)
        steps = np.concatenate([past, x], axis=1)
        lengths = np.full(len(x), x.shape[1]) if context.lengths is None else context.lengths
        last = lengths[:, None] + np.arange(self.window.reach)
        past[...] = np.take_along_axis(steps, last[..., None], axis=1)
        return steps


@builtin_layer
class DepthwiseConv1D(_Depthwise):
    """(B, T, F) -> (B, windows, F * depth_multiplier).

    Weights: kernel (kernel_size, F, depth_multiplier), bias (F * depth_multiplier,).
    """

    kernel_size: OneSize

    def build(self, input_shape: Shape) -> None:
        self.features = self.known_features(input_shape)
        shape = (self.kernel_size, self.features, self.depth_multiplier)
        self.add_weight("kernel", shape, self.depthwise_initializer)
        if self.use_bias:
            size = self.features * self.depth_multiplier
            self.add_weight("bias", (size,), self.bias_initializer)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        features = self.known_features(input_shape) * self.depth_multiplier
        return (input_shape[0], self.window.count_for(self, input_shape[1]), features)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y = self.filtered(inputs, self._weights["kernel"], context)
        if self.use_bias:
            y = y + self._weights["bias"]
        return activations.compute(self.activation, y)


@builtin_layer
class SeparableConv1D(_Depthwise):
    """(B, T, F) -> (B, windows, filters): a DepthwiseConv1D, then a Dense.

    Weights: depthwise_kernel (kernel_size, F, depth_multiplier), pointwise_kernel
    (1, F * depth_multiplier, filters), bias (filters,).
    """

    instead = "a Dense after a DepthwiseConv1D with "
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

    def apply(self, inputs: Array, context: CallContext) -> Array:
        z = self.filtered(inputs, self._weights["depthwise_kernel"], context)
        y = np.empty((*z.shape[:2], self.filters), np.float32)
        packed = dense.pack(self._weights["pointwise_kernel"][0], self._weights.get("bias"))
        rows = np.ascontiguousarray(z).reshape(-1, z.shape[2])
        dense.run(packed, rows, y.reshape(-1, self.filters), activation=self.activation)
        return y


@builtin_layer
class Dense(Packable):
    """(…, F) -> (…, units). Weights: kernel (F, units), bias (units,)."""

    stepwise = True

    units: Size
    activation: Activated = Activated(None)
    use_bias: bool = True
    kernel_initializer: Initial = Initial("glorot_uniform")
    bias_initializer: Initial = Initial("zeros")

    def build(self, input_shape: Shape) -> None:
        features = self.known_features(input_shape)
        self.add_weight("kernel", (features, self.units), self.kernel_initializer)
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer)

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self._weights["kernel"].shape[0])

    def packable(self) -> dict[str, bool]:
        return {"kernel": True} if self.built and self._weights["kernel"].size else {}

    def pays(self) -> bool:
        return integers_pay(*self._weights["kernel"].shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y = np.empty((*inputs.shape[:-1], self.units), np.float32)
        self._run(inputs.reshape(-1, inputs.shape[-1]), y.reshape(-1, self.units))
        return y

    def bind(self, inputs: Array, context: CallContext) -> tuple[Array, Callable[[], object]]:
        if not inputs.flags.c_contiguous:  # its rows would be copied here, once for all calls
            return super().bind(inputs, context)
        y = np.empty((*inputs.shape[:-1], self.units), np.float32)
        rows = inputs.reshape(-1, inputs.shape[-1]), y.reshape(-1, self.units)
        return y, partial(self._run, *rows)

    def _run(self, x_NF: Floats, y_NU: Floats) -> None:
        packed = self._packed
        if packed is None:
            kernel = self.integers.get("kernel", self._weights["kernel"])
            packed = self._packed = dense.pack(kernel, self._weights.get("bias"))
        dense.run(packed, x_NF, y_NU, activation=self.activation)
