"""Optimizers, by their names in Keras."""

from streamrnn.optimizers import schedules as schedules
from streamrnn.training.optimizers import *
from streamrnn.training.optimizers import __all__ as __all__
