"""What a room uses of rooms above it. The package's door registers it, to load it on first use."""

from collections.abc import Callable
from typing import Any

__all__ = ["provide", "provided"]

_loaders: dict[str, Callable[[], Any]] = {}


def provide(name: str, load: Callable[[], Any]) -> None:
    """Register a name, and what loads the class or function that it stands for."""
    _loaders[name] = load


def provided(name: str) -> Any:
    """Return the class or function that a name stands for."""
    return _loaders[name]()
