"""Schedules of the learning rate, by their names in Keras."""

from streamrnn.nn.training.schedules import *
from streamrnn.nn.training.schedules import __all__ as __all__
