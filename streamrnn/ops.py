"""The functions of `keras.ops` that recurrent models use, on arrays and on symbols."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.layers.ops import *  # noqa: F403
from streamrnn.nn.layers.ops import __all__ as __all__

_show_in(__name__, globals())
