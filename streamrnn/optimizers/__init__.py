"""Optimizers, by their names in Keras."""

from streamrnn.nn.training.optimizers import *
from streamrnn.nn.training.optimizers import __all__ as __all__
from streamrnn.optimizers import schedules as schedules
