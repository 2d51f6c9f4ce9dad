"""TimeDistributed: one layer on each step separately."""

from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape, Shapes


@builtin_layer
class TimeDistributed(BuiltIn):
    """(B, T, …) -> (B, T, …): `layer` gets each step of each row as a separate row.

    With training=True, `layer` is called step by step, as in Keras: a BatchNormalization inside
    takes the moments of one step at a time.
    """

    sequence_input = True
    stepwise = True

    layer: Argument[Layer, Any] = Argument(inner=True)

    def complete(self) -> None:
        if not isinstance(self.layer, Layer):
            received = type(self.layer).__name__
            raise ArgumentError(f"{self}: expected a layer, received {received}")
        if getattr(self.layer, "stateful", False):
            raise ArgumentError(f"{self}: the layer inside must not be stateful")
        self.adopt(self.layer)
        self.input_dtype = self.layer.input_dtype

    def children(self) -> dict[str, Layer]:
        return {"layer": self.layer}

    def build(self, input_shape: Shape) -> None:
        self._check_rank(input_shape)
        self.layer.ensure_built((input_shape[0], *input_shape[2:]))
        self.built = True

    def check_input(self, shape: Shape) -> None:
        self._check_rank(shape)
        self.layer.check_input((shape[0], *shape[2:]))

    def _check_rank(self, shape: Shapes) -> None:
        if isinstance(shape, list) or len(shape) < 3:
            raise ShapeError(f"{self}: expected (batch, time, …), received shape {shape}")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        inner = self.layer.compute_output_shape((input_shape[0], *input_shape[2:]))
        if isinstance(inner, list):
            raise ShapeError(f"{self}: the layer inside must have one output")
        return (*input_shape[:2], *inner[1:])

    def apply(self, inputs: Array, context: CallContext) -> Array:
        y: Array
        if context.training and inputs.shape[1]:
            one_each = context.mask is not None and inputs.ndim == 3
            masks = context.mask.T if one_each else [None] * inputs.shape[1]
            by_step = np.ascontiguousarray(inputs.swapaxes(0, 1))
            steps = [
                self.layer.forward(x, CallContext(mask, training=True, kind="whole"))[0]
                for x, mask in zip(by_step, masks, strict=True)
            ]
            return np.stack(steps, axis=1)
        rows = inputs.reshape(-1, *inputs.shape[2:])
        y, _ = self.layer.forward(rows, CallContext(kind="whole"))
        return y.reshape(*inputs.shape[:2], *y.shape[1:])
