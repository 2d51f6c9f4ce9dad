"""Weights of legacy .h5 files: a list of arrays per layer, in the layer's own order."""

from collections.abc import Mapping, Sequence

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError
from streamrnn.nn.formats.assignment import Assignment
from streamrnn.nn.formats.keras.earlier import as_keras, joined, row_of
from streamrnn.nn.formats.keras.h5 import Tree
from streamrnn.nn.layers import InputLayer
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.models import Model

Stored = tuple[str, Array]
"""A stored array and its path."""


def find_assignments(
    model: Model, order: Sequence[Layer], tree: Tree
) -> tuple[list[Assignment], list[str]]:
    """Return the array of each weight, and the unused stored arrays.

    order: the model's layers in the order of the file. tree: the group with `layer_names`. Layers
    with weights are matched by their order; names are ignored.
    """
    stored = [(name, _arrays(tree, name)) for name in _names(tree)]
    stored = [(name, arrays) for name, arrays in stored if arrays]
    layers = [layer for layer in order if layer.named_weights()]
    if len(stored) != len(layers):
        raise ModelFileError(
            f"the file has {len(stored)} layers with weights "
            f"({', '.join(name for name, _ in stored)}), the model has {len(layers)} "
            f"({', '.join(layer.name for layer in layers)})"
        )
    assignments: list[Assignment] = []
    for layer, (name, arrays) in zip(layers, stored, strict=True):
        assignments += _layer(layer, name, arrays)
    used = {part for assignment in assignments for part in assignment.source.split(" + ")}
    left = [name for name in tree.arrays if name not in used]
    return assignments, left


def with_reset_after(config: object, tree: Tree) -> object:
    """Set reset_after=True, in place, in each GRU without the key but with two rows of bias."""
    inner = config.get("config") if isinstance(config, Mapping) else None
    entries = inner.get("layers") if isinstance(inner, Mapping) else inner
    for entry in entries if isinstance(entries, list) else ():
        own = entry.get("config") if isinstance(entry, Mapping) else None
        if not isinstance(own, dict) or "reset_after" in own:
            continue
        row = row_of(str(entry.get("class_name")))
        if row is None or "reset_after" not in row.before_3:
            continue
        arrays = _arrays(tree, str(own.get("name")))
        if len(arrays) == 3 and arrays[2][1].ndim == 2:
            own["reset_after"] = True
    return config


def layers_of(model: Model) -> list[Layer]:
    """Return the layers that a file lists: all but the inputs."""
    return [layer for layer in model.layers if not isinstance(layer, InputLayer)]


def stored_layers(tree: Tree) -> list[str]:
    """Return the names of the layers in the file that have arrays, in its order."""
    return [name for name in _names(tree) if _arrays(tree, name)]


def first_array(tree: Tree, group: str) -> Array | None:
    """Return the first array of a layer, or None."""
    return next((array for _, array in _arrays(tree, group)), None)


def from_group(layer: Layer, group: str, tree: Tree) -> list[Assignment]:
    """Return the array of each weight of one layer, given its group."""
    return _layer(layer, group, _arrays(tree, group))


def _names(tree: Tree) -> list[str]:
    names = tree.attributes.get("", {}).get("layer_names")
    if not isinstance(names, list):
        raise ModelFileError("no layer_names: this is not a weights file of Keras")
    return names


def _arrays(tree: Tree, layer: str) -> list[Stored]:
    names = tree.attributes.get(layer, {}).get("weight_names", [])
    arrays = []
    for name in names if isinstance(names, list) else []:
        path = f"{layer}/{name}"
        if path not in tree.arrays:
            raise ModelFileError(f"layer {layer!r} lists an array {name!r}, which is not stored")
        arrays.append((path, tree.arrays[path]))
    return arrays


def _layer(layer: Layer, name: str, arrays: list[Stored]) -> list[Assignment]:
    leaves = _leaves(layer, layer.name)
    weights = sum(len(names) for _, names in leaves)
    if len(arrays) == weights:
        return _in_order(layer, arrays)
    orders = [_gate_orders(leaf) for leaf, _ in leaves]
    counts = [
        3 * len(theirs) or len(names)
        for (theirs, _), (_, names) in zip(orders, leaves, strict=True)
    ]
    if len(arrays) != sum(counts):
        raise ModelFileError(
            f"layer {name!r} has {len(arrays)} arrays, {layer} needs {weights}: "
            f"{', '.join(n for _, names in leaves for n in names)}"
        )
    assignments: list[Assignment] = []
    for (_, names), order, count in zip(leaves, orders, counts, strict=True):
        own, arrays = arrays[:count], arrays[count:]
        if count == len(names):
            assignments += [Assignment(s, t, a) for (s, a), t in zip(own, names, strict=True)]
            continue
        whole = joined(*order, [array for _, array in own])
        for i, (target, array) in enumerate(zip(names, whole, strict=True)):
            assignments.append(Assignment(" + ".join(s for s, _ in own[i::3]), target, array))
    return assignments


def _gate_orders(leaf: Layer) -> tuple[str, str]:
    """Return the gates of a cell in the order of Keras 1 ("" if as now), and in today's order."""
    row = row_of(type(leaf).__name__)
    return (row.keras_1, leaf.kind.gates) if row and isinstance(leaf, GatedCell) else ("", "")


def _in_order(layer: Layer, arrays: list[Stored]) -> list[Assignment]:
    """Assign the arrays in Keras's order of a layer's weights: trainable ones first."""
    targets = [f"{layer.name}/{name}" for name in layer.named_weights()]
    trains = [trains for _, _, trains in layer.holders()]
    order = sorted(range(len(targets)), key=lambda i: not trains[i])
    by_target = {targets[i]: array for i, array in zip(order, arrays, strict=True)}
    assignments = []
    for leaf, names in _leaves(layer, layer.name):
        values = as_keras(leaf, [by_target[name][1] for name in names])
        assignments += [
            Assignment(by_target[name][0], name, value)
            for name, value in zip(names, values, strict=True)
        ]
    return assignments


def _leaves(layer: Layer, prefix: str) -> list[tuple[Layer, list[str]]]:
    """Return each inner layer that has its own weights, with their names in the model."""
    children = layer.children()
    inside = [leaf for key, child in children.items() for leaf in _leaves(child, f"{prefix}/{key}")]
    names = list(layer.named_weights())
    own = names[: len(names) - sum(len(child.named_weights()) for child in children.values())]
    return [(layer, [f"{prefix}/{name}" for name in own]), *inside] if own else inside
