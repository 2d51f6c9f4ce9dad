"""Weights as Keras 3 stores them: a tree of groups named by class, with a counter a class.

`layers/<class>[_n]/…/vars/<i>`; Keras 2.12 to 2.14 call the root `_layer_checkpoint_dependencies`.
The counters are those of the writer: before 2.14 they skipped numbers, so groups of a class are
taken in the order of their numbers. Newer files also say the layer's name, which is then trusted.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streamrnn.errors import ModelFileError
from streamrnn.formats.assignment import Assignment
from streamrnn.formats.keras.cudnn import as_keras
from streamrnn.formats.keras.h5 import Tree
from streamrnn.layers import InputLayer, StackedRNNCells
from streamrnn.layers.layer import Layer
from streamrnn.layers.naming import snake_case
from streamrnn.models import Model

ROOTS = ("layers", "_layer_checkpoint_dependencies")
NOT_WEIGHTS = ("optimizer", "metrics", "compile_metrics", "loss_tracker")
"""Groups at the root that matter to training only."""

Entry = Mapping[str, Any] | None


def placements(model: Model, config: Entry, tree: Tree) -> tuple[list[Assignment], list[str]]:
    """What each weight is read from, and the stored arrays that nothing reads.

    config: the file's own config, for the names of its classes and the order of its layers; None
    if there is none, then the model's layers are taken as they are.
    """
    placed = [Assignment(*found) for found in _Walk(tree).layer(model, config, "", "")]
    used = {each.source for each in placed}
    left = [name for name in tree.arrays if name not in used and not is_seed(name)]
    return placed, left


def from_group(layer: Layer, group: str, tree: Tree) -> list[Assignment]:
    """What the weights of one layer are read from, given its group."""
    return [Assignment(*found) for found in _Walk(tree).layer(layer, None, group, layer.name)]


def first_array(tree: Tree, layer: Layer, group: str) -> Any:
    """The first array of a layer's group, which tells how many features it reads; or None."""
    children = layer.children()
    if isinstance(layer, StackedRNNCells):
        root = _join(group, "cells")
        named = _numbered(tree.children(root), snake_case(type(layer.cells[0]).__name__))
        return first_array(tree, layer.cells[0], _join(root, named[0])) if named else None
    if children and not isinstance(layer, Model):
        key, child = next(iter(children.items()))
        return first_array(tree, child, _join(group, key))
    return tree.arrays.get(_join(group, "vars/0"))


def first_group(tree: Tree, layer: Layer) -> str | None:
    """The group of the first layer of this one's class, if it holds arrays."""
    root = next((name for name in ROOTS if name in tree.children("")), "")
    for name in _numbered(tree.children(root), snake_case(_file_class(layer))):
        if any(array.startswith(f"{root}/{name}/") for array in tree.arrays):
            return f"{root}/{name}"
    return None


def is_seed(path: str) -> bool:
    """The state of a random generator: Dropout's, and that of recurrent layers with dropout."""
    return any(part.startswith("seed_generator") for part in path.split("/"))


