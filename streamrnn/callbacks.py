"""Callbacks of `fit`, named as in Keras, which it calls between epochs and batches."""

from typing import TYPE_CHECKING, Any

from streamrnn.base.display import show_in as _show_in
from streamrnn.base.plugin import load_plugin
from streamrnn.nn.training.callbacks import *
from streamrnn.nn.training.callbacks import __all__ as names

if TYPE_CHECKING:
    from streamrnn.plugins.tensorboard import TensorBoard as TensorBoard

__all__ = [*names, "TensorBoard"]
__all__.sort()


if not TYPE_CHECKING:  # so that a type checker reports misspelled names

    def __getattr__(name: str) -> Any:
        if name == "TensorBoard":
            return load_plugin("callback", name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


_show_in(__name__, globals())
