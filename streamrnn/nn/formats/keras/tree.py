"""Weights of Keras 3: a tree of groups named by class, with a counter per class.

`layers/<class>[_n]/…/vars/<i>`; Keras 2.12 to 2.14 call the root `_layer_checkpoint_dependencies`.
Counters of Keras before 2.14 skip numbers, so only the order of a class's numbers is used. Newer
files also store the layer's name, which then identifies the group.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError
from streamrnn.nn.formats.guard import Assignment
from streamrnn.nn.formats.keras.h5 import Tree
from streamrnn.nn.formats.keras.legacy import as_keras, own_weights
from streamrnn.nn.layers import InputLayer, IntegerLookup, StackedRNNCells, StringLookup
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import snake_case
from streamrnn.nn.models import Model

ROOTS = ("layers", "_layer_checkpoint_dependencies")
NOT_WEIGHTS = ("optimizer", "metrics", "compile_metrics", "loss_tracker")
"""Groups at the root that serve only training."""
OF_TOKENS = "vars/idf_weights"
"""The path, in a lookup's group, of the weights of its tokens."""

LayerEntry = Mapping[str, Any] | None
"""The config of a layer, as JSON, if the file has one."""


def find_assignments(
    model: Model, config: LayerEntry, tree: Tree
) -> tuple[list[Assignment], list[str]]:
    """Return the array of each weight, and the unused stored arrays.

    config: the file's config, which defines the names of classes and the order of layers; None to
    take both from the model.
    """
    assignments = list(_assignments(tree, model, config, "", ""))
    used = {assignment.source for assignment in assignments}
    left = [name for name in tree.arrays if name not in used and not is_seed(name)]
    return assignments, left


def from_group(layer: Layer, group: str, tree: Tree) -> list[Assignment]:
    """Return the array of each weight of one layer, given its group."""
    return list(_assignments(tree, layer, None, group, layer.name))


def written_arrays(model: Model) -> dict[str, dict[str, Array]]:
    """Return the arrays of each layer's group, by the paths at which Keras 3 reads them.

    A layer without weights has a group, too, as readers number the groups of a class.
    """
    weights = model.named_weights()
    groups: dict[str, dict[str, Array]] = {}
    for layer, group, places in _Layout().layers(model, None, "", ""):
        arrays = groups[group] = {path: weights[name] for path, name in places}
        if isinstance(layer, StringLookup | IntegerLookup) and layer.idf_weights is not None:
            arrays[f"{group}/{OF_TOKENS}"] = layer.weights_by_number(layer.idf_weights)
    return groups


def first_array(tree: Tree, layer: Layer, group: str | None) -> Array | None:
    """Return the first array of a layer's group; None if there is none.

    group: by default, the first group of the layer's class that has arrays.
    """
    if group is None:
        root = next((name for name in ROOTS if name in tree.children("")), "")
        names = _numbered(tree.children(root), snake_case(_file_class(layer)))
        groups = (f"{root}/{name}" for name in names)
        held = (g for g in groups if any(array.startswith(f"{g}/") for array in tree.arrays))
        if (group := next(held, None)) is None:
            return None
    children = layer.children()
    if isinstance(layer, StackedRNNCells):
        root = _join(group, "cells")
        named = _numbered(tree.children(root), snake_case(type(layer.cells[0]).__name__))
        return first_array(tree, layer.cells[0], _join(root, named[0])) if named else None
    if children and not isinstance(layer, Model):
        key, child = next(iter(children.items()))
        return first_array(tree, child, _join(group, key))
    return tree.arrays.get(_join(group, "vars/0"))


def is_seed(path: str) -> bool:
    """Return whether an array is the state of a random generator (of dropout)."""
    return any(part.startswith("seed_generator") for part in path.split("/"))


def _assignments(
    tree: Tree, layer: Layer, config: LayerEntry, group: str, target: str
) -> Iterator[Assignment]:
    """Yield the array of each weight of a layer, given its group; missing arrays are skipped."""
    for cell, _, places in _Stored(tree).layers(layer, config, group, target):
        stored = [(source, name) for source, name in places if source in tree.arrays]
        arrays = as_keras(cell, [tree.arrays[source] for source, _ in stored])
        for (source, name), array in zip(stored, arrays, strict=True):
            yield Assignment(source, name, array)