class _Walk:
    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def layer(
        self, layer: Layer, config: Entry, group: str, target: str
    ) -> Iterator[tuple[str, str, Any]]:
        """(source, target, array) of all weights of a layer whose group is known."""
        if isinstance(layer, Model):
            yield from self._model(layer, config, group, target)
            return
        children = layer.children()
        names = list(layer.named_weights())
        inner = sum(len(child.named_weights()) for child in children.values())
        arrays = []
        for i, name in enumerate(names[: len(names) - inner]):
            source = _join(group, f"vars/{i}")
            if source in self.tree.arrays:
                arrays.append((source, _join(target, name), self.tree.arrays[source]))
        values = as_keras(type(layer).__name__, [array for _, _, array in arrays])
        for (source, name, _), array in zip(arrays, values, strict=True):
            yield source, name, array
        if isinstance(layer, StackedRNNCells):
            yield from self._cells(layer, group, target)
            return
        for key, child in children.items():
            inside = group if _is_cudnn(config) else _join(group, key)
            yield from self.layer(child, _child(config, key), inside, _join(target, key))

    def _cells(
        self, layer: StackedRNNCells, group: str, target: str
    ) -> Iterator[tuple[str, str, Any]]:
        root = _join(group, "cells")
        classes = [(snake_case(type(cell).__name__), cell.name) for cell in layer.cells]
        groups = self._groups(root, classes)
        for i, (cell, found) in enumerate(zip(layer.cells, groups, strict=True)):
            if found is not None:
                yield from self.layer(cell, None, found, _join(target, str(i)))

    def _model(
        self, model: Model, config: Entry, group: str, target: str
    ) -> Iterator[tuple[str, str, Any]]:
        found_in_file = members(model, config)
        children = self.tree.children(group)
        root = next((name for name in ROOTS if name in children), None)
        if root is None:
            return
        found = self._groups(
            _join(group, root), [(snake_case(kind), layer.name) for layer, kind, _ in found_in_file]
        )
        for (layer, _, inner), where in zip(found_in_file, found, strict=True):
            if where is not None:
                yield from self.layer(layer, inner, where, _join(target, layer.name))

    def _groups(self, root: str, wanted: Sequence[tuple[str, str]]) -> list[str | None]:
        """The group of each (class, layer name) right under `root`; None where there is none."""
        children = self.tree.children(root)
        found: list[str | None] = [None] * len(wanted)
        for kind in {kind for kind, _ in wanted}:
            mine = [i for i, (other, _) in enumerate(wanted) if other == kind]
            groups = _numbered(children, kind)
            by_name = {self._layer_name(_join(root, group)): group for group in groups}
            names = [wanted[i][1] for i in mine]
            if len(by_name) == len(groups) and all(name in by_name for name in names):
                chosen = [by_name[name] for name in names]
            elif len(groups) <= len(mine):
                chosen = list(groups)
            else:
                raise ModelFileError(
                    f"the file has {len(groups)} layers of class {kind}, the model {len(mine)}"
                )
            for i, group in zip(mine, chosen, strict=False):
                found[i] = _join(root, group)
        return found

    def _layer_name(self, group: str) -> str | None:
        name = self.tree.attributes.get(_join(group, "vars"), {}).get("name")
        return name if isinstance(name, str) else None


def _is_cudnn(config: Entry) -> bool:
    """CuDNN's layers had no cell: their weights stand in the layer's own group."""
    return config is not None and str(config.get("class_name")).startswith("CuDNN")


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _numbered(children: Sequence[str], kind: str) -> list[str]:
    """The children called kind, kind_1, …, in the order of their numbers."""
    found = []
    for child in children:
        match = re.fullmatch(rf"{re.escape(kind)}(?:_(\d{{1,9}}))?", child)
        if match:
            found.append((int(match.group(1) or 0), child))
    return [child for _, child in sorted(found)]


def members(model: Model, config: Entry) -> list[tuple[Layer, str, Entry]]:
    """(layer, its class in the file, its config) in the order in which the file counts them."""
    own = [layer for layer in model.layers if not isinstance(layer, InputLayer)]
    if config is None:
        return [(layer, _file_class(layer), None) for layer in own]
    inner = config["config"]
    entries = inner["layers"] if isinstance(inner, Mapping) else inner
    entries = [entry for entry in entries if entry["class_name"] != "InputLayer"]
    by_name = {layer.name: layer for layer in own}
    if all(entry.get("name") in by_name for entry in entries):  # functional
        return [(by_name[entry["name"]], entry["class_name"], entry) for entry in entries]
    return [(layer, entry["class_name"], entry) for layer, entry in zip(own, entries, strict=True)]


def _file_class(layer: Layer) -> str:
    """What Keras calls our class: a functional Model is saved as Functional."""
    name = type(layer).__name__
    return "Functional" if name == "Model" else name


def _child(config: Entry, key: str) -> Entry:
    """The config of the layer inside a wrapper, if the config holds one."""
    inner = config.get("config") if config is not None else None
    if not isinstance(inner, Mapping):
        return None
    child = inner.get({"forward_layer": "layer"}.get(key, key))
    return child if isinstance(child, Mapping) else None
