"""Activation functions, by their names in Keras."""

from streamrnn.nn.layers.activations import *
from streamrnn.nn.layers.activations import __all__ as __all__
