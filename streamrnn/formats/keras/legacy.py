"""Weights as legacy .h5 files store them: a list of arrays a layer, in the layer's own order."""

from collections.abc import Mapping, Sequence
from typing import Any

from streamrnn.errors import ModelFileError
from streamrnn.formats.assignment import Assignment
from streamrnn.formats.keras import keras1
from streamrnn.formats.keras.cudnn import as_keras
from streamrnn.formats.keras.h5 import Tree
from streamrnn.layers import InputLayer
from streamrnn.layers.layer import Layer
from streamrnn.models import Model

Array = tuple[str, Any]


def placements(
    model: Model, order: Sequence[Layer], tree: Tree
) -> tuple[list[Assignment], list[str]]:
    """What each weight is read from, and the stored arrays that nothing reads.

    order: the model's layers as the file counts them. tree: the group with `layer_names`. Layers
    are matched in order among those that have weights; names are accidents.
    """
    stored = [(name, _arrays(tree, name)) for name in _names(tree)]
    stored = [(name, arrays) for name, arrays in stored if arrays]
    wanted = [layer for layer in order if layer.named_weights()]
    if len(stored) != len(wanted):
        raise ModelFileError(
            f"the file has {len(stored)} layers with weights "
            f"({', '.join(name for name, _ in stored)}), the model has {len(wanted)} "
            f"({', '.join(layer.name for layer in wanted)})"
        )
    placed: list[Assignment] = []
    for layer, (name, arrays) in zip(wanted, stored, strict=True):
        placed += _layer(layer, name, arrays)
    used = {part for each in placed for part in each.source.split(" + ")}
    left = [name for name in tree.arrays if name not in used]
    return placed, left


def with_reset_after(config: Any, tree: Tree) -> Any:
    """The config with reset_after=True in each GRU that does not say, but has two rows of bias."""
    inner = config.get("config") if isinstance(config, Mapping) else None
    entries = inner.get("layers") if isinstance(inner, Mapping) else inner
    for entry in entries if isinstance(entries, list) else ():
        own = entry.get("config") if isinstance(entry, Mapping) else None
        if not isinstance(own, dict) or entry.get("class_name") != "GRU" or "reset_after" in own:
            continue
        arrays = _arrays(tree, str(own.get("name")))
        if len(arrays) == 3 and arrays[2][1].ndim == 2:
            own["reset_after"] = True
    return config


def layers_of(model: Model) -> list[Layer]:
    """The layers that can stand in a file, without inputs."""
    return [layer for layer in model.layers if not isinstance(layer, InputLayer)]


def stored_layers(tree: Tree) -> list[str]:
    """The names of the layers in the file that have arrays, in its order."""
    return [name for name in _names(tree) if _arrays(tree, name)]


def first_array(tree: Tree, group: str) -> Any:
    """The first array of a layer, or None."""
    return next((array for _, array in _arrays(tree, group)), None)


def from_group(layer: Layer, group: str, tree: Tree) -> list[Assignment]:
    """What the weights of one layer are read from, given its group."""
    return _layer(layer, group, _arrays(tree, group))


def _names(tree: Tree) -> list[str]:
    names = tree.attributes.get("", {}).get("layer_names")
    if not isinstance(names, list):
        raise ModelFileError("no layer_names: this is no weights file of Keras")
    return names


def _arrays(tree: Tree, layer: str) -> list[Array]:
    names = tree.attributes.get(layer, {}).get("weight_names", [])
    found = []
    for name in names if isinstance(names, list) else []:
        path = f"{layer}/{name}"
        if path not in tree.arrays:
            raise ModelFileError(f"layer {layer!r} names an array {name!r}, which is not stored")
        found.append((path, tree.arrays[path]))
    return found


def _layer(layer: Layer, name: str, arrays: list[Array]) -> list[Assignment]:
    leaves = _leaves(layer, layer.name)
    weights = sum(len(names) for _, names in leaves)
    if len(arrays) == weights:
        return _as_they_are(layer, arrays)
    gates = [keras1.ARRAYS.get(_cell_kind(leaf), len(names)) for leaf, names in leaves]
    if len(arrays) != sum(gates):
        raise ModelFileError(
            f"layer {name!r} has {len(arrays)} arrays, {layer} needs {weights}: "
            f"{', '.join(n for _, names in leaves for n in names)}"
        )
    placed: list[Assignment] = []
    for (leaf, names), count in zip(leaves, gates, strict=True):
        mine, arrays = arrays[:count], arrays[count:]
        if count == len(names):
            placed += [Assignment(s, t, a) for (s, a), t in zip(mine, names, strict=True)]
            continue
        joined = keras1.joined(_cell_kind(leaf), [array for _, array in mine])
        for i, (target, array) in enumerate(zip(names, joined, strict=True)):
            placed.append(Assignment(" + ".join(s for s, _ in mine[i::3]), target, array))
    return placed


def _as_they_are(layer: Layer, arrays: list[Array]) -> list[Assignment]:
    """Trainable weights first, then the others, as Keras lists a layer's weights."""
    targets = [f"{layer.name}/{name}" for name in layer.named_weights()]
    trains = [trains for _, _, trains in layer._holders()]
    order = sorted(range(len(targets)), key=lambda i: not trains[i])
    by_target = {targets[i]: array for i, array in zip(order, arrays, strict=True)}
    placed = []
    for leaf, names in _leaves(layer, layer.name):
        values = as_keras(type(leaf).__name__, [by_target[name][1] for name in names])
        placed += [
            Assignment(by_target[name][0], name, value)
            for name, value in zip(names, values, strict=True)
        ]
    return placed


def _leaves(layer: Layer, prefix: str) -> list[tuple[Layer, list[str]]]:
    """Each layer inside with weights of its own, and their names in the model."""
    children = layer.children()
    inside = [leaf for key, child in children.items() for leaf in _leaves(child, f"{prefix}/{key}")]
    names = list(layer.named_weights())
    own = names[: len(names) - sum(len(child.named_weights()) for child in children.values())]
    return [(layer, [f"{prefix}/{name}" for name in own]), *inside] if own else inside


def _cell_kind(leaf: Layer) -> str:
    return type(leaf).__name__.removesuffix("Cell")
