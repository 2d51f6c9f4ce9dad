"""The activations that layers take, to call on arrays."""

from streamrnn.nn.simd.activations import *
from streamrnn.nn.simd.activations import __all__ as __all__
