"""Activation functions, by their names in Keras."""

from streamrnn.layers.activations import *
from streamrnn.layers.activations import __all__ as __all__
