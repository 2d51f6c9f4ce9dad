"""[[model.layers]] as an architecture: build a new model from it, or compare a model with it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamrnn.base.display import closest
from streamrnn.errors import ConfigError
from streamrnn.nn.formats.tables import LayerTable, Tables, parse, stack
from streamrnn.nn.layers import Concatenate, Embedding, Input, initializers
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import counted_from_the_start
from streamrnn.nn.layers.scaling import Normalization, Rescaling
from streamrnn.nn.models import Model
from streamrnn.nn.models.mixture import members_of

_IGNORED = {"name", "trainable", "batch_input_shape"}
_ADVICE = "Correct the list, or remove it: a native file has its own layers"
_EMBED = "embed"
"""The name of the layer that joins embedded ids, and the prefix of the embeddings' names."""


class EmbeddedIds(NamedTuple):
    """A feature with `ids` distinct ids, each embedded as a vector of `width` numbers."""

    feature: str
    ids: int
    width: int


def inputs_of(features: Sequence[str], embedded: Sequence[str]) -> dict[str, list[str]]:
    """Return the features of each input of a model that `untrained` returns.

    `embedded`: the features that are ids, each with an input of its own.

    >>> inputs_of(["distance", "carrier"], ["carrier"])
    {'input': ['distance'], 'carrier_ids': ['carrier']}
    """
    plain = [name for name in features if name not in embedded]
    ids = {f"{name}_ids": [name] for name in embedded}
    return {**({"input": plain} if plain else {}), **ids}


def embedded_ids(model: Model) -> list[EmbeddedIds]:
    """Return the ids that a model made by `untrained` embeds in front of its layers."""
    model = (members_of(model) or [model])[0]
    head = f"{_EMBED}_"
    return [
        EmbeddedIds(layer.name.removeprefix(head), layer.input_dim, layer.output_dim)
        for layer in model.layers
        if isinstance(layer, Embedding) and layer.name.startswith(head)
    ]


def untrained(
    layers: Tables, features: int, seed: int, embedded: Sequence[EmbeddedIds] = ()
) -> Model:
    """Return a model with initial weights from a seed, for inputs of `features` features per step.

    An Embedding, as the first layer, reads one id per step. A layer reads the layer before it, or
    its `inputs`: names of earlier layers, or "input", the features. `embedded` ids are not counted
    in `features`: their vectors are joined to the features before the first layer, or after it if
    it is a Normalization of the features. Raises ConfigError for a table with `weights`, for
    `inputs` that no earlier layer has, and for a layer that no layer reads.
    """
    tables = parse(layers, graph=True)
    for table in tables:
        if table.weights is not None:
            raise ConfigError(
                f"{table}: weights = {table.weights!r} names arrays of a file, but fit makes the "
                "weights; remove the key"
            )
    with counted_from_the_start(), initializers.seeded(seed):
        in_order = [table.make() for table in tables]
        if embedded and in_order[0].input_dtype != "float32":
            raise ConfigError(
                f"{tables[0]}: it reads ids, but receives the numbers that `embed` in [source] "
                "features makes of them; remove the layer, or `embed`"
            )
        if embedded or any(table.inputs for table in tables):
            return _graph(tables, in_order, features, embedded)
        return stack(in_order, features)


