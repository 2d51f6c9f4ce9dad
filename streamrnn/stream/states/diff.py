"""The difference between two state tables."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Bools
from streamrnn.base.display import as_text
from streamrnn.errors import StateError
from streamrnn.stream.states.files import as_table
from streamrnn.stream.states.incoming import Incoming, key_names
from streamrnn.stream.states.keys import KeyIndex


@dataclass
class StateDiff:
    """Streams in only one table, and those whose rows differ, with the columns that differ.

    `largest`: column -> the largest absolute difference of its numbers, or times (in seconds);
    None for a column without numbers. Only columns that differ are listed.
    """

    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)
    largest: dict[str, float | None] = field(default_factory=dict)
    same: int = 0

    def __bool__(self) -> bool:
        return bool(self.only_a or self.only_b or self.changed)


def diff(a: Any, b: Any, a_name: str = "a", b_name: str = "b") -> StateDiff:
    """Compare two state tables (StateTables, or their Arrow tables) by stream, bit for bit.

    Raises StateError if their keys or columns differ, or if one of them, which the message names,
    has a null or duplicate key.
    """
    a, b = as_table(a, a_name), as_table(b, b_name)
    names = key_names(a, a_name)
    if a.schema.names != b.schema.names or names != key_names(b, b_name):
        raise StateError(
            f"the tables have different columns.\n  {a_name}: {', '.join(a.schema.names)}\n"
            f"  {b_name}: {', '.join(b.schema.names)}"
        )
    for x, y in zip(a.schema, b.schema, strict=True):
        if x.type != y.type:
            raise StateError(
                f"column {x.name!r} has type {x.type} in {a_name}, but {y.type} in {b_name}"
            )
    fields = [a.schema.field(n) for n in names]
    index = KeyIndex(fields)
    in_a = Incoming(a, fields, a_name).slots(index.find).tolist()
    in_b = Incoming(b, fields, b_name).slots(index.find).tolist()
    row_b = {slot: row for row, slot in enumerate(in_b)}
    result = StateDiff(only_b=[key_text(b, r) for s, r in row_b.items() if s >= len(in_a)])
    others = [n for n in a.schema.names if n not in names]
    common = [(row, row_b[slot]) for row, slot in enumerate(in_a) if slot in row_b]
    result.only_a = [key_text(a, row) for row, slot in enumerate(in_a) if slot not in row_b]
    left = a.take(pa.array([x for x, _ in common], pa.int64())).combine_chunks()
    right = b.take(pa.array([y for _, y in common], pa.int64())).combine_chunks()
    differs = {n: _differs(left.column(n), right.column(n)) for n in others}
    changed = np.flatnonzero(np.any([np.zeros(len(common), bool), *differs.values()], axis=0))
    for i in changed.tolist():
        result.changed[key_text(a, common[i][0])] = [n for n in others if differs[n][i]]
    result.largest = {
        name: _largest(left.column(name).filter(rows), right.column(name).filter(rows))
        for name, rows in ((name, pa.array(differs[name])) for name in others)
        if differs[name].any()
    }
    result.same = len(common) - len(changed)
    return result


def key_text(table: pa.Table, row: int) -> str:
    """Format the key of one row."""
    keys = (table.column(name).slice(row, 1) for name in key_names(table))
    # As text from Arrow: Python's times would lose nanoseconds.
    texts = (key.cast(pa.string()) if pa.types.is_temporal(key.type) else key for key in keys)
    return ", ".join(as_text(text[0].as_py()) for text in texts)


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Bools:
    """Return which rows differ in any bit; null equals null."""
    kind = left.type
    if not len(left):
        return np.zeros(0, bool)
    if pa.types.is_fixed_size_list(kind) and not left.null_count and not right.null_count:
        x, y = (
            np.concatenate([c.flatten().to_numpy(zero_copy_only=False) for c in side.chunks])
            for side in (left, right)
        )
        differs: Bools = (x.view(np.int32) != y.view(np.int32)).reshape(len(left), -1).any(axis=1)
        return differs
    if pa.types.is_nested(kind):
        return _differs_by_scalar(left, right)
    if pa.types.is_float32(kind):
        left, right = (
            pa.chunked_array([c.view(pa.int32()) for c in s.chunks], pa.int32())
            for s in (left, right)
        )
    try:
        both = pc.fill_null(pc.not_equal(left, right), False)
    except pa.ArrowNotImplementedError:  # a foreign column, of a type without comparison
        return _differs_by_scalar(left, right)
    other: Bools = pc.or_(both, pc.xor(left.is_null(), right.is_null())).to_numpy()
    return other


def _largest(left: pa.ChunkedArray, right: pa.ChunkedArray) -> float | None:
    """Return the largest difference of two columns, ignoring NaN and null; None without numbers."""
    kind = left.type
    if pa.types.is_fixed_size_list(kind):
        left, right = (
            pa.chunked_array([c.flatten() for c in side.chunks], kind.value_type)
            for side in (left, right)
        )
    unit = 1.0
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micro = pa.timestamp("us", getattr(kind, "tz", None))
        left, right = (side.cast(micro, safe=False).cast(pa.int64()) for side in (left, right))
        unit = 1e-6
    if not (pa.types.is_integer(left.type) or pa.types.is_floating(left.type)):
        return None
    x, y = (side.cast(pa.float64(), safe=False).to_numpy() for side in (left, right))
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        apart = np.abs(x - y)
    apart = apart[~np.isnan(apart)]
    return float(apart.max()) * unit if len(apart) else None


def _differs_by_scalar(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Bools:
    pairs = zip(left, right, strict=True)
    return np.fromiter((not x.equals(y) for x, y in pairs), bool, len(left))
