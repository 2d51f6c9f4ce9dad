"""The registry of classes that a config may name, configs of layers, and automatic names.

A config is the dictionary that Keras 3 writes: ``{"class_name": …, "config": {…}}``, with further
keys that are not needed to read it. A config holds names, not code: a name that is neither in the
registry nor an installed plug-in's is refused.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, Self, TypeVar, dataclass_transform

from streamrnn.base.display import closest
from streamrnn.base.plugin import load_plugin, plugin_names
from streamrnn.errors import ConfigError, DTypeError, UnsupportedError
from streamrnn.nn.layers.context import set_inside
from streamrnn.nn.layers.declared import Argument, declared

_classes: dict[str, type[Any]] = {}
_builtins: set[str] = set()

_WHY_REFUSED = {
    "Lambda": "it holds Python code, which is never run from a file",
    "Hashing": "TensorFlow's hash is not reproduced; use a StringLookup with a vocabulary",
    "GroupQueryAttention": "it shares keys among heads; MultiHeadAttention does not",
    "CuDNNLSTM": "there is no GPU; LSTM computes the same",
    "CuDNNGRU": "there is no GPU; GRU with reset_after=True computes the same",
    **dict.fromkeys(
        ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "convolutional recurrence is not supported"
    ),
    **dict.fromkeys(
        (
            f"{name}{axes}D"
            for axes in (2, 3)
            for name in (
                *("AveragePooling", "Conv", "Cropping", "DepthwiseConv", "GlobalAveragePooling"),
                *("GlobalMaxPool", "GlobalMaxPooling", "MaxPool", "MaxPooling", "SeparableConv"),
                *("SpatialDropout", "UpSampling", "ZeroPadding"),
            )
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


class Configurable:
    """The base of Layer and of registered classes, which keeps the constructor's arguments.

    `__new__` is in a base of Layer, so that Layer's `__init__` defines the signature.
    """

    _made_with: tuple[tuple[object, ...], dict[str, object]]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        layer = super().__new__(cls)
        layer._made_with = args, kwargs
        return layer


@dataclass_transform(eq_default=False, field_specifiers=(Argument,))
def builtin_layer(cls: C) -> C:
    """Register a class of this package, whose annotated names are its arguments: see `declared`."""
    _classes[cls.__name__] = cls
    _builtins.add(cls.__name__)
    return declared(cls)


def register_layer(class_name: str, cls: type[Configurable]) -> None:
    """Make configs with the name `class_name` build `cls`, a custom cell or layer.

    `class_name` is the name in the file, with or without its package (``"MyPackage>PeepholeLSTM"``
    or ``"PeepholeLSTM"``). Names of this package's layers cannot be used.
    """
    if not (isinstance(cls, type) and issubclass(cls, Configurable)):
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


def own_classes(base: type) -> list[type[Any]]:
    """Return the registered classes of this package that are `base` or derived from it."""
    return [cls for name in sorted(_builtins) if issubclass(cls := _classes[name], base)]


def names() -> list[str]:
    """Return all class names that a config may use, sorted."""
    return sorted(_classes)


def get(class_name: str) -> type[Any]:
    """Return the class of this name (also written "package>Class").

    The plug-in of a class is loaded if need be. Raises UnsupportedError for unknown names.
    """
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


def serialize(layer: Any) -> ConfigDict:
    """Return the config of a layer with its class name, as a model file holds it."""
    cls = type(layer)
    for name, registered in _classes.items():
        if registered is cls:
            return {"class_name": name, "config": layer.get_config()}
    raise UnsupportedError(
        f"layer {layer.name!r}: class {cls.__name__} is not registered, so a file could not be "
        f"read back; call streamrnn.register_layer({cls.__name__!r}, …) first"
    )


def deserialize(config: StoredConfig) -> Any:
    """Build a layer from a config that `serialize` or Keras wrote."""
    stored = config if isinstance(config, Mapping) else {}
    name = stored.get("registered_name") or stored.get("class_name")
    arguments = stored.get("config")
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise UnsupportedError(
            f"expected a layer's config with class_name and config, received {config!r:.120}"
        )
    cls = get(name)
    try:
        return cls.from_config(dict(arguments))
    except TypeError as error:
        if is_own(cls):
            raise
        raise ConfigError(
            f"layer class {name!r} cannot be made from its config: {error}; let its get_config "
            "return the arguments of its constructor, or write a from_config"
        ) from error


# ---- automatic names, counted as in Keras: lstm, lstm_1, lstm_2, but input_1, input_2

_session: Counter[str] = Counter()
_inside: ContextVar[Counter[str] | None] = ContextVar("names_inside", default=None)


def snake_case(class_name: str) -> str:
    """Return Keras's name for a class: SimpleRNN -> simple_rnn, Conv1D -> conv1d."""
    split = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", split).lower()


def unique(prefix: str, *, first: int = 0) -> str:
    """Return the next automatic name with this prefix, numbered from `first`; 0 is not shown."""
    inside = _inside.get()
    used = _session if inside is None else inside
    number = used[prefix] + first
    used[prefix] += 1
    return f"{prefix}_{number}" if number else prefix


def clear_session() -> None:
    """Reset the counters of automatic names. Existing layers and models keep their names."""
    _session.clear()


def counted_from_the_start() -> AbstractContextManager[None]:
    """Count automatic names in this block from the start, as a new process does.

    Names are part of a model's fingerprint, so in a model that a file describes they must not
    depend on earlier layers of the process.
    """
    return set_inside(_inside, Counter())
