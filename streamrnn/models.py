"""Models: Sequential and Model, their files, and runners that carry states."""

from typing import TYPE_CHECKING

from streamrnn.base.display import show_in as _show_in
from streamrnn.nn.models import *
from streamrnn.nn.models import __all__ as names

if TYPE_CHECKING:
    from streamrnn.nn.formats import load_model as load_model
else:  # so that a type checker reports misspelled names
    from streamrnn.nn.models import __getattr__ as __getattr__

__all__ = [*names, "load_model"]
__all__.sort()

_show_in(__name__, globals())
