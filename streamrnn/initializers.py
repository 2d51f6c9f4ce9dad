"""Initializers of weights, with Keras's names and arguments."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.layers.initializers import *
from streamrnn.nn.layers.initializers import __all__ as __all__

_show_in(__name__, globals())
