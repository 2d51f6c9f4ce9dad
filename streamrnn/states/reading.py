"""A state table from an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamrnn.errors import StateError
from streamrnn.states.incoming import Incoming, meta, nulls
from streamrnn.states.layout import FORMAT_VERSION, Layout, waiting_after
from streamrnn.states.table import StateTable

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_MOST_STEPS = 1 << 62


def from_arrow(
    source: pa.Table,
    layout: Layout,
    initial: Mapping[str, npt.NDArray[np.float32]],
    where: str,
    mapping: Mapping[str, str] | None = None,
    *,
    ours: bool = False,
    before: StateTable | None = None,
    notes: list[str] | None = None,
) -> StateTable:
    """The streams of an Arrow table under this layout.

    `mapping` (this model's layer -> that table's layer) takes another model's state: it says where
    a layer's state comes from, and all else of a stream (steps, last time, previous values, what
    waits) is taken over as without it. A stream may have steps and no last time, as its first
    state may have come without times; unless this pipeline wrote the table (`ours`) that is noted.
    `before` is the state that the table replaces: no stream may lose its last time.
    What is not taken over is added to `notes`, a sentence each.

    Raises StateError, with `where`, for another model's table without a mapping; for a column that
    is missing, there twice, or of another type or size; and for values that no stream has, with
    the row and the stream.
    """
    _check_version(source, where)
    incoming = Incoming(source, layout.keys, where)
    if not mapping:
        _check_model(incoming, layout)
    table = StateTable(layout, initial)
    slots = incoming.slots(table.find)
    notes = [] if notes is None else notes
    for name, size in layout.states.items():
        origin = _origin(name, mapping)
        if origin is None:
            notes.append(f"{name} is not in [state] map: it begins in its initial state")
        else:
            table.states[name][slots] = _floats(incoming, origin, size)
    _load_steps(incoming, table, slots)
    _load_times(incoming, table, slots, bool(mapping), ours, notes)
    if before is not None:
        _refuse_lost_times(incoming, table, slots, before)
    for name, kind in layout.previous.items():
        _load_previous(incoming, name, kind, table, slots, notes)
    _load_waiting(incoming, table, slots)
    _load_pending(incoming, table, slots, notes)
    return table


def _load_steps(incoming: Incoming, table: StateTable, slots: Ints) -> None:
    steps = incoming.column("steps", pa.int64())
    incoming.refuse("steps", nulls(steps), "expected a number of steps, is null")
    numbers = steps.to_numpy()
    wrong = (numbers < 0) | (numbers > _MOST_STEPS)
    incoming.refuse("steps", wrong, "expected a number of steps, is below 0 or beyond 2**62")
    table.steps[slots] = numbers


def _load_times(
    incoming: Incoming,
    table: StateTable,
    slots: Ints,
    mapped: bool,
    ours: bool,
    notes: list[str],
) -> None:
    kind = table.layout.time
    table.seen[slots] = kind is None
    if kind is None:
        return
    if mapped and "last_time" not in incoming:
        notes.append("the state table has no last_time: no row counts as late or after a gap yet")
        return
    time = incoming.column("last_time", kind)
    table.seen[slots] = ~nulls(time)
    table.last_time[slots] = _ticks(time)
    unknown = int(np.count_nonzero(~table.seen[slots] & (table.steps[slots] > 0)))
    if unknown and not ours:
        notes.append(
            f"{unknown:,} of {len(slots):,} streams in the state table have had steps and have no "
            "last_time: no row of theirs counts as late or after a gap yet"
        )


def _refuse_lost_times(
    incoming: Incoming, table: StateTable, slots: Ints, before: StateTable
) -> None:
    """Refuse streams without a time that have one in the table `before`, or are not in it."""
    there = before.find(incoming.keys, add=False)  # -1: the last of these, for none
    timed = np.append(before.seen[: len(before)], False)[there]
    none = ~table.seen[slots]
    incoming.refuse(
        "last_time",
        none & timed,
        "is null, and the state that is replaced has a time: rows before it would not be late",
    )
    strange = none & (there < 0) & (table.steps[slots] > 0)
    incoming.refuse("last_time", strange, "is null, and the stream has had steps")


def _load_previous(
    incoming: Incoming,
    name: str,
    kind: pa.DataType,
    table: StateTable,
    slots: Ints,
    notes: list[str],
) -> None:
    column = f"previous/{name}"
    if column not in incoming:
        notes.append(f"the state table has no {column}: a null before the first value is missing")
        return
    array = incoming.column(column, kind)
    empty = "" if pa.types.is_string(kind) else 0
    found = array.fill_null(pa.scalar(empty, kind)).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(kind):
        incoming.refuse(column, ~np.isfinite(found), "is NaN or infinite; null says there is none")
    values, there = table.previous[name]
    values[slots], there[slots] = found, ~nulls(array)


def _load_waiting(incoming: Incoming, table: StateTable, slots: Ints) -> None:
    counts = None
    for name, kind in table.layout.waiting.items():
        column = f"waiting/{name}"
        array = incoming.column(column, pa.list_(kind))
        found = array.value_lengths().fill_null(0).to_numpy().astype(np.int64)
        _check_waiting(incoming, column, found, table, slots)
        if counts is not None:
            incoming.refuse(column, found != counts, "another number of rows wait than in others")
        counts = table.waiting_count[slots] = found
        stream = np.repeat(np.arange(len(slots)), found)
        within = np.arange(len(stream)) - np.repeat(np.cumsum(found) - found, found)
        rows = array.flatten()
        _refuse_items(incoming, column, stream, nulls(rows), "a value that waits is null")
        if pa.types.is_fixed_size_list(kind):
            values = _flat(incoming, column, rows, kind.list_size, stream)
        else:
            values = rows.to_numpy(zero_copy_only=False)
        table.waiting[name][slots[stream], within] = values


def _check_waiting(
    incoming: Incoming, column: str, found: Ints, table: StateTable, slots: Ints
) -> None:
    most, stride = table.layout.waiting_rows, table.layout.stride
    incoming.refuse(
        column,
        found > most,
        f"expected at most {most} rows that wait for their window, received up to "
        f"{int(found.max(initial=0))}, as of windows with more steps",
    )
    if stride:
        incoming.refuse(
            column,
            found != waiting_after(table.steps[slots], most + 1, stride),
            f"other rows wait than after so many steps with [window] steps = {most + 1}, stride = "
            f"{stride}: the state is of other windows",
        )


def _load_pending(incoming: Incoming, table: StateTable, slots: Ints, notes: list[str]) -> None:
    if "pending" not in incoming:
        return
    if not table.layout.pending:
        held = len(incoming) - incoming.source.column("pending").null_count
        if held:
            notes.append(
                f'{held} rows that emit = "final" holds in the state table do not come out here'
            )
        return
    array = incoming.column("pending", pa.struct(table.layout.pending))
    rows = np.flatnonzero(~nulls(array))
    held_rows = pa.RecordBatch.from_struct_array(array.take(pa.array(rows)))
    for field in table.layout.pending[-2:]:  # how the emitter keeps them in order
        wrong = nulls(held_rows.column(field.name))
        _refuse_items(incoming, "pending", rows, wrong, f"{field.name} of the held row is null")
    table.pending_slots, table.pending_rows = slots[rows], held_rows


def _floats(incoming: Incoming, name: str, size: int) -> npt.NDArray[np.float32]:
    """A column of states (S, size)."""
    column = incoming.column(name, pa.list_(pa.float32(), size))
    incoming.refuse(name, nulls(column), "is null: each stream has a state")
    return _flat(incoming, name, column, size, np.arange(len(column)))


def _flat(
    incoming: Incoming, name: str, column: pa.Array, size: int, row: Ints
) -> npt.NDArray[np.float32]:
    """Lists of `size` numbers as (N, size), where list n is of row `row[n]` of the table."""
    flat = column.flatten()
    holes: Bools = np.any(nulls(flat).reshape(-1, size), axis=1)
    _refuse_items(incoming, name, row, holes, "has nulls: expected numbers")
    values: npt.NDArray[np.float32] = flat.to_numpy(zero_copy_only=False).reshape(-1, size)
    wrong: Bools = np.any(~np.isfinite(values), axis=1)
    _refuse_items(incoming, name, row, wrong, "has NaN or infinite values: expected numbers")
    return values


def _refuse_items(incoming: Incoming, name: str, row: Ints, wrong: Bools, what: str) -> None:
    """Refuse the rows of the table that have a wrong item; item n is of row `row[n]`."""
    if wrong.any():
        rows = np.zeros(len(incoming), bool)
        rows[row[wrong]] = True
        incoming.refuse(name, rows, what)


def _origin(name: str, mapping: Mapping[str, str] | None) -> str | None:
    """The column of the other table that holds this state; None if it is not mapped."""
    if not mapping:
        return name
    ours = [layer for layer in mapping if name == layer or name.startswith(f"{layer}/")]
    if not ours:
        return None
    nearest = max(ours, key=len)
    return mapping[nearest] + name[len(nearest) :]


def _check_version(source: pa.Table, where: str) -> None:
    found = meta(source, "format_version")
    if found != FORMAT_VERSION:
        what = f"format version {found}" if found else "a table without streamrnn's metadata"
        raise StateError(
            f"{where}: not a state table that can be read: expected format version "
            f"{FORMAT_VERSION}, received {what}. Write it with `streamrnn state export`."
        )


def _check_model(incoming: Incoming, layout: Layout) -> None:
    found = meta(incoming.source, "fingerprint")
    if found != layout.fingerprint:
        raise StateError(
            f"{incoming.where}: this is the state of another model.\n"
            f"  table: model {found[:12]}, layers {meta(incoming.source, 'layers')}\n"
            f"  here:  model {layout.fingerprint[:12]}, layers "
            f"{json.dumps(layout.layers, sort_keys=True)}\n"
            "If it is meant, say which layer takes which state: [state] map = "
            '{ here = "there" }.'
        )


def _ticks(array: pa.Array) -> Ints:
    kind = pa.int32() if pa.types.is_date32(array.type) else pa.int64()
    integers = array.cast(kind).fill_null(pa.scalar(0, kind))
    ticks: Ints = integers.to_numpy(zero_copy_only=False).astype(np.int64)
    return ticks
