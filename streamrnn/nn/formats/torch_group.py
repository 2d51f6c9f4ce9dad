"""PyTorch's arrays under one prefix, and the choice of a prefix for tables without one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError, ModelFileError
from streamrnn.nn.formats.tables import LayerTable, layer_type
from streamrnn.nn.formats.torch_tables import (
    TensorShape,
    kinds_of,
    naturally_sorted,
    shapes_by_prefix,
)
from streamrnn.nn.layers.layer import Layer

Arrays = Mapping[str, Array]
TorchWeights = list[tuple[str, str, Array]]
"""(source, name of the weight in its layer, array)"""


@dataclass
class TorchLayer:
    """A layer, the sources of its weights, and its number of input features."""

    layer: Layer
    weights: TorchWeights
    features: int | None = None


class Group:
    """The arrays under one prefix, by the rest of their names; records which were used."""

    def __init__(self, table: LayerTable, arrays: Arrays) -> None:
        prefix = f"{table.weights}." if table.weights else ""
        self.table = table
        self.full = {n[len(prefix) :]: n for n in arrays if n.startswith(prefix)}
        self.arrays = arrays
        self.used: set[str] = set()

    def use(self, short: str, axes: int) -> Array:
        """Return an array and record its use.

        Raises ModelFileError if it is missing or does not have `axes` axes.
        """
        if short not in self.full:
            raise ModelFileError(
                f"{self.table}: array {self.name(short)!r} not found; arrays with this prefix: "
                f"{', '.join(self.full) or 'none'}"
            )
        array = self.arrays[self.full[short]]
        self.used.add(self.full[short])
        if array.ndim != axes:
            raise ModelFileError(
                f"{self.name(short)} has shape {array.shape}, expected {axes} axes for {self.table}"
            )
        return array

    def name(self, short: str) -> str:
        """Return the full name."""
        return self.full.get(
            short, f"{self.table.weights}.{short}" if self.table.weights else short
        )


def layer_name(group: Group, suffix: str = "") -> dict[str, str]:
    """Return the layer's name: the table's name, else its prefix."""
    base = group.table.arguments.get("name") or group.table.weights
    return {"name": f"{base}{suffix}"} if base else {}


def make(group: Group, implied: Mapping[str, object], suffix: str = "") -> Layer:
    """Build the layer with the arguments implied by its arrays.

    Raises ConfigError if the table contradicts them.
    """
    arguments = group.table.arguments
    for key, value in implied.items():
        if key not in ("epsilon", "return_sequences") and arguments.get(key, value) != value:
            raise ConfigError(
                f"{group.table}: {key} = {arguments[key]!r}, but the arrays imply {value!r}"
            )
    config = {**implied, **arguments, **layer_name(group, suffix)}
    return group.table.make({"class_name": group.table.kind, "config": config})


def with_prefixes(
    tables: Sequence[LayerTable], arrays: Arrays, kinds: Collection[str]
) -> list[LayerTable]:
    """Return the tables; tables of `kinds` get a prefix that some arrays have.

    A table without a prefix takes the only one whose arrays fit its type. Several such tables of
    one type take the prefixes that fit, in order, if there are as many, all in one nn.Sequential.
    Raises ConfigError otherwise.
    """
    groups = shapes_by_prefix({name: array.shape for name, array in arrays.items()})
    named = {table.weights for table in tables if table.weights is not None}
    free = {prefix: shapes for prefix, shapes in groups.items() if prefix not in named}
    queues = {
        kind: _candidates(free, kind, sum(t.kind == kind and t.weights is None for t in tables))
        for kind in {table.kind for table in tables}
    }
    complete = []
    for table in tables:
        if table.kind in kinds:
            queue = queues[table.kind]
            if table.weights is None and queue:
                table = replace(table, weights=queue.pop(0))
            _require(table, arrays)
        complete.append(table)
    return complete


def _candidates(groups: Mapping[str, dict[str, TensorShape]], kind: str, wanted: int) -> list[str]:
    """Return the prefixes of `wanted` layers of a type, in order; [] if the order is unknown.

    The order of several layers is known if all are numbered members of one nn.Sequential.
    """
    prefixes = [p for p, shapes in groups.items() if kind in map(layer_type, kinds_of(shapes))]
    parents = {prefix.rpartition(".")[0] for prefix in prefixes}
    numbered = all(prefix.rpartition(".")[2].isdecimal() for prefix in prefixes)
    if len(prefixes) != wanted or (wanted > 1 and not (len(parents) == 1 and numbered)):
        return []
    return prefixes


def _require(table: LayerTable, arrays: Arrays) -> None:
    prefixes = naturally_sorted({name.rpartition(".")[0] for name in arrays})
    listed = ", ".join(repr(prefix) for prefix in prefixes)
    if table.weights is None:
        raise ConfigError(
            f"{table}: set the prefix of its weights, for instance weights = {prefixes[0]!r}; the "
            f"file has the prefixes {listed}"
        )
    if table.weights and not any(name.startswith(f"{table.weights}.") for name in arrays):
        raise ConfigError(
            f"{table}: no array starts with {table.weights + '.'!r}; the file has the prefixes "
            f"{listed}"
        )
