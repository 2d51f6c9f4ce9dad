"""Dense: activation(x K + b) over the last axis."""

from collections.abc import Callable
from functools import partial

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.nn.kernels import dense
from streamrnn.nn.kernels.integers import integers_pay
from streamrnn.nn.kernels.packing import Packed
from streamrnn.nn.layers.activations import Activated
from streamrnn.nn.layers.arguments import Size
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.initializers import Initial
from streamrnn.nn.layers.precision import Packable
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape


@builtin_layer
class Dense(Packable):
    """(…, F) -> (…, units). Weights: kernel (F, units), bias (units,)."""

    stepwise = True

    units: Size
    activation: Activated = Activated(None)
    use_bias: bool = True
    kernel_initializer: Initial = Initial("glorot_uniform")
    bias_initializer: Initial = Initial("zeros")

    def complete(self) -> None:
        self._packed: Packed | None = None

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
            packed = dense.pack(kernel, self._weights.get("bias"))
            self._packed = packed
        dense.run(packed, x_NF, y_NU, activation=self.activation)
