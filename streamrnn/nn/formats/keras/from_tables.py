"""Keras's file formats; files with only weights are read with tables of the layers."""

import re
from collections.abc import Sequence
from pathlib import Path

from streamrnn.errors import ConfigError, UnsupportedError
from streamrnn.nn.formats.assignment import Assignment, Loaded, ModelFormat, assign_weights
from streamrnn.nn.formats.guard import Budget
from streamrnn.nn.formats.keras import legacy, tree
from streamrnn.nn.formats.keras.config import WrittenBy, translate
from streamrnn.nn.formats.keras.earlier import row_of
from streamrnn.nn.formats.keras.h5 import Tree
from streamrnn.nn.formats.keras.load import load_keras, load_weights, stored_weights
from streamrnn.nn.formats.tables import LayerTable, Tables, parse, stack
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.layer import Layer


def load_with_tables(path: Path, tables: Sequence[LayerTable]) -> Loaded:
    """Build a Sequential from the tables' layers, with the weights of an .h5 file.

    Weights are assigned in order, or from the groups that the tables name (`weights`: the layer's
    name in a legacy file, else a group such as "layers/lstm_1"). In the latter case the file may
    contain more.
    """
    stored, is_legacy = stored_weights(path)
    origin = WrittenBy(str(stored.attributes.get("", {}).get("keras_version", "3")))
    with initializers.replaced_by(Budget(stored.size).zeros):
        layers = [_layer(table, origin) for table in tables]
    for table in tables:
        _require_group(table, stored)
    features = _features(layers, tables, stored, is_legacy)
    model = stack(layers, features, stored.size)
    named = any(table.weights is not None for table in tables)
    if not named:
        find = legacy.find_assignments(model, legacy.layers_of(model), stored) if is_legacy else (
            tree.find_assignments(model, None, stored)
        )  # fmt: skip
        return Loaded(model, assign_weights(model, *find))
    assignments: list[Assignment] = []
    for layer, table in zip(layers, tables, strict=True):
        if table.weights is not None:
            assignments += _from_group(layer, table, stored, is_legacy)
    used = {part for assignment in assignments for part in assignment.source.split(" + ")}
    left = [name for name in stored.arrays if name not in used and not tree.is_seed(name)]
    return Loaded(model, assign_weights(model, assignments), left)


def _layer(table: LayerTable, origin: WrittenBy) -> Layer:
    config = table.config()
    row, key = row_of(table.kind), "recurrent_activation"
    if row and key in row.before_3 and key not in table.arguments and _is_old(origin):
        raise UnsupportedError(
            f"{table}: the file was written by Keras {origin.version}, in which "
            'recurrent_activation was "hard_sigmoid" by default ("sigmoid" from 2.3 on): set '
            "recurrent_activation"
        )
    return table.make(translate(config, origin))


def _is_old(origin: WrittenBy) -> bool:
    minor = re.match(r"2\.(\d+)", origin.version)
    return origin.major < 2 or (minor is not None and int(minor.group(1)) < 3)


def _features(
    layers: Sequence[Layer], tables: Sequence[LayerTable], stored: Tree, is_legacy: bool
) -> int | None:
    """Return the number of input features, from the first array of the first layer with weights."""
    for layer, table in zip(layers, tables, strict=True):
        group = table.weights
        if group is None and is_legacy:
            group = next(iter(legacy.stored_layers(stored)), None)
        elif group is None:
            group = tree.first_group(stored, layer)
        if group is None:
            continue
        array = (
            legacy.first_array(stored, group) if is_legacy
            else tree.first_array(stored, layer, group)
        )  # fmt: skip
        if array is not None and array.ndim:
            return int(array.shape[1] if array.ndim == 3 else array.shape[0])
    return None


def _from_group(layer: Layer, table: LayerTable, stored: Tree, is_legacy: bool) -> list[Assignment]:
    group = str(table.weights)
    if is_legacy:
        return legacy.from_group(layer, group, stored)
    return tree.from_group(layer, group, stored)


def _require_group(table: LayerTable, stored: Tree) -> None:
    start = f"{table.weights}/"
    if table.weights is not None and not any(name.startswith(start) for name in stored.arrays):
        raise ConfigError(
            f"{table}: no group {table.weights!r} with arrays; groups in the file: "
            f"{', '.join(sorted({_group_of(name) for name in stored.arrays}))}"
        )


def _group_of(array: str) -> str:
    parts = array.split("/")
    return "/".join(parts[:2]) if parts[0] in tree.ROOTS else parts[0]


def _hdf5(path: Path, layers: Tables | None) -> Loaded:
    return load_keras(path) if layers is None else load_with_tables(path, parse(layers))


KERAS = ModelFormat(load_keras, load_weights)
HDF5 = ModelFormat(_hdf5, load_weights, takes=("layers",))
