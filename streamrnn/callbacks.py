"""Callbacks for `fit` and `evaluate`, which call them before and after epochs and batches."""

from functools import partial as _partial
from typing import TYPE_CHECKING

from streamrnn.base.display import show_in as _show_in
from streamrnn.base.plugin import load_plugin
from streamrnn.nn.training.callbacks import *
from streamrnn.nn.training.callbacks import __all__ as names

if TYPE_CHECKING:
    from streamrnn.plugins.tensorboard import TensorBoard as TensorBoard

__all__ = [*names, "TensorBoard"]
__all__.sort()

_show_in(__name__, globals(), {"TensorBoard": _partial(load_plugin, "callback")})
