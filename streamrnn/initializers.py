"""Initial weights, by their names in Keras."""

from streamrnn.layers.initializers import *
from streamrnn.layers.initializers import __all__ as __all__
