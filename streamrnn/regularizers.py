"""Regularizers of weights, by their names in Keras."""

from streamrnn.layers.regularizers import *
from streamrnn.layers.regularizers import __all__ as __all__
