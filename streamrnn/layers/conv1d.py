"""Conv1D with causal padding: each step sees itself and the past, so it can run on streams."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from streamrnn.arrays import Array, Bools, Floats, Ints
from streamrnn.errors import ArgumentError, UnsupportedError
from streamrnn.kernels import conv1d
from streamrnn.kernels.activation import Spec
from streamrnn.kernels.packed import Packed
from streamrnn.layers import activations, initializers
from streamrnn.layers.activations import ActivationLike
from streamrnn.layers.arguments import LayerOptions
from streamrnn.layers.context import CallContext
from streamrnn.layers.initializers import InitializerLike
from streamrnn.layers.layer import Layer
from streamrnn.layers.registry import ConfigDict, builtin_layer
from streamrnn.layers.symbol import Shape


@builtin_layer
class Conv1D(Layer):
    """(B, T, F) -> (B, T, filters). Weights: kernel (kernel_size, F, filters), bias (filters,).

    padding must be "causal": y[t] = activation(b + sum over k of x[t - (K-1-k) * dilation] W[k]),
    zeros before the start. On a stream, its state is the last
    (kernel_size - 1) * dilation_rate inputs. It passes no mask on, as in Keras.
    """

    sequence_input = True
    supports_masking = False

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = _one(self, "kernel_size", kernel_size)
        self.strides = _one(self, "strides", strides)
        self.dilation_rate = _one(self, "dilation_rate", dilation_rate)
        self.padding = padding
        if padding != "causal":
            raise UnsupportedError(
                f"{self}: padding={padding!r} is not supported, only 'causal': the others change "
                "the number of steps or look ahead"
            )
        for argument, value, only in (
            ("strides", self.strides, 1),
            ("groups", groups, 1),
            ("data_format", data_format or "channels_last", "channels_last"),
        ):
            if value != only:
                raise UnsupportedError(
                    f"{self}: {argument}={value!r} is not supported, only {only}"
                )
        self.activation = activations.get(activation, str(self))
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self._packed: Packed | None = None

    def build(self, input_shape: Shape) -> None:
        self.features = self.known_features(input_shape)
        shape = (self.kernel_size, self.features, self.filters)
        self.add_weight("kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.bias_initializer)
        self.built = True

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self.features, rank=3)

    def weights_changed(self) -> None:
        self._packed = None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        return None

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return None

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        rows = self._past()
        return {"x": (rows, self.features)} if rows else {}

    def _past(self) -> int:
        return (self.kernel_size - 1) * self.dilation_rate

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y = np.empty((*inputs.shape[:2], self.filters), np.float32)
        past = self.past_inputs(inputs, context)
        self.convolve(inputs, context.lengths, past, y, self.activation)
        return y

    def past_inputs(self, inputs: Array, context: CallContext) -> Floats:
        """Return the inputs (B, C, F) before a window: a stream's state, to be advanced."""
        past = (self._past(), self.features)
        state = context.state("x", past) if context.kind == "stream" and past[0] else None
        return np.zeros((len(inputs), *past), np.float32) if state is None else state

    def convolve(
        self, x: Floats, lengths: Ints | None, past: Floats, y: Floats, activation: Spec
    ) -> None:
        """Write the outputs of steps below `lengths` to `y`; advance `past`, in place."""
        packed = self._packed
        if packed is None:
            packed = conv1d.pack(
                self._weights["kernel"], self._weights.get("bias"), dilation=self.dilation_rate
            )
            self._packed = packed
        conv1d.run(packed, x, lengths, None, past, y, activation=activation)

    def get_config(self) -> ConfigDict:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
        }


def _one(layer: Layer, argument: str, value: object) -> int:
    """Return an int that Keras also writes as a list of one."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{layer}: {argument} must be a positive integer, received {value!r}")
    return value
