"""[[model.layers]] as an architecture: a new model of it, or a comparison with a model."""

from collections.abc import Mapping
from typing import Any

from streamrnn.errors import ConfigError
from streamrnn.nn.formats.tables import LayerTable, Tables, parse
from streamrnn.nn.layers import Input, initializers, registry
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.naming import counted_from_the_start
from streamrnn.nn.layers.scaling import Rescaling
from streamrnn.nn.models import Model, Sequential
from streamrnn.nn.models.mixture import members_of

_IGNORED = {"name", "trainable", "batch_input_shape"}


def untrained(layers: Tables, features: int, seed: int) -> Sequential:
    """Return a model with initial weights of a seed, for an input of so many features per step.

    An Embedding, as the first layer, reads one id per step. Raises ConfigError for a table with
    `weights`.
    """
    tables = parse(layers)
    for table in tables:
        if table.weights is not None:
            raise ConfigError(
                f"{table}: weights = {table.weights!r} names arrays of a file, but fit makes the "
                "weights; remove it"
            )
    with counted_from_the_start(), initializers.seeded(seed):
        made = [table.make(table.config()) for table in tables]
        model = Sequential()
        if made[0].input_dtype != "float32":
            model.add(Input((None,), dtype=made[0].input_dtype))
        elif made[0].batch_input_shape is None:
            model.add(Input((None, features)))
        for layer in made:
            model.add(layer)
    return model


def check_layers(model: Model, layers: Tables) -> None:
    """Raise ConfigError unless a model has these layers with these arguments.

    It may have a Rescaling after them, to the scale of the target of a fit. Of several seeds as one
    model, each has these layers.
    """
    if members_of(model):
        model = members_of(model)[0]
    tables, present = parse(layers), model.layers
    if len(present) == len(tables) + 1 and isinstance(present[-1], Rescaling):
        present = present[:-1]
    if len(present) != len(tables):
        raise ConfigError(
            f"[[model.layers]] has {len(tables)} layers, the model file {len(present)}: "
            f"{', '.join(str(layer) for layer in present)}. {_ADVICE}"
        )
    for table, layer in zip(tables, present, strict=True):
        _check_layer(table, layer)


_ADVICE = "Correct the list, or remove it: a native file has its own layers"


def _check_layer(table: LayerTable, layer: Layer) -> None:
    if type(layer).__name__ != table.kind:
        raise ConfigError(
            f"{table}: the model file has a {type(layer).__name__} there ({layer.name!r}). "
            f"{_ADVICE}"
        )
    with counted_from_the_start():
        wanted: Mapping[str, Any] = table.make(table.config()).get_config()
    stored = layer.get_config()
    for key, value in wanted.items():
        given = key in table.arguments or key not in ("mean", "variance")
        if key not in _IGNORED and given and stored.get(key) != value:
            raise ConfigError(
                f"{table}: {key} is {value!r} here and {stored.get(key)!r} in the model file. "
                f"{_ADVICE}"
            )


def has_custom_layers() -> bool:
    """Return whether this process knows classes of layers that no other process does."""
    return registry.has_custom()
