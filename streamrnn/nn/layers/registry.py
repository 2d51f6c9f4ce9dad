"""The registry of layer classes by name. It does not import `Layer`: each class adds itself."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, dataclass_transform

from streamrnn.base.display import closest
from streamrnn.base.plugin import load_plugin, plugin_names
from streamrnn.errors import UnsupportedError
from streamrnn.nn.layers.declared import Argument, declared

_classes: dict[str, type[Any]] = {}
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
        "images are not supported; compute their features outside, as one row per image",
    ),
    "Conv1DTranspose": "it makes several steps out of each step",
    "TextVectorization": "texts are not supported; split them into words, then use a StringLookup",
}

C = TypeVar("C", bound=type[Any])
ConfigDict = dict[str, Any]
"""The arguments of a constructor by name, in a form that JSON can hold."""
StoredConfig = Mapping[str, Any]
"""Like ConfigDict, but read from a file; the constructor checks the values."""


@dataclass_transform(eq_default=False, field_specifiers=(Argument,))
def builtin_layer(cls: C) -> C:
    """Register a layer of this package under its class name; a class decorator.

    Its annotated names are its arguments: see `declared`, and the module of that name.
    """
    _classes[cls.__name__] = cls
    _builtins.add(cls.__name__)
    declared(cls)
    if "__init__" not in vars(cls) and hasattr(cls, "take_arguments"):
        cls.__init__ = cls.take_arguments
    return cls


def custom_layer(class_name: str, cls: type[Any]) -> None:
    """Register a user's class. Raises UnsupportedError for a name of this package."""
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


def own_classes(base: type) -> list[type[Any]]:
    """Return the registered classes of this package that are `base` or derived from it."""
    return [cls for name in sorted(_builtins) if issubclass(cls := _classes[name], base)]


def names() -> list[str]:
    """Return all class names that a config may use, sorted."""
    return sorted(_classes)


def registered_name(cls: type) -> str | None:
    """Return the name that a class is registered under; None if it is not registered."""
    return next((name for name, registered in _classes.items() if registered is cls), None)


def class_of(class_name: str) -> type[Any]:
    """Return the class of this name: see `serialization.get`."""
    cls = _classes.get(class_name) or _classes.get(class_name.rpartition(">")[2])
    if cls is not None:
        return cls
    if class_name in plugin_names("layer"):
        load_plugin("layer", class_name)  # its module registers the class
        if class_name in _classes:
            return _classes[class_name]
        raise UnsupportedError(
            f"layer {class_name!r}: its plug-in registers no class of this name. Expected "
            f"streamrnn.register_layer({class_name!r}, cls) in its module"
        )
    raise UnsupportedError(
        f"layer class {class_name!r} is not supported{why_missing(class_name, _classes)}. "
        f"Supported: {', '.join(names())}. Register a custom class with "
        "streamrnn.register_layer(name, cls)."
    )


def why_missing(class_name: str, names: Iterable[str]) -> str:
    """Return why Keras's class is not supported, or a similar name, to append to a message."""
    if why := _WHY_REFUSED.get(class_name):
        return f": {why}"
    near = closest(class_name, names)
    return f"; did you mean {near!r}?" if near else ""