class _Layout:
    """The path of each weight's array, as Keras 3 reads it.

    Layers of one class are numbered in their order: dense, dense_1, …
    """

    def root(self, group: str) -> str | None:
        """Return the group of a model's layers inside the model's group; None if there is none."""
        return ROOTS[0]

    def groups(self, root: str, layers: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return, for each (class, layer name), the group directly under `root`, or None."""
        seen: Counter[str] = Counter()
        groups: list[str | None] = []
        for kind, _ in layers:
            groups.append(_join(root, f"{kind}_{seen[kind]}" if seen[kind] else kind))
            seen[kind] += 1
        return groups

    def inside(self, group: str, key: str) -> str:
        """Return the group of a layer in an attribute of another."""
        return _join(group, key)

    def layers(
        self, layer: Layer, config: LayerEntry, group: str, target: str
    ) -> Iterator[tuple[Layer, str, list[tuple[str, str]]]]:
        """Yield each layer that may have weights, its group, and (path, name) of each weight."""
        if isinstance(layer, Model):
            root = self.root(group)
            if root is None:
                return
            inside = [
                (child, kind, child.name, entry) for child, kind, entry in members(layer, config)
            ]
        else:
            places = enumerate(own_weights(layer))
            own = [(_join(group, f"vars/{i}"), _join(target, name)) for i, name in places]
            yield layer, group, own
            if not isinstance(layer, StackedRNNCells):
                # A CuDNN layer has no cell: its weights are in its own group.
                is_cudnn = config is not None and str(config.get("class_name")).startswith("CuDNN")
                for key, child in layer.children().items():
                    within = group if is_cudnn else self.inside(group, key)
                    yield from self.layers(child, _child(config, key), within, _join(target, key))
                return
            root = "cells"
            inside = [
                (cell, type(cell).__name__, str(i), None) for i, cell in enumerate(layer.cells)
            ]
        classes = [(snake_case(kind), child.name) for child, kind, _, _ in inside]
        groups = self.groups(_join(group, root), classes)
        for (child, _, key, entry), path in zip(inside, groups, strict=True):
            if path is not None:
                yield from self.layers(child, entry, path, _join(target, key))


class _Stored(_Layout):
    """The layout of a file, in which groups may be missing."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def root(self, group: str) -> str | None:
        children = self.tree.children(group)
        return next((name for name in ROOTS if name in children), None)

    def groups(self, root: str, layers: Sequence[tuple[str, str]]) -> list[str | None]:
        children = self.tree.children(root)
        paths: list[str | None] = [None] * len(layers)
        for kind in {kind for kind, _ in layers}:
            indices = [i for i, (other, _) in enumerate(layers) if other == kind]
            groups = _numbered(children, kind)
            by_name = {self._layer_name(_join(root, group)): group for group in groups}
            names = [layers[i][1] for i in indices]
            if len(by_name) == len(groups) and all(name in by_name for name in names):
                chosen = [by_name[name] for name in names]
            elif len(groups) <= len(indices):
                chosen = list(groups)
            else:
                raise ModelFileError(
                    f"the file has {len(groups)} layers of class {kind}, but the model has "
                    f"{len(indices)}"
                )
            for i, group in zip(indices, chosen, strict=False):
                paths[i] = _join(root, group)
        return paths

    def inside(self, group: str, key: str) -> str:
        private = f"_{key}"  # what the attributes of MultiHeadAttention were called at first
        return _join(group, private if private in self.tree.children(group) else key)

    def _layer_name(self, group: str) -> str | None:
        name = self.tree.attributes.get(_join(group, "vars"), {}).get("name")
        return name if isinstance(name, str) else None


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _numbered(children: Sequence[str], kind: str) -> list[str]:
    """Return the children named kind, kind_1, …, in the order of their numbers."""
    numbered = []
    for child in children:
        match = re.fullmatch(rf"{re.escape(kind)}(?:_(\d{{1,9}}))?", child)
        if match:
            numbered.append((int(match.group(1) or 0), child))
    return [child for _, child in sorted(numbered)]


def members(model: Model, config: LayerEntry) -> list[tuple[Layer, str, LayerEntry]]:
    """Return (layer, its class in the file, its config) in the order of the file."""
    own = [layer for layer in model.layers if not isinstance(layer, InputLayer)]
    if config is None:
        return [(layer, _file_class(layer), None) for layer in own]
    inner = config["config"]
    entries = inner["layers"] if isinstance(inner, Mapping) else inner
    entries = [entry for entry in entries if entry["class_name"] != "InputLayer"]
    by_name = {layer.name: layer for layer in own}
    if all("inbound_nodes" in entry for entry in entries):  # functional
        # A Split is several layers, none of its name.
        named = [entry for entry in entries if entry.get("name") in by_name]
        return [(by_name[entry["name"]], entry["class_name"], entry) for entry in named]
    return [(layer, entry["class_name"], entry) for layer, entry in zip(own, entries, strict=True)]


def _file_class(layer: Layer) -> str:
    """Return Keras's name of a class: a functional Model is saved as Functional."""
    name = type(layer).__name__
    return "Functional" if name == "Model" else name


def _child(config: LayerEntry, key: str) -> LayerEntry:
    """Return the config of the layer inside a wrapper, or None."""
    inner = config.get("config") if config is not None else None
    if not isinstance(inner, Mapping):
        return None
    child = inner.get({"forward_layer": "layer"}.get(key, key))
    return child if isinstance(child, Mapping) else None
