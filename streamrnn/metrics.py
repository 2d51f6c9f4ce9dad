"""Metrics, by their names in Keras."""

from streamrnn.training.metrics import *
from streamrnn.training.metrics import __all__ as __all__
