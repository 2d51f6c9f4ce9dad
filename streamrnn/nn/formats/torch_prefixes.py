"""The prefixes of arrays: which one is meant by a table of [[model.layers]] that sets none."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError
from streamrnn.nn.formats.tables import LayerTable, layer_type
from streamrnn.nn.formats.torch_tables import (
    TensorShape,
    kinds_of,
    naturally_sorted,
    shapes_by_prefix,
)


def with_prefixes(
    tables: Sequence[LayerTable], arrays: Mapping[str, Array], kinds: Collection[str]
) -> list[LayerTable]:
    """Return the tables, those of `kinds` with a prefix that some arrays have.

    A table without one takes the only prefix whose arrays are of its type, or, of an nn.Sequential
    with as many of them as there are such tables, the next one. Raises ConfigError otherwise.
    """
    groups = shapes_by_prefix({name: array.shape for name, array in arrays.items()})
    given = {table.weights for table in tables if table.weights is not None}
    free = {prefix: shapes for prefix, shapes in groups.items() if prefix not in given}
    queues = {
        kind: _candidates(free, kind, sum(t.kind == kind and t.weights is None for t in tables))
        for kind in {table.kind for table in tables}
    }
    made = []
    for table in tables:
        if table.kind in kinds:
            queue = queues[table.kind]
            if table.weights is None and queue:
                table = replace(table, weights=queue.pop(0))
            _require(table, arrays)
        made.append(table)
    return made


def _candidates(groups: Mapping[str, dict[str, TensorShape]], kind: str, wanted: int) -> list[str]:
    """Return the prefixes of `wanted` layers of a type in their order; none if it is unknown."""
    found = [p for p, shapes in groups.items() if kind in map(layer_type, kinds_of(shapes))]
    if len(found) != wanted or (wanted > 1 and not _sequential(found)):
        return []
    return found


def _sequential(prefixes: Sequence[str]) -> bool:
    """Return whether these are the numbered members of one nn.Sequential."""
    parents = {prefix.rpartition(".")[0] for prefix in prefixes}
    return len(parents) == 1 and all(p.rpartition(".")[2].isdecimal() for p in prefixes)


def _require(table: LayerTable, arrays: Mapping[str, Array]) -> None:
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