def _graph(
    tables: list[LayerTable], layers: list[Layer], features: int, embedded: Sequence[EmbeddedIds]
) -> Model:
    """Connect the layers by their inputs; a first Normalization reads the features, if any."""
    numbers = [Input((None, features), name="input")] if features else []
    ids = [Input((None,), dtype="int64", name=f"{of.feature}_ids") for of in embedded]
    vectors = [
        Embedding(of.ids, of.width, name=f"{_EMBED}_{of.feature}")(symbol)
        for of, symbol in zip(embedded, ids, strict=True)
    ]
    normalizes = bool(numbers) and isinstance(layers[0], Normalization)
    last: Any = numbers[0] if numbers else None
    if vectors and not normalizes:
        last = Concatenate(name=_EMBED)([*numbers, *vectors])
    outputs, previous = {"input": last}, "input"
    read: set[str] = set()
    for table, layer in zip(tables, layers, strict=True):
        if unknown := [name for name in table.inputs if name not in outputs]:
            near = closest(unknown[0], outputs)
            raise ConfigError(
                f"{table}: inputs: no layer before it has the name {unknown[0]!r}"
                + (f". Did you mean {near!r}?" if near else f"; the names are {', '.join(outputs)}")
            )
        if layer.name in outputs:
            raise ConfigError(
                f"{table}: a layer before it already has the name {layer.name!r}: set another name"
            )
        sources = [outputs[name] for name in table.inputs or [previous]]
        read.update(table.inputs or [previous])
        last = layer(sources if len(sources) > 1 else sources[0])
        if vectors and normalizes and layer is layers[0]:
            last = Concatenate(name=_EMBED)([last, *vectors])
        previous = layer.name
        outputs[previous] = last
    if left := [name for name in outputs if name not in read | {previous}]:
        raise ConfigError(
            f"[[model.layers]]: no layer reads {left[0]!r}: name it in the inputs of a later "
            "layer, or remove it"
        )
    inputs = [*numbers, *ids]
    return Model(inputs if embedded else inputs[0], last)


def check_layers(model: Model, layers: Tables) -> None:
    """Raise ConfigError unless a model has these layers with these arguments.

    The model may embed ids in front of these layers, and may end with up to two more Rescalings,
    which a fit adds: one to the scale of its target, one for its calibration. Of a model of several
    seeds, the first member is compared.
    """
    model = (members_of(model) or [model])[0]
    tables, present = parse(layers, graph=True), model.layers
    if any(table.inputs for table in tables):
        present = _in_order(tables, layers, model)
    elif embedded := embedded_ids(model):
        front = {_EMBED, *(f"{_EMBED}_{of.feature}" for of in embedded)}
        front |= {symbol.name for symbol in model.inputs}
        present = [layer for layer in present if layer.name not in front]
    for _ in range(2):
        if len(present) > len(tables) and isinstance(present[-1], Rescaling):
            present = present[:-1]
    if len(present) != len(tables):
        raise ConfigError(
            f"[[model.layers]] has {len(tables)} layers, but the model file has {len(present)}: "
            f"{', '.join(str(layer) for layer in present)}. {_ADVICE}"
        )
    for table, layer in zip(tables, present, strict=True):
        kind, stored = type(layer).__name__, layer.get_config()
        if kind != table.kind:
            raise ConfigError(
                f"{table}: the model file has a {kind} there ({layer.name!r}). {_ADVICE}"
            )
        with counted_from_the_start():
            wanted = table.make().get_config()
        for key, value in wanted.items():
            compared = key in table.arguments or key not in ("mean", "variance")
            if key not in _IGNORED and compared and stored.get(key) != value:
                raise ConfigError(
                    f"{table}: {key} is {value!r} here and {stored.get(key)!r} in the model file. "
                    f"{_ADVICE}"
                )


def _in_order(tables: list[LayerTable], layers: Tables, model: Model) -> list[Layer]:
    """Return the layers of a model in the order of the tables.

    Raises ConfigError if the tables give the layers other names or inputs.
    """
    embedded, first = embedded_ids(model), model.inputs[0]
    size = 0 if embedded and first.name != "input" else first.shape[-1]
    wires = _wires(untrained(layers, 1 if size is None else size, 0, embedded))
    for layer in model.layers:
        if isinstance(layer, Rescaling) and layer.name not in wires:
            wires[layer.name] = [*wires][-1:]
    if _wires(model) != wires:
        raise ConfigError(
            "[[model.layers]]: the layers of the model file have other names or inputs: "
            f"{', '.join(str(layer) for layer in model.layers)}. {_ADVICE}"
        )
    with counted_from_the_start():
        names = [table.make().name for table in tables]
    return [model.get_layer(name) for name in names]


def _wires(model: Model) -> dict[str, list[str]]:
    """Return each layer's name -> names of the layers that it reads; the output's layer is last."""
    wires = {
        node.layer.name: [symbol.name for symbol in node.symbols] for node in model.graph.nodes
    }
    output = model.graph.outputs[0].name
    wires[output] = wires.pop(output)
    return wires
