"""Losses, by their names in Keras; also Quantile and GaussianNLL."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.training.losses import *
from streamrnn.nn.training.losses import __all__ as __all__

_show_in(__name__, globals())
