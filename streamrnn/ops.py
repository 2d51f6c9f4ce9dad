"""Functions of arrays and symbols: the names of `keras.ops` that recurrent models use."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.layers.ops import *  # noqa: F403
from streamrnn.nn.layers.ops import __all__ as __all__

_show_in(__name__, globals())
