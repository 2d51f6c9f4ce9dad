"""The registry of layer classes, and the conversion of layers to configs and back.

A config is the dictionary that Keras 3 writes: ``{"class_name": …, "config": {…}}`` and more keys
that are not needed to read it. No module is imported and no code is run for it: a name that is not
in the registry is refused.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from streamrnn.display import closest
from streamrnn.errors import DTypeError, UnsupportedError

if TYPE_CHECKING:
    from streamrnn.layers.layer import Layer

_classes: dict[str, "type[Layer]"] = {}
_builtins: set[str] = set()

_WHY_REFUSED = {
    "Lambda": "it holds Python code, which is never run from a file",
    "Hashing": "TensorFlow's hash is not reproduced; use a StringLookup with a vocabulary",
    **dict.fromkeys(
        ("AdditiveAttention", "Attention", "GroupQueryAttention", "MultiHeadAttention"),
        "it needs the whole time axis",
    ),
    "CuDNNLSTM": "there is no GPU; LSTM computes the same",
    "CuDNNGRU": "there is no GPU; GRU with reset_after=True computes the same",
    **dict.fromkeys(
        ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "convolutional recurrence is not supported"
    ),
    **dict.fromkeys(
        (
            *("Conv2D", "Conv3D", "DepthwiseConv2D", "SeparableConv2D"),
            *("MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D"),
            *("ZeroPadding2D", "Cropping2D", "UpSampling2D", "SpatialDropout2D"),
        ),
        "images are not supported; compute their features outside, one row each",
    ),
    "Conv1DTranspose": "it makes several steps of each",
    "TextVectorization": "texts are not supported; split them into words, then use a StringLookup",
}

C = TypeVar("C", bound="type[Layer]")
ConfigDict = dict[str, Any]
"""The arguments of a constructor by name, JSON-able."""
StoredConfig = Mapping[str, Any]
"""The same, read from a file; the constructor checks the values."""


def builtin_layer(cls: C) -> C:
    """Register a layer of this package under its class name; a class decorator."""
    _classes[cls.__name__] = cls
    _builtins.add(cls.__name__)
    return cls


def register_layer(class_name: str, cls: "type[Layer]") -> None:
    """Let configs that name `class_name` build `cls`, a custom cell or layer.

    `class_name` is the name in the file, with or without its package (``"MyPackage>PeepholeLSTM"``
    or ``"PeepholeLSTM"``). Names of this package's layers cannot be used.
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


def has_custom() -> bool:
    """Return whether a custom class is registered."""
    return not _builtins.issuperset(_classes)


def is_own(cls: type) -> bool:
    """Return whether this is a class of the package, not a subclass by a user."""
    return cls.__module__.partition(".")[0] == __package__.partition(".")[0]


def names() -> list[str]:
    """Return all class names that a config may use, sorted."""
    return sorted(_classes)


def get(class_name: str) -> "type[Layer]":
    """Return the class of this name (also written "package>Class").

    Raises UnsupportedError, with a similar name, for a class that is not in the registry.
    """
    found = _classes.get(class_name) or _classes.get(class_name.rpartition(">")[2])
    if found is not None:
        return found
    why = _WHY_REFUSED.get(class_name)
    near = closest(class_name, _classes)
    raise UnsupportedError(
        f"layer class {class_name!r} is not supported"
        + (f": {why}" if why else "")
        + (f"; did you mean {near!r}?" if near else "")
        + ". Supported: "
        + ", ".join(names())
        + ". Register a custom class with streamrnn.register_layer(name, cls)."
    )


def why_missing(class_name: str, known: Iterable[str]) -> str:
    """Return why this class of Keras is not supported, or a similar known name, to be appended."""
    if why := _WHY_REFUSED.get(class_name):
        return f": {why}"
    near = closest(class_name, known)
    return f"; did you mean {near!r}?" if near else ""


def serialize(layer: "Layer") -> ConfigDict:
    """Return the config of a layer with its class name, as a model file holds it."""
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
