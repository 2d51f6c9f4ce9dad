"""Functions of arrays and symbols: the names of `keras.ops` that recurrent models use."""

from streamrnn.layers.ops import *  # noqa: F403
from streamrnn.layers.ops import __all__ as __all__
