"""Layers and cells with Keras's names, arguments and weight layouts, on float32 NumPy arrays."""

from typing import TYPE_CHECKING

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.layers import *
from streamrnn.nn.layers import __all__ as __all__
from streamrnn.nn.layers import __dir__ as __dir__

if not TYPE_CHECKING:  # so that a type checker reports misspelled names
    from streamrnn.nn.layers import __getattr__ as __getattr__

_show_in(__name__, globals())
