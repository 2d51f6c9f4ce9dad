"""Losses, by their names in Keras, and the quantile loss."""

from streamrnn.nn.training.losses import *
from streamrnn.nn.training.losses import __all__ as __all__
