"""Schedules of the learning rate, by their names in Keras."""

from streamrnn.training.schedules import *
from streamrnn.training.schedules import __all__ as __all__
