"""Layers to configs and back.

A config is the dictionary that Keras 3 writes: ``{"class_name": …, "config": {…}}``, with
further keys that are not needed to read it. No module is imported and no code is run: a name that
is not in the registry is refused.
"""

from collections.abc import Mapping

from streamrnn.errors import ConfigError, DTypeError, UnsupportedError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import ConfigDict, StoredConfig


def register_layer(class_name: str, cls: type[Layer]) -> None:
    """Make configs with the name `class_name` build `cls`, a custom cell or layer.

    `class_name` is the name in the file, with or without its package (``"MyPackage>PeepholeLSTM"``
    or ``"PeepholeLSTM"``). Names of this package's layers cannot be used.
    """
    if not (isinstance(cls, type) and issubclass(cls, Layer)):
        raise DTypeError(
            f"register_layer({class_name!r}): expected a class derived from layers.Layer or "
            f"layers.Cell, received {cls!r}"
        )
    registry.custom_layer(class_name, cls)


def get(class_name: str) -> type[Layer]:
    """Return the class of this name (also written "package>Class").

    Raises UnsupportedError, with a similar name, for a class that is not in the registry.
    """
    return registry.class_of(class_name)


def serialize(layer: Layer) -> ConfigDict:
    """Return the config of a layer with its class name, as a model file holds it."""
    name = registry.registered_name(type(layer))
    if name is None:
        raise UnsupportedError(
            f"layer {layer.name!r}: class {type(layer).__name__} is not registered, so a file "
            "could not be read back; call "
            f"streamrnn.register_layer({type(layer).__name__!r}, …) first"
        )
    return {"class_name": name, "config": layer.get_config()}


def deserialize(config: StoredConfig) -> Layer:
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
        if registry.is_own(cls):
            raise
        raise ConfigError(
            f"layer class {name!r} cannot be made from its config: {error}; let its get_config "
            "return the arguments of its constructor, or write a from_config"
        ) from error
