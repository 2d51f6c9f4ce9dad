"""Schedules of the learning rate, by their names in Keras."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.training.schedules import *
from streamrnn.nn.training.schedules import __all__ as __all__

_show_in(__name__, globals())
