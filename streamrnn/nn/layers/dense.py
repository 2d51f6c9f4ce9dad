"""Dense: activation(x K + b) over the last axis."""

from typing import Unpack

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.nn.kernels import dense
from streamrnn.nn.kernels.integers import integers_pay
from streamrnn.nn.kernels.packed import Packed
from streamrnn.nn.layers import activations, initializers
from streamrnn.nn.layers.activations import ActivationLike
from streamrnn.nn.layers.arguments import LayerOptions, positive_integer
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.initializers import InitializerLike
from streamrnn.nn.layers.packable import Packable
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


@builtin_layer
class Dense(Packable):
    """(…, F) -> (…, units). Weights: kernel (F, units), bias (units,)."""

    stepwise = True
    config_fields = ("units", "activation", "use_bias", "kernel_initializer", "bias_initializer")

    def __init__(
        self,
        units: int,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive_integer(str(self), "units", units)
        self.activation = activations.get(activation, str(self))
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self._packed: Packed | None = None

    def build(self, input_shape: Shape) -> None:
        features = self.known_features(input_shape)
        self.add_weight("kernel", (features, self.units), self.kernel_initializer)
        if self.use_bias:
            self.add_weight("bias", (self.units,), self.bias_initializer)
        self.built = True

    def check_input(self, shape: Shape) -> None:
        self.expect_features(shape, self._weights["kernel"].shape[0])

    def packable(self) -> dict[str, bool]:
        return {"kernel": True} if self.built and self._weights["kernel"].size else {}

    def pays(self) -> bool:
        return integers_pay(*self._weights["kernel"].shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        packed = self._packed
        if packed is None:
            kernel = self.integers.get("kernel", self._weights["kernel"])
            packed = dense.pack(kernel, self._weights.get("bias"))
            self._packed = packed
        y = np.empty((*inputs.shape[:-1], self.units), np.float32)
        dense.run(
            packed,
            inputs.reshape(-1, inputs.shape[-1]),
            y.reshape(-1, self.units),
            activation=self.activation,
        )
        return y
