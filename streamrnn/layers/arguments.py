"""What a layer was made with, as the config of a class that writes none."""

import inspect
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from streamrnn.errors import UnsupportedError

if TYPE_CHECKING:
    from streamrnn.layers.layer import Layer

_EVERY_LAYER = {"name", "trainable", "dtype", "input_shape", "batch_input_shape"}


def given_arguments(layer: "Layer", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments by name, JSON-able; those that every layer has are left out.

    Raises UnsupportedError, naming the argument, for a value that no file can hold.
    """
    bound = inspect.signature(type(layer)).bind(*args, **kwargs)
    named: dict[str, Any] = {}
    for name, parameter in bound.signature.parameters.items():
        if name not in bound.arguments:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= bound.arguments[name]
        else:
            named[name] = bound.arguments[name]
    return {
        name: _as_json(layer, name, value)
        for name, value in named.items()
        if name not in _EVERY_LAYER
    }


def _as_json(layer: "Layer", name: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UnsupportedError(
            f"{layer}: a config cannot hold its argument {name}={value!r:.60}; give "
            f"{type(layer).__name__} a get_config (and a from_config) that says it in numbers, "
            "strings and lists"
        ) from None
    return value
