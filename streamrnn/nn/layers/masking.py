"""Masking: steps whose features all equal one value are masked."""

import numpy as np

from streamrnn.base.arrays import Array, Bools
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.registry import builtin_layer


@builtin_layer
class Masking(BuiltIn):
    """Masks the steps where all features equal mask_value, and sets them to 0 (as in Keras)."""

    stepwise = True
    makes_mask = True

    mask_value: float = 0.0

    def compute_mask(self, inputs: Array, mask: Bools | None = None) -> Bools | None:
        present: Bools = (np.asarray(inputs) != np.float32(self.mask_value)).any(axis=-1)
        return present if mask is None else present & mask

    def apply(self, inputs: Array, context: CallContext) -> Array:
        present = (inputs != np.float32(self.mask_value)).any(axis=-1, keepdims=True)
        return np.where(present, inputs, np.float32(0))
