"""Models: Sequential and Model, their files, and runners that carry states."""

from streamrnn.nn.models import *
from streamrnn.nn.models import __all__ as __all__
from streamrnn.nn.models import __dir__ as __dir__
from streamrnn.nn.models import __getattr__ as __getattr__
