"""What happens between epochs and batches of `fit`, by its names in Keras."""

from streamrnn.training.callbacks import *
from streamrnn.training.callbacks import __all__ as __all__
