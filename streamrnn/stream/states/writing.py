"""The state table as an Arrow table."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Ints

if TYPE_CHECKING:
    from streamrnn.stream.states.table import StateTable


def to_arrow(table: "StateTable", slots: Ints | None = None, copy: bool = True) -> pa.Table:
    """Return all streams in order of first appearance, or those of `slots`.

    The result is a copy. Without `copy` it may share memory with the table, and change with it.
    """
    rows = np.arange(table.streams) if slots is None else np.asarray(slots, np.int64)
    layout = table.layout
    arrays = table.key_arrays(None if slots is None else rows)
    arrays.append(pa.array(table.steps(rows)))
    if layout.time is not None:
        arrays.append(_times(*table.last_times(rows), layout.time))
    for name in layout.states:
        values = table.states(name)
        if copy or slots is not None:
            values = np.take(values, rows, axis=0)
        flat = pa.array(values.reshape(-1))
        arrays.append(_fixed(flat, layout.state_type(name), len(rows)))
    for name, kind in layout.previous.items():
        values, present = table.previous(name, rows)
        arrays.append(_masked(present, values, kind))
    for name, kind in layout.waiting.items():
        counts = table.waiting_counts(rows)
        arrays.append(_waiting(table.waiting(name, rows, counts), counts, kind))
    if layout.pending:
        arrays.append(_pending(table, rows))
    return pa.Table.from_arrays(arrays, schema=layout.schema())


def _fixed(flat: pa.Array, kind: pa.FixedSizeListType, rows: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(flat, type=kind) if rows else pa.array([], kind)


def _masked(present: Bools, values: Array, kind: pa.DataType) -> pa.Array:
    """Return the values, null where not present.

    An Arrow file contains the memory under a null too. Equal tables are equal files only if that
    is always 0, and not the value before a reset.
    """
    return pa.array(np.where(present, values, np.zeros(1, values.dtype)), kind, mask=~present)


def _times(ticks: Ints, seen: Bools, kind: pa.DataType) -> pa.Array:
    integers = _masked(seen, ticks, pa.int64())
    if pa.types.is_date32(kind):
        integers = integers.cast(pa.int32())
    return integers.cast(kind)


def _waiting(values: Array, counts: Ints, kind: pa.DataType) -> pa.Array:
    """Convert (K, …), with `counts` (S,) rows of each stream, to one list per stream."""
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(values.reshape(-1), kind.value_type)
        items = pa.FixedSizeListArray.from_arrays(flat, type=kind)
    else:
        items = pa.array(values, kind)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=pa.list_(kind))


def _pending(table: "StateTable", rows: Ints) -> pa.Array:
    kind = pa.struct(table.layout.pending)
    slots, held = table.held
    if held is None:
        return pa.nulls(len(rows), kind)
    positions = np.full(table.streams, -1)
    positions[slots] = np.arange(len(slots))
    index = positions[rows]
    return held.to_struct_array().take(pa.array(index, mask=index < 0))
