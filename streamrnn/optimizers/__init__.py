"""Optimizers, by their names in Keras."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.training.optimizers import *
from streamrnn.nn.training.optimizers import __all__ as __all__
from streamrnn.optimizers import schedules as schedules

_show_in(__name__, globals())
