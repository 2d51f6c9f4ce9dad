"""Masking: steps whose features all equal one value are masked."""

from typing import Unpack

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.nn.layers.arguments import LayerOptions
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import builtin_layer


@builtin_layer
class Masking(Layer):
    """Masks the steps where all features equal mask_value, and sets them to 0 (as in Keras)."""

    stepwise = True
    makes_mask = True
    config_fields = ("mask_value",)

    def __init__(self, mask_value: float = 0.0, **kwargs: Unpack[LayerOptions]) -> None:
        super().__init__(**kwargs)
        self.mask_value = mask_value

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        present: Bools = (np.asarray(inputs) != np.float32(self.mask_value)).any(axis=-1)
        return present if mask is None else present & mask

    def apply(self, inputs: Array, context: CallContext) -> Array:
        present = (inputs != np.float32(self.mask_value)).any(axis=-1, keepdims=True)
        return np.where(present, inputs, np.float32(0))
