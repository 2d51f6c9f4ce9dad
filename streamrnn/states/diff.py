"""What differs between two state tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
    unlike = {n: _unlike(left.column(n), right.column(n)) for n in others}
    changed = np.flatnonzero(np.any([np.zeros(len(common), bool), *unlike.values()], axis=0))
    for i in changed.tolist():
        result.changed[key_text(a, common[i][0])] = [n for n in others if unlike[n][i]]
    result.same = len(common) - len(changed)
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
    return ", ".join(_text(table.column(n).slice(row, 1)) for n in key_names(table))


def _text(one: pa.ChunkedArray) -> str:
    # Python's own times would lose nanoseconds.
    return str((one.cast(pa.string()) if pa.types.is_temporal(one.type) else one)[0].as_py())


def _unlike(left: pa.ChunkedArray, right: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which rows differ in any bit; null is like null."""
    kind = left.type
    if not len(left):
        return np.zeros(0, bool)
    if pa.types.is_fixed_size_list(kind) and not left.null_count and not right.null_count:
        x, y = (np.concatenate([_bits(c.flatten()) for c in side.chunks]) for side in (left, right))
        unlike: npt.NDArray[np.bool_] = (x != y).reshape(len(left), -1).any(axis=1)
        return unlike
    if pa.types.is_nested(kind):
        pairs = zip(left, right, strict=True)
        return np.fromiter((not x.equals(y) for x, y in pairs), bool, len(left))
    if pa.types.is_float32(kind):
        left, right = (
            pa.chunked_array([c.view(pa.int32()) for c in s.chunks], pa.int32())
            for s in (left, right)
        )
    both = pc.fill_null(pc.not_equal(left, right), False)
    other: npt.NDArray[np.bool_] = pc.or_(both, pc.xor(left.is_null(), right.is_null())).to_numpy()
    return other


def _bits(floats: pa.Array) -> npt.NDArray[np.int32]:
    bits: npt.NDArray[np.int32] = floats.to_numpy(zero_copy_only=False).view(np.int32)
    return bits


def _keys(table: pa.Table, names: list[str]) -> list[pa.Array]:
    return [table.column(n).combine_chunks() for n in names]
