"""Initial weights, by their names in Keras."""

from streamrnn.nn.layers.initializers import *
from streamrnn.nn.layers.initializers import __all__ as __all__
