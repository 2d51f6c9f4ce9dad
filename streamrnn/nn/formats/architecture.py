"""[[model.layers]] as an architecture: a new model of it, or a comparison with a model."""

from collections.abc import Mapping
from typing import Any

from streamrnn.base.display import closest
from streamrnn.errors import ConfigError
from streamrnn.nn.formats.tables import LayerTable, Tables, parse
from streamrnn.nn.layers import Input, initializers, registry
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.naming import counted_from_the_start
from streamrnn.nn.layers.scaling import Rescaling
from streamrnn.nn.models import Model, Sequential
from streamrnn.nn.models.mixture import members_of

_IGNORED = {"name", "trainable", "batch_input_shape"}


def untrained(layers: Tables, features: int, seed: int) -> Model:
    """Return a model with initial weights of a seed, for an input of so many features per step.

    An Embedding, as the first layer, reads one id per step. A layer reads the one before it, or its
    `inputs`: names of earlier layers, or "input", the features. Raises ConfigError for a table with
    `weights`, and for a name that no earlier layer has.
    """
    tables = parse(layers, graph=True)
    for table in tables:
        if table.weights is not None:
            raise ConfigError(
                f"{table}: weights = {table.weights!r} names arrays of a file, but fit makes the "
                "weights; remove it"
            )
    with counted_from_the_start(), initializers.seeded(seed):
        stack = [table.make(table.config()) for table in tables]
        if any(table.inputs for table in tables):
            return _graph(tables, stack, features)
        model = Sequential()
        if stack[0].input_dtype != "float32":
            model.add(Input((None,), dtype=stack[0].input_dtype))
        elif stack[0].batch_input_shape is None:
            model.add(Input((None, features)))
        for layer in stack:
            model.add(layer)
    return model


def _graph(tables: list[LayerTable], layers: list[Layer], features: int) -> Model:
    """Connect the layers by their inputs."""
    first = last = Input((None, features), name="input")
    outputs: dict[str, Any] = {"input": first}
    read: set[str] = set()
    for table, layer in zip(tables, layers, strict=True):
        if unknown := [name for name in table.inputs if name not in outputs]:
            near = closest(unknown[0], outputs)
            raise ConfigError(
                f"{table}: inputs: no layer before it has the name {unknown[0]!r}"
                + (f". Did you mean {near!r}?" if near else f": {', '.join(outputs)}")
            )
        if layer.name in outputs:
            raise ConfigError(
                f"{table}: a layer before it has its name, {layer.name!r}, too: set name"
            )
        read.update(table.inputs or [last.name])
        sources = [outputs[name] for name in table.inputs]
        last = layer(sources if len(sources) > 1 else sources[0] if sources else last)
        outputs[layer.name] = last
    if left := [name for name in outputs if name not in read | {last.name}]:
        raise ConfigError(
            f"[[model.layers]]: no layer reads {left[0]!r}: name it in the inputs of a later one, "
            "or remove it"
        )
    return Model(first, last)


def check_layers(model: Model, layers: Tables) -> None:
    """Raise ConfigError unless a model has these layers with these arguments.

    It may have a Rescaling after them, to the scale of the target of a fit. Of several seeds as one
    model, each has these layers.
    """
    if members_of(model):
        model = members_of(model)[0]
    tables, present = parse(layers, graph=True), model.layers
    if any(table.inputs for table in tables):
        present = _in_order(tables, layers, model)
    if len(present) == len(tables) + 1 and isinstance(present[-1], Rescaling):
        present = present[:-1]
    if len(present) != len(tables):
        raise ConfigError(
            f"[[model.layers]] has {len(tables)} layers, the model file {len(present)}: "
            f"{', '.join(str(layer) for layer in present)}. {_ADVICE}"
        )
    for table, layer in zip(tables, present, strict=True):
        _check_layer(table, layer)


def _in_order(tables: list[LayerTable], layers: Tables, model: Model) -> list[Layer]:
    """Return the layers of a model in the order of the tables, which connect them.

    Raises ConfigError if they are connected in another way.
    """
    size = model.inputs[0].shape[-1]
    wires = _wires(untrained(layers, 1 if size is None else size, 0))
    *_, last = model.layers
    if _wires(model) != wires | ({last.name: [*wires][-1:]} if isinstance(last, Rescaling) else {}):
        raise ConfigError(
            "[[model.layers]]: the layers of the model file have other names or inputs: "
            f"{', '.join(str(layer) for layer in model.layers)}. {_ADVICE}"
        )
    with counted_from_the_start():
        names = [table.make(table.config()).name for table in tables]
    return [model.get_layer(name) for name in names]


def _wires(model: Model) -> dict[str, list[str]]:
    """Return the layers that each layer reads, by name; the last one makes the output."""
    names = {
        node.layer.name: [symbol.name for symbol in node.symbols] for node in model.graph.nodes
    }
    output = model.graph.outputs[0].name
    return {name: reads for name, reads in names.items() if name != output} | {
        output: names[output]
    }


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
        compared = key in table.arguments or key not in ("mean", "variance")
        if key not in _IGNORED and compared and stored.get(key) != value:
            raise ConfigError(
                f"{table}: {key} is {value!r} here and {stored.get(key)!r} in the model file. "
                f"{_ADVICE}"
            )


def has_custom_layers() -> bool:
    """Return whether this process knows classes of layers that no other process does."""
    return registry.has_custom()
