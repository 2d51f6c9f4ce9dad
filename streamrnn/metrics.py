"""Metrics, by their names in Keras."""

from streamrnn.nn.training.metrics import *
from streamrnn.nn.training.metrics import __all__ as __all__
