"""Keras's weights-only files, with tables that say what the layers are."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamrnn.errors import ConfigError, UnsupportedError
from streamrnn.formats.guard import Budget
from streamrnn.formats.keras import legacy, tree
from streamrnn.formats.keras.config import Origin, translate
from streamrnn.formats.keras.h5 import Tree
from streamrnn.formats.keras.load import stored_weights
from streamrnn.formats.placing import Loaded, Placed, place
from streamrnn.formats.tables import Table, stack
from streamrnn.layers import initializers
from streamrnn.layers.layer import Layer

_GATED = ("GRU", "LSTM", "GRUCell", "LSTMCell")


def load(path: Path, tables: Sequence[Table]) -> Loaded:
    """A Sequential of the tables' layers with the weights of an .h5 file.

    Layers take their weights in order; or each from the group that its table names (`weights`: the
    layer's name in a legacy file, else a group such as "layers/lstm_1"), and then the file may hold
    more.
    """
    stored, is_legacy = stored_weights(path)
    origin = Origin(stored.attributes.get("", {}).get("keras_version", "3"))
    with initializers.replaced_by(Budget(stored.size).zeros):
        layers = [_layer(table, origin) for table in tables]
    named = [table for table in tables if table.weights is not None]
    if named:
        groups = [table.weights for table in tables]
    else:
        groups = _groups_in_order(layers, stored, is_legacy)
    first = next((group for group in groups if group is not None), None)
    model = stack(layers, _features(stored, first), stored.size)
    if not named:
        find = legacy.placements(model, legacy.layers_of(model), stored) if is_legacy else (
            tree.placements(model, None, stored)
        )  # fmt: skip
        return Loaded(model, place(model, *find))
    placed: list[Placed] = []
    for layer, table in zip(layers, tables, strict=True):
        if table.weights is not None:
            placed += _from_group(layer, table, stored, is_legacy)
    used = {part for each in placed for part in each.source.split(" + ")}
    left = [name for name in stored.arrays if name not in used and not tree.is_seed(name)]
    return Loaded(model, place(model, placed), left)


def _layer(table: Table, origin: Origin) -> Layer:
    config = table.config()
    if table.kind in _GATED and "recurrent_activation" not in table.arguments and _is_old(origin):
        raise UnsupportedError(
            f"{table}: the file was written by Keras {origin.version}, in which "
            'recurrent_activation was "hard_sigmoid" by default, and "sigmoid" from 2.3 on: say '
            "which"
        )
    return table.make(translate(config, origin))


def _is_old(origin: Origin) -> bool:
    minor = re.match(r"2\.(\d+)", origin.version)
    return origin.major < 2 or (minor is not None and int(minor.group(1)) < 3)


def _groups_in_order(layers: Sequence[Layer], stored: Tree, is_legacy: bool) -> list[str | None]:
    """The group that the first layer with weights will read; only that one is needed."""
    if is_legacy:
        names = legacy.stored_layers(stored)
        return [names[0] if names else None]
    for layer in layers:
        if group := tree.first_group(stored, layer):
            return [group]
    return [None]


def _features(stored: Tree, group: str | None) -> int | None:
    """How many features the layer in this group reads, by the shape of its first array."""
    if group is None:
        return None
    arrays = _below(stored, group)
    if not arrays:
        return None
    first = min(arrays, key=lambda name: ("backward" in name, "recurrent" in name, name))
    if names := stored.attributes.get(group, {}).get("weight_names"):
        first = f"{group}/{names[0]}"
    shape = arrays[first].shape if first in arrays else ()
    return None if not shape else int(shape[1] if len(shape) == 3 else shape[0])


def _below(stored: Tree, group: str) -> dict[str, Any]:
    return {name: a for name, a in stored.arrays.items() if name.startswith(f"{group}/")}


def _from_group(layer: Layer, table: Table, stored: Tree, is_legacy: bool) -> list[Placed]:
    group = str(table.weights)
    if not _below(stored, group):
        raise ConfigError(
            f"{table}: there is no group {group!r} with arrays; there are "
            f"{', '.join(sorted({_group_of(name) for name in stored.arrays}))}"
        )
    if is_legacy:
        return legacy.from_group(layer, group, stored)
    return tree.from_group(layer, group, stored)


def _group_of(array: str) -> str:
    parts = array.split("/")
    return "/".join(parts[:2]) if parts[0] in tree.ROOTS else parts[0]
