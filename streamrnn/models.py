"""Models: Sequential and Model, their files, and runners that carry states."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.models import *
from streamrnn.nn.models import __all__ as __all__
from streamrnn.nn.models import __dir__ as __dir__
from streamrnn.nn.models import __getattr__ as __getattr__

_show_in(__name__, globals())
