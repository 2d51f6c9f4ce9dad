"""Functions of arrays and symbols: the names of `keras.ops` that recurrent models use."""

from streamrnn.nn.layers.ops import *  # noqa: F403
from streamrnn.nn.layers.ops import __all__ as __all__
