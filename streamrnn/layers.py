"""Layers and cells: Keras's names, arguments and weight layouts, in float32 NumPy arrays."""

from streamrnn.nn.layers import *
from streamrnn.nn.layers import __all__ as __all__
from streamrnn.nn.layers import __dir__ as __dir__
from streamrnn.nn.layers import __getattr__ as __getattr__
