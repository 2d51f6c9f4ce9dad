"""A state table from an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamrnn.errors import StateError
from streamrnn.states.layout import FORMAT_VERSION, Layout
from streamrnn.states.table import StateTable

Ints = npt.NDArray[np.int64]


def from_arrow(
    source: pa.Table,
    layout: Layout,
    initial: Mapping[str, npt.NDArray[np.float32]],
    where: str,
    mapping: Mapping[str, str] | None = None,
) -> StateTable:
    """The streams of an Arrow table under this layout.

    `mapping` (this model's layer -> that table's layer) takes another model's state as initial
    state: the streams begin here, so steps, times and what waits are not taken over. Raises
    StateError, with `where`, for another model's table without a mapping, and for a column that
    is missing or has another type or size.
    """
    _check_version(source, where)
    if not mapping:
        _check_model(source, layout, where)
    table = StateTable(layout, initial)
    keys = [_column(source, f.name, f.type, where) for f in layout.keys]
    _check_keys(keys, layout, where)
    slots = table.find(keys)
    if len(table) != source.num_rows:
        raise StateError(
            f"{where}: {source.num_rows} rows but {len(table)} streams: each key must be there once"
        )
    for name, size in layout.states.items():
        origin = _origin(name, mapping)
        if origin is not None:
            table.states[name][slots] = _floats(source, origin, size, where)
    if not mapping:
        _load_memory(source, table, slots, where)
    return table


def _load_memory(source: pa.Table, table: StateTable, slots: Ints, where: str) -> None:
    layout = table.layout
    steps = _column(source, "steps", pa.int64(), where)
    if steps.null_count or (steps.to_numpy() < 0).any():
        raise StateError(f"{where}: column 'steps' has nulls or numbers below 0")
    table.steps[slots] = steps.to_numpy()
    table.seen[slots] = True
    if layout.time is not None:
        time = _column(source, "last_time", layout.time, where)
        table.seen[slots] = time.is_valid().to_numpy(zero_copy_only=False)
        table.last_time[slots] = _ticks(time)
    for name, kind in layout.previous.items():
        if f"previous/{name}" not in source.column_names:
            continue
        column = _column(source, f"previous/{name}", kind, where)
        values, there = table.previous[name]
        there[slots] = column.is_valid().to_numpy(zero_copy_only=False)
        empty = "" if pa.types.is_string(kind) else 0
        values[slots] = column.fill_null(pa.scalar(empty, kind)).to_numpy(zero_copy_only=False)
    for name, kind in layout.waiting.items():
        column = _column(source, f"waiting/{name}", pa.list_(kind), where)
        _load_waiting(column, name, kind, table, slots, where)
    if layout.pending and "pending" in source.column_names:
        pending = _column(source, "pending", pa.struct(layout.pending), where)
        rows = np.flatnonzero(pending.is_valid().to_numpy(zero_copy_only=False))
        table.pending_slots = slots[rows]
        table.pending_rows = pa.RecordBatch.from_struct_array(pending.take(pa.array(rows)))


def _load_waiting(
    column: pa.Array, name: str, kind: pa.DataType, table: StateTable, slots: Ints, where: str
) -> None:
    counts = column.value_lengths().fill_null(0).to_numpy()
    rows = column.flatten()
    flat = rows.flatten() if pa.types.is_fixed_size_list(kind) else rows
    most = int(counts.max(initial=0))
    if most > table.layout.waiting_rows or flat.null_count:
        raise StateError(
            f"{where}: column 'waiting/{name}': expected at most {table.layout.waiting_rows} rows "
            f"a stream without nulls, received {most} and {flat.null_count} null(s). Is it of "
            "windows with more steps?"
        )
    table.waiting_count[slots] = counts
    values = flat.to_numpy(zero_copy_only=False).reshape(len(rows), *table.waiting[name].shape[2:])
    stream = np.repeat(np.arange(len(slots)), counts)
    within = np.arange(len(stream)) - np.repeat(np.cumsum(counts) - counts, counts)
    table.waiting[name][slots[stream], within] = values


def _origin(name: str, mapping: Mapping[str, str] | None) -> str | None:
    """The column of the other table that holds this state; None if it is not mapped."""
    if not mapping:
        return name
    for ours, theirs in mapping.items():
        if name == ours or name.startswith(f"{ours}/"):
            return theirs + name[len(ours) :]
    return None


def _check_version(source: pa.Table, where: str) -> None:
    found = _meta(source, "format_version")
    if found != FORMAT_VERSION:
        what = f"format version {found}" if found else "a table without streamrnn's metadata"
        raise StateError(
            f"{where}: not a state table that can be read: expected format version "
            f"{FORMAT_VERSION}, received {what}. Write it with `streamrnn state export`."
        )


def _check_model(source: pa.Table, layout: Layout, where: str) -> None:
    found = _meta(source, "fingerprint")
    if found != layout.fingerprint:
        raise StateError(
            f"{where}: this is the state of another model.\n"
            f"  table: model {found[:12]}, layers {_meta(source, 'layers')}\n"
            f"  here:  model {layout.fingerprint[:12]}, layers "
            f"{json.dumps(layout.layers, sort_keys=True)}\n"
            "If it is meant, say which layer takes which state: [state] map = "
            '{ here = "there" }.'
        )


def _check_keys(keys: list[pa.Array], layout: Layout, where: str) -> None:
    for field, array in zip(layout.keys, keys, strict=True):
        if array.null_count:
            raise StateError(f"{where}: key column {field.name!r} has {array.null_count} null(s)")


def _meta(source: pa.Table, name: str) -> str:
    metadata = source.schema.metadata or {}
    return str(metadata.get(f"streamrnn.{name}".encode(), b"").decode())


def _column(source: pa.Table, name: str, kind: pa.DataType, where: str) -> pa.Array:
    if name not in source.column_names:
        raise StateError(
            f"{where}: there is no column {name!r}. Columns there are: "
            f"{', '.join(source.column_names)}"
        )
    column = source.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type != kind:
        if not _alike(column.type, kind):
            raise StateError(f"{where}: column {name!r}: expected {kind}, received {column.type}")
        column = column.cast(kind)
    return _one_piece(column)


def _one_piece(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _alike(found: pa.DataType, kind: pa.DataType) -> bool:
    """What Parquet may make of a type: it has no seconds, no date64, and other names for items."""
    types = pa.types
    if types.is_fixed_size_list(found) and types.is_fixed_size_list(kind):
        same = found.list_size == kind.list_size
        return bool(same and _alike(found.value_type, kind.value_type))
    if types.is_list(found) and types.is_list(kind):
        return _alike(found.value_type, kind.value_type)
    if types.is_struct(found) and types.is_struct(kind):
        return [f.name for f in found] == [f.name for f in kind] and all(
            _alike(a.type, b.type) for a, b in zip(found, kind, strict=True)
        )
    if types.is_timestamp(found) and types.is_timestamp(kind):
        return bool(found.tz == kind.tz)
    units = (types.is_date, types.is_time, types.is_duration)
    return bool(found == kind) or any(is_so(found) and is_so(kind) for is_so in units)


def _floats(source: pa.Table, name: str, size: int, where: str) -> npt.NDArray[np.float32]:
    column = _column(source, name, pa.list_(pa.float32(), size), where)
    flat = column.flatten()
    if column.null_count or flat.null_count:
        raise StateError(f"{where}: column {name!r} has nulls: a state has none")
    values: npt.NDArray[np.float32] = flat.to_numpy().reshape(-1, size)
    if not np.isfinite(values).all():
        raise StateError(f"{where}: column {name!r} has NaN or infinite values: a state has none")
    return values


def _ticks(array: pa.Array) -> Ints:
    kind = pa.int32() if pa.types.is_date32(array.type) else pa.int64()
    integers = array.cast(kind).fill_null(pa.scalar(0, kind))
    ticks: Ints = integers.to_numpy(zero_copy_only=False).astype(np.int64)
    return ticks
