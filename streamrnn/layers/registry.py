"""Which class a name in a config stands for, and how layers become configs and come back.

A config is the dictionary that Keras 3 writes: ``{"class_name": …, "config": {…}}`` and more keys
that are not needed to read it. Nothing is imported and no code is run for it: a name that is not in
the registry is refused.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from streamrnn.errors import DTypeError, UnsupportedError

if TYPE_CHECKING:
    from streamrnn.layers.layer import Layer

_classes: dict[str, "type[Layer]"] = {}
_builtins: set[str] = set()

_WHY_REFUSED = {
    "Lambda": "it holds Python code, which is never run from a file",
    "Hashing": "TensorFlow's hash is not reproduced; use a StringLookup with a vocabulary",
    "Attention": "it needs the whole time axis",
    "MultiHeadAttention": "it needs the whole time axis",
    "CuDNNLSTM": "there is no GPU; LSTM computes the same",
    "CuDNNGRU": "there is no GPU; GRU with reset_after=True computes the same",
    "ConvLSTM1D": "convolutional recurrence is not built",
    "ConvLSTM2D": "convolutional recurrence is not built",
}

C = TypeVar("C", bound="type[Layer]")
Config = dict[str, Any]
"""The arguments of a constructor by name, JSON-able."""
StoredConfig = Mapping[str, Any]
"""The same as a file holds it; the constructor checks what it is given."""


def builtin_layer(cls: C) -> C:
    """Class decorator: a layer of this package, found under its class name."""
    _classes[cls.__name__] = cls
    _builtins.add(cls.__name__)
    return cls


def register_layer(class_name: str, cls: "type[Layer]") -> None:
    """Let configs that name `class_name` build `cls`: a cell or layer of yours.

    `class_name` is what the file says, with or without its package (``"MyPackage>PeepholeLSTM"``
    or ``"PeepholeLSTM"``). Names of this package's own layers cannot be taken.
    """
    from streamrnn.layers.layer import Layer

    if not (isinstance(cls, type) and issubclass(cls, Layer)):
        raise DTypeError(
            f"register_layer({class_name!r}): expected a class derived from layers.Layer or "
            f"layers.Cell, received {cls!r}"
        )
    if class_name in _builtins:
        raise UnsupportedError(
            f"register_layer({class_name!r}): this is a layer of streamrnn; choose another name"
        )
    _classes[class_name] = cls


def is_own(cls: type) -> bool:
    """Is this a class of the package, and no subclass of someone's?"""
    return cls.__module__.partition(".")[0] == __package__.partition(".")[0]


def names() -> list[str]:
    """All class names that a config may use, sorted."""
    return sorted(_classes)


def get(class_name: str) -> "type[Layer]":
    """The class that `class_name` stands for (also written "package>Class").

    Raises UnsupportedError, with the close names, for a class that is not in the registry.
    """
    found = _classes.get(class_name) or _classes.get(class_name.rpartition(">")[2])
    if found is not None:
        return found
    why = _WHY_REFUSED.get(class_name)
    near = get_close_matches(class_name, _classes, n=1)
    raise UnsupportedError(
        f"layer class {class_name!r} is not supported"
        + (f": {why}" if why else "")
        + (f"; did you mean {near[0]!r}?" if near else "")
        + ". Supported: "
        + ", ".join(names())
        + ". A class of yours can be mapped with streamrnn.register_layer(name, cls)."
    )


def why_refused(class_name: str) -> str | None:
    """Why this class of Keras is not here, where there is a reason to tell."""
    return _WHY_REFUSED.get(class_name)


def serialize(layer: "Layer") -> Config:
    """The config of a layer with its class name, as it stands in a model file."""
    for name, cls in _classes.items():
        if cls is type(layer):
            return {"class_name": name, "config": layer.get_config()}
    raise UnsupportedError(
        f"layer {layer.name!r}: class {type(layer).__name__} is not registered, so a file could "
        f"not be read back; call streamrnn.register_layer({type(layer).__name__!r}, …) first"
    )


def deserialize(config: StoredConfig) -> "Layer":
    """Build the layer of a config that `serialize`, or Keras, wrote."""
    if not isinstance(config, Mapping) or not {"class_name", "config"} <= set(config):
        raise UnsupportedError(
            f"expected a layer's config with class_name and config, received {config!r:.120}"
        )
    return get(config.get("registered_name") or config["class_name"]).from_config(
        dict(config["config"])
    )
