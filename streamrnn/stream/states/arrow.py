"""Convert a state table to an Arrow table; check and load the streams of an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.base.display import short_model
from streamrnn.errors import StateError
from streamrnn.stream.sources import ticks
from streamrnn.stream.sources.casts import nulls_of
from streamrnn.stream.states.incoming import Incoming, meta
from streamrnn.stream.states.layout import (
    FORMAT_VERSION,
    Held,
    Layout,
    differing_classes,
    origin_of,
    waiting_after,
)

if TYPE_CHECKING:
    from streamrnn.stream.states.table import StateTable

_MOST_STEPS = 1 << 62
_MAP = (
    "To use it anyway, map each layer of this model to a layer of the other one: "
    '[state] map = { this = "other" }.'
)


def load_streams(
    table: StateTable,
    source: pa.Table,
    label: str,
    mapping: Mapping[str, str] | None = None,
    *,
    same_pipeline: bool = False,
    before: StateTable | None = None,
    notes: list[str] | None = None,
) -> None:
    """Load the streams of an Arrow table into an empty state table: see `from_arrow`."""
    layout = table.layout
    version = meta(source, "format_version")
    if version != FORMAT_VERSION:
        received = f"format version {version}" if version else "a table without streamrnn metadata"
        raise StateError(
            f"{label}: not a readable state table: expected format version {FORMAT_VERSION}, "
            f"received {received}. Write it with `streamrnn state export`."
        )
    incoming = Incoming(source, layout.keys, label)
    if mapping is None:
        check_model(source, layout, label)
    else:
        origins = {name: origin_of(name, mapping) for name in layout.states}
        taken = {name: origin for name, origin in origins.items() if origin is not None}
        if lines := differing_classes(source, layout, taken, label):
            raise StateError(
                f"{label}: [state] map: the states of the layers differ:\n"
                + "\n".join(lines)
                + "\nMap each layer to a layer of its class. A layer that the map leaves out "
                "starts from its initial state."
            )
    slots = incoming.slots(table.find)
    notes = [] if notes is None else notes
    for name in layout.states:
        origin = name if mapping is None else origin_of(name, mapping)
        if origin is None:
            notes.append(f"{name} is not in [state] map: it starts from its initial state")
        else:
            kind = layout.state_type(name)
            column = incoming.column(origin, kind)
            incoming.refuse(origin, nulls_of(column), "state is null: each stream must have one")
            rows = np.arange(len(column))
            table.scatter(slots, {name: _flat(incoming, origin, column, kind.list_size, rows)})
    steps = _steps(incoming)
    time, seen = _times(incoming, layout.time, steps, mapping is not None, same_pipeline, notes)
    if before is not None:
        _refuse_lost_times(incoming, seen, steps, before)
    previous = {
        name: values
        for name, kind in layout.previous.items()
        if (values := _previous(incoming, name, kind, notes)) is not None
    }
    table.advance(slots, steps, time, previous, seen)
    _load_waiting(incoming, table, slots, steps)
    _load_held(incoming, table, slots, notes)
    table.note_newest()


def _steps(incoming: Incoming) -> Ints:
    steps = incoming.column("steps", pa.int64())
    incoming.refuse("steps", nulls_of(steps), "expected a number of steps, received null")
    numbers: Ints = steps.to_numpy()
    invalid = (numbers < 0) | (numbers > _MOST_STEPS)
    incoming.refuse("steps", invalid, "expected a number of steps from 0 to 2**62")
    return numbers


def _times(
    incoming: Incoming,
    kind: pa.DataType | None,
    steps: Ints,
    mapped: bool,
    same_pipeline: bool,
    notes: list[str],
) -> tuple[Ints | None, Bools]:
    """Return the last time of each stream (None: no times), and which streams have one.

    Without a time column, all streams count as having one.
    """
    if kind is None:
        return None, np.ones(len(steps), bool)
    if mapped and "last_time" not in incoming:
        notes.append(
            "the state table has no last_time: the first row of each stream is never counted as "
            "late or after a gap"
        )
        return None, np.zeros(len(steps), bool)
    time = incoming.column("last_time", kind)
    seen = ~nulls_of(time)
    unknown = int(np.count_nonzero(~seen & (steps > 0)))
    if unknown and not same_pipeline:
        notes.append(
            f"{unknown:,} of {len(steps):,} streams in the state table have steps but no "
            "last_time: their first rows are never counted as late or after a gap"
        )
    return ticks(time), seen


def _refuse_lost_times(incoming: Incoming, seen: Bools, steps: Ints, before: StateTable) -> None:
    """Refuse a stream without a time if it has one in `before`, or if it is new and has steps."""
    slots = before.find(incoming.keys, add=False)
    earlier = slots >= 0
    timed = np.zeros(len(slots), bool)
    timed[earlier] = before.last_times(slots[earlier])[1]
    incoming.refuse(
        "last_time",
        ~seen & timed,
        "last time is null, but the replaced state has one: earlier rows would no longer be "
        "detected as late",
    )
    new = ~seen & ~earlier & (steps > 0)
    incoming.refuse("last_time", new, "last time is null, but the stream has steps")


def _previous(
    incoming: Incoming, name: str, kind: pa.DataType, notes: list[str]
) -> tuple[Array, Bools] | None:
    """Return the last values of a feature and which are present; None without their column."""
    column = f"previous/{name}"
    if column not in incoming:
        notes.append(
            f"the state table has no {column}: a null before a stream's first value cannot be "
            "filled"
        )
        return None
    array = incoming.column(column, kind)
    empty = "" if pa.types.is_string(kind) else 0
    values = array.fill_null(pa.scalar(empty, kind)).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(kind):
        reason = "expected a finite number or null, received NaN or infinity"
        incoming.refuse(column, ~np.isfinite(values), reason)
    return values, ~nulls_of(array)


def _load_waiting(incoming: Incoming, table: StateTable, slots: Ints, steps: Ints) -> None:
    counts = None
    most, stride = table.layout.waiting_rows, table.layout.stride
    waiting: dict[str, Array] = {}
    for name, kind in table.layout.waiting.items():
        column = f"waiting/{name}"
        array = incoming.column(column, pa.list_(kind))
        lengths = array.value_lengths().fill_null(0).to_numpy().astype(np.int64)
        incoming.refuse(
            column,
            lengths > most,
            f"expected at most {most} rows that wait for their window, received up to "
            f"{int(lengths.max(initial=0))}: the state is from windows with more steps",
        )
        if stride:
            incoming.refuse(
                column,
                lengths != waiting_after(steps, most + 1, stride),
                f"the number of waiting rows does not match the stream's steps with [window] "
                f"steps = {most + 1}, stride = {stride}: the state is from other windows",
            )
        if counts is not None:
            reason = "the number of waiting rows differs from the number in the other columns"
            incoming.refuse(column, lengths != counts, reason)
        counts = lengths
        stream = np.repeat(np.arange(len(slots)), lengths)
        rows = array.flatten()
        _refuse_items(incoming, column, stream, nulls_of(rows), "a waiting value is null")
        if pa.types.is_fixed_size_list(kind):
            waiting[name] = _flat(incoming, column, rows, kind.list_size, stream)
        else:
            waiting[name] = rows.to_numpy(zero_copy_only=False)
    if counts is not None:
        table.wait(slots, counts, waiting)


def _load_held(incoming: Incoming, table: StateTable, slots: Ints, notes: list[str]) -> None:
    held = rows_held(incoming.source)
    if not held:
        return
    if not table.layout.pending:
        notes.append(f'{held} rows held by emit = "final" in the state table are not written')
        return
    array = incoming.column("pending", pa.struct(table.layout.pending))
    rows = np.flatnonzero(~nulls_of(array))
    held_rows = pa.RecordBatch.from_struct_array(array.take(pa.array(rows)))
    for field in table.layout.pending[-2:]:  # the emitter's sort keys
        invalid = nulls_of(held_rows.column(field.name))
        _refuse_items(incoming, "pending", rows, invalid, f"{field.name} of the held row is null")
    table.hold(Held(slots[rows], held_rows))


def rows_held(table: pa.Table) -> int:
    """Return the number of rows that a state table holds until the end of its run."""
    pending = table.schema.get_all_field_indices("pending")
    return sum(len(table) - table.column(index).null_count for index in pending)


def _flat(incoming: Incoming, name: str, column: pa.Array, size: int, row: Ints) -> Floats:
    """Return N lists of `size` finite numbers as (N, size); list n belongs to row `row[n]`."""
    flat = column.flatten()
    holes: Bools = np.any(nulls_of(flat).reshape(-1, size), axis=1)
    _refuse_items(incoming, name, row, holes, "expected numbers, received null")
    values: Floats = flat.to_numpy(zero_copy_only=False).reshape(-1, size)
    invalid: Bools = np.any(~np.isfinite(values), axis=1)
    _refuse_items(incoming, name, row, invalid, "expected finite numbers, received NaN or infinity")
    return values


def _refuse_items(incoming: Incoming, name: str, row: Ints, invalid: Bools, reason: str) -> None:
    """Refuse the rows of the table with an invalid item; item n belongs to row `row[n]`."""
    if invalid.any():
        rows = np.zeros(len(incoming), bool)
        rows[row[invalid]] = True
        incoming.refuse(name, rows, reason)


def check_model(source: pa.Table, layout: Layout, label: str, advice: str = _MAP) -> None:
    """Raise StateError, with `advice`, unless a table has the model fingerprint of a layout."""
    fingerprint = meta(source, "fingerprint")
    if fingerprint != layout.fingerprint:
        received, expected = _differing(meta(source, "layers"), layout)
        raise StateError(
            f"{label}: this is the state of another model. {advice}\n"
            f"  received: model {short_model(fingerprint)}, layers {received}\n"
            f"  expected: model {short_model(layout.fingerprint)}, layers {expected}"
        )


def _differing(text: str, layout: Layout) -> tuple[str, str]:
    """Describe the layers of a table (JSON) and of a layout, without those that are equal."""
    expected = json.loads(json.dumps(layout.layers))
    try:
        received = dict(json.loads(text))
    except (ValueError, TypeError):
        return text, json.dumps(expected, sort_keys=True)
    if received == expected:
        return "the same, with other weights or options", "as above"
    return _only_in(received, expected), _only_in(expected, received)


def _only_in(layers: Mapping[str, object], others: Mapping[str, object]) -> str:
    differing = {name: layer for name, layer in layers.items() if others.get(name) != layer}
    return f"that differ: {json.dumps(differing, sort_keys=True)}"


def to_arrow(table: StateTable, slots: Ints | None = None, copy: bool = True) -> pa.Table:
    """Return all streams in the order of their slots, or the streams in `slots`, in this order.

    Without `copy`, the result may share memory with the table, and change with it.
    """
    rows = np.arange(table.streams) if slots is None else np.asarray(slots, np.int64)
    layout = table.layout
    arrays = table.key_arrays(None if slots is None else rows)
    arrays.append(pa.array(table.steps(rows)))
    if layout.time is not None:
        ticks, seen = table.last_times(rows)
        time = _masked(seen, ticks, pa.int64())
        time = time.cast(pa.int32()) if pa.types.is_date32(layout.time) else time
        arrays.append(time.cast(layout.time))
    for name in layout.states:
        values = table.states(name)
        if copy or slots is not None:
            values = np.take(values, rows, axis=0)
        flat = pa.array(values.reshape(-1))
        kind = layout.state_type(name)
        fixed = pa.FixedSizeListArray.from_arrays
        arrays.append(fixed(flat, type=kind) if len(rows) else pa.array([], kind))
    for name, kind in layout.previous.items():
        values, present = table.previous(name, rows)
        arrays.append(_masked(present, values, kind))
    for name, kind in layout.waiting.items():
        counts = table.waiting_counts(rows)
        arrays.append(_waiting_column(table.waiting(name, rows, counts), counts, kind))
    if layout.pending:
        held_slots, held = table.held
        positions = np.full(table.streams, -1)
        positions[held_slots] = np.arange(len(held_slots))
        index = pa.array(positions[rows], mask=positions[rows] < 0)
        kind = pa.struct(layout.pending)
        empty = pa.nulls(len(rows), kind)
        arrays.append(empty if held is None else held.to_struct_array().take(index))
    return pa.Table.from_arrays(arrays, schema=layout.schema())


def _masked(present: Bools, values: Array, kind: pa.DataType) -> pa.Array:
    """Return the values, null where not present, and 0 under a null.

    An Arrow file also contains the memory under a null, and equal tables have to give equal files.
    """
    return pa.array(np.where(present, values, np.zeros(1, values.dtype)), kind, mask=~present)


def _waiting_column(values: Array, counts: Ints, kind: pa.DataType) -> pa.Array:
    """Convert waiting rows (K, …), `counts` (S,) of them per stream, to one list per stream."""
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(values.reshape(-1), kind.value_type)
        items = pa.FixedSizeListArray.from_arrays(flat, type=kind)
    else:
        items = pa.array(values, kind)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=pa.list_(kind))
