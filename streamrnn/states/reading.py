"""A state table from an Arrow table."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from streamrnn.arrays import Array, Bools, Floats, Ints
from streamrnn.errors import StateError
from streamrnn.states.incoming import Incoming, meta, nulls
from streamrnn.states.layout import FORMAT_VERSION, Layout, waiting_after
from streamrnn.states.table import Held, StateTable

_MOST_STEPS = 1 << 62


def from_arrow(
    source: pa.Table,
    layout: Layout,
    initial: Mapping[str, Floats],
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
            table.scatter(slots, {name: _floats(incoming, origin, size)})
    steps = _steps(incoming)
    time, seen = _times(incoming, layout.time, steps, bool(mapping), ours, notes)
    if before is not None:
        _refuse_lost_times(incoming, seen, steps, before)
    previous = {
        name: found
        for name, kind in layout.previous.items()
        if (found := _previous(incoming, name, kind, notes)) is not None
    }
    table.advance(slots, steps, time, previous, seen)
    _load_waiting(incoming, table, slots, steps)
    _load_held(incoming, table, slots, notes)
    return table


def _steps(incoming: Incoming) -> Ints:
    steps = incoming.column("steps", pa.int64())
    incoming.refuse("steps", nulls(steps), "expected a number of steps, is null")
    numbers: Ints = steps.to_numpy()
    wrong = (numbers < 0) | (numbers > _MOST_STEPS)
    incoming.refuse("steps", wrong, "expected a number of steps, is below 0 or beyond 2**62")
    return numbers


def _times(
    incoming: Incoming,
    kind: pa.DataType | None,
    steps: Ints,
    mapped: bool,
    ours: bool,
    notes: list[str],
) -> tuple[Ints | None, Bools]:
    """The last time of each stream, None for none at all, and which streams have had a row."""
    if kind is None:
        return None, np.ones(len(steps), bool)
    if mapped and "last_time" not in incoming:
        notes.append("the state table has no last_time: no row counts as late or after a gap yet")
        return None, np.zeros(len(steps), bool)
    time = incoming.column("last_time", kind)
    seen = ~nulls(time)
    unknown = int(np.count_nonzero(~seen & (steps > 0)))
    if unknown and not ours:
        notes.append(
            f"{unknown:,} of {len(steps):,} streams in the state table have had steps and have no "
            "last_time: no row of theirs counts as late or after a gap yet"
        )
    return _ticks(time), seen


def _refuse_lost_times(incoming: Incoming, seen: Bools, steps: Ints, before: StateTable) -> None:
    """Refuse streams without a time that have one in the table `before`, or are not in it."""
    slots = before.find(incoming.keys, add=False)
    known = slots >= 0
    timed = np.zeros(len(slots), bool)
    timed[known] = before.last_times(slots[known])[1]
    incoming.refuse(
        "last_time",
        ~seen & timed,
        "is null, and the state that is replaced has a time: rows before it would not be late",
    )
    strange = ~seen & ~known & (steps > 0)
    incoming.refuse("last_time", strange, "is null, and the stream has had steps")


def _previous(
    incoming: Incoming, name: str, kind: pa.DataType, notes: list[str]
) -> tuple[Array, Bools] | None:
    """The last values of a feature and which are present; None where the table has none."""
    column = f"previous/{name}"
    if column not in incoming:
        notes.append(f"the state table has no {column}: a null before the first value is missing")
        return None
    array = incoming.column(column, kind)
    empty = "" if pa.types.is_string(kind) else 0
    found = array.fill_null(pa.scalar(empty, kind)).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(kind):
        incoming.refuse(column, ~np.isfinite(found), "is NaN or infinite; null says there is none")
    return found, ~nulls(array)


def _load_waiting(incoming: Incoming, table: StateTable, slots: Ints, steps: Ints) -> None:
    counts = None
    waiting: dict[str, Array] = {}
    for name, kind in table.layout.waiting.items():
        column = f"waiting/{name}"
        array = incoming.column(column, pa.list_(kind))
        found = array.value_lengths().fill_null(0).to_numpy().astype(np.int64)
        _check_waiting(incoming, column, found, table.layout, steps)
        if counts is not None:
            incoming.refuse(column, found != counts, "another number of rows wait than in others")
        counts = found
        stream = np.repeat(np.arange(len(slots)), found)
        rows = array.flatten()
        _refuse_items(incoming, column, stream, nulls(rows), "a value that waits is null")
        if pa.types.is_fixed_size_list(kind):
            waiting[name] = _flat(incoming, column, rows, kind.list_size, stream)
        else:
            waiting[name] = rows.to_numpy(zero_copy_only=False)
    if counts is not None:
        table.wait(slots, counts, waiting)


def _check_waiting(
    incoming: Incoming, column: str, found: Ints, layout: Layout, steps: Ints
) -> None:
    most, stride = layout.waiting_rows, layout.stride
    incoming.refuse(
        column,
        found > most,
        f"expected at most {most} rows that wait for their window, received up to "
        f"{int(found.max(initial=0))}, as of windows with more steps",
    )
    if stride:
        incoming.refuse(
            column,
            found != waiting_after(steps, most + 1, stride),
            f"other rows wait than after so many steps with [window] steps = {most + 1}, stride = "
            f"{stride}: the state is of other windows",
        )


def _load_held(incoming: Incoming, table: StateTable, slots: Ints, notes: list[str]) -> None:
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
    table.hold(Held(slots[rows], held_rows))


def _floats(incoming: Incoming, name: str, size: int) -> Floats:
    """A column of states (S, size)."""
    column = incoming.column(name, pa.list_(pa.float32(), size))
    incoming.refuse(name, nulls(column), "is null: each stream has a state")
    return _flat(incoming, name, column, size, np.arange(len(column)))


def _flat(incoming: Incoming, name: str, column: pa.Array, size: int, row: Ints) -> Floats:
    """Lists of `size` numbers as (N, size), where list n is of row `row[n]` of the table."""
    flat = column.flatten()
    holes: Bools = np.any(nulls(flat).reshape(-1, size), axis=1)
    _refuse_items(incoming, name, row, holes, "has nulls: expected numbers")
    values: Floats = flat.to_numpy(zero_copy_only=False).reshape(-1, size)
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
