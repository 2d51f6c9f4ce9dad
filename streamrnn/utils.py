"""Functions of `keras.utils`, for labels, sequences, windows and the random seed."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.training.utils import *
from streamrnn.nn.training.utils import __all__ as __all__

_show_in(__name__, globals())
