"""What differs between two state tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pyarrow as pa

from streamrnn.errors import StateError
from streamrnn.states.keys import KeyIndex


@dataclass
class StateDiff:
    """Streams only in one table, and those whose rows differ, with the columns that do."""

    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)
    same: int = 0

    def __bool__(self) -> bool:
        return bool(self.only_a or self.only_b or self.changed)


def diff(a: pa.Table, b: pa.Table) -> StateDiff:
    """Compare two state tables stream by stream, bit for bit.

    Raises StateError if their keys or columns differ.
    """
    names = key_names(a)
    if a.schema.names != b.schema.names or names != key_names(b):
        raise StateError(
            f"the tables have other columns.\n  a: {', '.join(a.schema.names)}\n"
            f"  b: {', '.join(b.schema.names)}"
        )
    for x, y in zip(a.schema, b.schema, strict=True):
        if x.type != y.type:
            raise StateError(f"column {x.name!r}: {x.type} in a, {y.type} in b")
    index = KeyIndex([a.schema.field(n) for n in names])
    in_a = index.find(_keys(a, names)).tolist()
    in_b = index.find(_keys(b, names)).tolist()
    row_b = {slot: row for row, slot in enumerate(in_b)}
    result = StateDiff(only_b=[key_text(b, r) for s, r in row_b.items() if s >= len(in_a)])
    others = [n for n in a.schema.names if n not in names]
    common = [(row, row_b[slot]) for row, slot in enumerate(in_a) if slot in row_b]
    result.only_a = [key_text(a, row) for row, slot in enumerate(in_a) if slot not in row_b]
    left = a.take(pa.array([x for x, _ in common], pa.int64())).combine_chunks()
    right = b.take(pa.array([y for _, y in common], pa.int64())).combine_chunks()
    columns = {n: (left.column(n).to_pylist(), right.column(n).to_pylist()) for n in others}
    for i, (row, _) in enumerate(common):
        unlike = [n for n, (x, y) in columns.items() if x[i] != y[i]]
        if unlike:
            result.changed[key_text(a, row)] = unlike
        else:
            result.same += 1
    return result


def key_names(table: pa.Table) -> list[str]:
    """The key columns of a state table. Raises StateError if it is none."""
    metadata = table.schema.metadata or {}
    if b"streamrnn.keys" not in metadata:
        raise StateError("not a state table: its schema has no metadata of streamrnn")
    names: list[str] = json.loads(metadata[b"streamrnn.keys"])
    return names


def key_text(table: pa.Table, row: int) -> str:
    """The key of one row, as text."""
    return ", ".join(str(table.column(n)[row]) for n in key_names(table))


def _keys(table: pa.Table, names: list[str]) -> list[pa.Array]:
    return [table.column(n).combine_chunks() for n in names]
