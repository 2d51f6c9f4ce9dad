"""Names from rooms above. The package's `__init__` registers them, to load them on first use."""

from collections.abc import Callable
from typing import Any

__all__ = ["provide", "provided"]

_loaders: dict[str, Callable[[], Any]] = {}


def provide(name: str, load: Callable[[], Any]) -> None:
    """Register a name, and a function that loads the class or function behind it."""
    _loaders[name] = load


def provided(name: str) -> Any:
    """Return the class or function that a name stands for."""
    return _loaders[name]()
