"""Regularizers of weights, by their names in Keras."""

from streamrnn.nn.layers.regularizers import *
from streamrnn.nn.layers.regularizers import __all__ as __all__
