"""Losses, by their names in Keras, and the quantile loss."""

from streamrnn.training.losses import *
from streamrnn.training.losses import __all__ as __all__
