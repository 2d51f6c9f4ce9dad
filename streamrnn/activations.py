"""Activation functions, with Keras's names where it has them."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.layers.activations import *
from streamrnn.nn.layers.activations import __all__ as __all__

_show_in(__name__, globals())
