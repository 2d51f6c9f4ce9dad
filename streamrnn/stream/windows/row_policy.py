"""What becomes of a row: late, rejected, an error, skipped, or a step, with its nulls filled.

One place for all engines: `RowPolicy` has what the pipeline file says, `by_stream` asks it.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Ints
from streamrnn.base.display import without_options
from streamrnn.errors import DataError, LateRowError
from streamrnn.stream.sources import Rows, fitted, shown, shown_time
from streamrnn.stream.windows.past import Past, Previous
from streamrnn.stream.windows.sorted_rows import NO_ROWS, running_maximum


@dataclass(frozen=True)
class RowPolicy:
    """What becomes of rows that are late, invalid, or follow a gap (`max_gap`, in ticks).

    `previous` are the features whose nulls repeat the last value of their stream. A run stops when
    it rejects more than `max_rejects` rows.
    """

    late: str = "error"
    bad: str = "error"
    max_gap: int | None = None
    previous: frozenset[str] = frozenset()
    float_names: tuple[str, ...] = ()
    max_rejects: int = 0

    def limit_rejects(self, rejected: int, what: str, note: str, number: int | None = None) -> None:
        """Raise DataError if a run rejects more rows than it may; `what` says how many, and where.

        `number` is that of the last of them in the input, if known.
        """
        if rejected > self.max_rejects:
            raise DataError(
                f"{what}, more than [source] max_rejects = {self.max_rejects}. {note} Fix the "
                "data, or set a larger max_rejects."
            ).at(number)


def latest_times(
    rows: Rows, order: Ints, stream: Ints, begin: Bools, past: Past
) -> tuple[Ints | None, Bools | None]:
    """Return the latest time of each row's stream including the row, and which rows are late."""
    if rows.time is None:
        return None, None
    time = rows.time[order]
    first = begin.nonzero()[0]
    carried, seen = past.last_times(stream[first])
    before = np.empty(len(time), np.int64)
    before[1:] = time[:-1]
    carried = np.where(seen, carried, time[first])
    before[first] = carried
    if not (time < before).any():
        return time, None
    clock = time.copy()
    clock[first] = np.maximum(clock[first], carried)
    clock = running_maximum(clock, begin)
    before[1:] = clock[:-1]
    before[first] = carried
    return clock, time < before


def resets(
    rows: Rows,
    order: Ints,
    stream: Ints,
    begin: Bools,
    time: Ints | None,
    past: Past,
    policy: RowPolicy,
) -> Bools:
    """Return which rows (N,), in stream order, start their stream again: marked, or after a gap."""
    reset = np.zeros(len(order), bool)
    if rows.reset is not None:
        reset |= rows.reset[order]
    if policy.max_gap is not None and time is not None and len(time):
        before = np.empty_like(time)
        before[1:] = time[:-1]
        first = np.flatnonzero(begin)
        carried, seen = past.last_times(stream[first])
        before[first] = np.where(seen, carried, time[first])
        # Never negative, and as unsigned it cannot overflow.
        reset |= (time - before).view(np.uint64) > policy.max_gap
    return reset


def raise_first(
    rows: Rows, order: Ints, behind: Bools | None, clock: Ints | None, policy: RowPolicy
) -> None:
    """Raise DataError for the first row in file order that stops a run, as invalid or late."""
    if not rows.faults.reasons and behind is None:
        return
    invalid = np.flatnonzero(rows.faults.codes) if policy.bad == "error" else NO_ROWS
    late = NO_ROWS
    if behind is not None and policy.late == "error":
        late = np.flatnonzero(behind)
        late = late[np.argsort(order[late])]
    if len(invalid) and (not len(late) or invalid[0] < order[late[0]]):
        row = int(invalid[0])
        raise DataError(
            f"{rows.place(row)}: {rows.faults.reason(row)}. "
            f"Invalid rows in this record batch: {len(invalid)}. {rows.faults.how_to_fix(row)} "
            'or set [source] bad = "reject".'
        ).at(rows.number(row))
    if len(late):
        assert clock is not None
        # The clock of a late row is that of the row before it.
        raise _late_error(rows, int(order[late[0]]), int(clock[late[0]]), len(late))


def why_late(rows: Rows, row: int, last: int) -> str:
    """Return why a row is late: its time, and the last one of its stream, in ticks."""
    times = rows.batch.column(rows.time_name)
    return (
        f"{rows.time_name} {shown(times, row)} is before {shown_time(last, times.type)}, the last "
        "time of this stream"
    )


def _late_error(rows: Rows, row: int, last: int, count: int) -> LateRowError:
    keys = ", ".join(field.name for field in rows.key_fields)
    times, file = rows.batch.column(rows.time_name), rows.origin.file(row)
    what = (
        f"{rows.place(row)}: time goes backwards: {why_late(rows, row, last)}. Late rows in this "
        f"record batch: {count}."
    )
    how = _in_duckdb(file, str(rows.time_name), times.type, keys)
    advice = (
        f"If the source is not sorted, sort it{how}; if an earlier run has scored later rows, or "
        'late rows are expected, set [source] late to "drop", "reject" or "apply".'
    )
    return LateRowError(what, advice, file, last).at(rows.number(row))


def _in_duckdb(file: str, time: str, kind: pa.DataType, keys: str) -> str:
    """Return how to sort a file of a format that DuckDB reads and writes; "" for others."""
    name = without_options(file).lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".csv"):
        # Rows stay text, as "007" would become 7; times are compared as what they are.
        zone = "TZ" if getattr(kind, "tz", None) else ""
        type_ = f"TIMESTAMP{zone}" if pa.types.is_timestamp(kind) else "HUGEINT"
        time = f"{time}::{'DATE' if pa.types.is_date(kind) else type_}"
        rows, target = f"read_csv('{file}', all_varchar = true)", "sorted.csv"
    elif name.endswith(".parquet"):
        rows, target = f"'{file}'", "sorted.parquet"
    else:
        return f" by {time}"
    return f", in DuckDB: COPY (SELECT * FROM {rows} ORDER BY {time}, {keys}) TO '{target}'"


def fill_nulls(
    rows: Rows,
    order: Ints,
    stream: Ints,
    group: Ints,
    ends: Ints,
    reset: Bools,
    past: Past,
    policy: RowPolicy,
    counts: dict[str, int],
) -> tuple[dict[str, Array], Bools, Previous]:
    """Return values in stream order with nulls filled, rows to skip, and segments' last values.

    The name of the float32 features is "".
    """
    matrix = rows.features.take(order, axis=0)
    missing = np.zeros(len(order), bool)
    previous: Previous = {}
    filler = _NullFiller(stream[group], group, ends, reset, past)
    absent = np.isnan(matrix)
    any_absent = absent.any()
    latest, present = matrix[ends - 1], np.ones(len(ends), bool)
    for i, name in enumerate(policy.float_names):
        if not any_absent or not absent[:, i].any():
            if name in policy.previous:
                previous[name] = latest[:, i], present
        elif name in policy.previous:
            column, valid = filler.fill(name, matrix[:, i], ~absent[:, i], previous, counts)
            matrix[:, i] = column
            missing |= ~valid
        else:
            missing |= absent[:, i]
    values: dict[str, Array] = {"": matrix}
    for name, (column, present) in rows.identifiers.items():
        column, valid = column[order], present[order]
        if name in policy.previous:
            column, valid = filler.fill(name, column, valid, previous, counts)
        missing |= ~valid
        values[name] = column
    return values, missing, previous


@dataclass
class _NullFiller:
    """Replaces a null by the last value of its segment, or of the stream before it."""

    slot: Ints
    group: Ints
    ends: Ints
    reset: Bools
    past: Past

    def fill(
        self,
        name: str,
        column: Array,
        valid: Bools,
        previous: Previous,
        counts: dict[str, int],
    ) -> tuple[Array, Bools]:
        start, known = self.past.previous(name, self.slot)
        known &= ~self.reset
        ends = self.ends
        if valid.all():
            previous[name] = (column[ends - 1], np.ones(len(ends), bool))
            return column, valid
        source = np.maximum.accumulate(np.where(valid, np.arange(len(valid)), -1))
        segment = np.repeat(np.arange(len(self.group)), ends - self.group)
        inside = source >= self.group[segment]
        filled = np.where(inside, column[source], start[segment])
        present = inside | known[segment]
        counts["filled"] += int((present & ~valid).sum())
        previous[name] = (filled[ends - 1], present[ends - 1])
        return filled, present


def kept_and_rejected(rows: Rows, late: Ints, policy: RowPolicy) -> tuple[Ints, Ints]:
    """Return the rows that give an output row, and the rejected ones, in file order."""
    if not rows.faults.reasons and not len(late):
        return np.arange(len(rows)), NO_ROWS
    rejected = rows.faults.codes != 0
    if policy.late == "reject":
        rejected[late] = True
    dropped = rejected.copy()
    dropped[late] = True
    return np.flatnonzero(~dropped), np.flatnonzero(rejected)


def reject_names(schema: pa.Schema) -> list[str]:
    """Return the names of the columns of rejected rows, of which each column of `schema` has one.

    The first three are the reason, the file and the row in it.
    """
    names = ["reason", "file", "row"]
    for name in schema.names:
        while name in names:
            name += "_"
        names.append(name)
    return names


def rejected_rows(rows: Rows, rejected: Ints, schema: pa.Schema) -> pa.RecordBatch | None:
    """Return the rejects of N rows, with reason and place; `schema` has the types of all rows."""
    if not len(rejected):
        return None
    index = rejected.tolist()
    reasons = [why_rejected(rows, row) for row in index]
    values = [
        _in_type_of(field, column, reasons)
        for field, column in zip(schema, rows.batch.take(pa.array(rejected)).columns, strict=True)
    ]
    files = pa.array([rows.origin.file(row) for row in index], pa.string())
    place = [pa.array(reasons, pa.string()), files, pa.array(rows.origin.row_N[rejected])]
    return pa.RecordBatch.from_arrays([*place, *values], reject_names(schema))


def _in_type_of(field: pa.Field, column: pa.Array, reasons: list[str]) -> pa.Array:
    """Return rejected values of a file in the type that all rejects have.

    A feature may have any type of number in a file. A value that does not fit becomes null; it is
    added to its reason, in place.
    """
    if column.type == field.type:
        return column
    values, unfit = fitted(column, field.type)
    for row in unfit:
        reasons[row] += (
            f"; column {field.name!r} holds {shown(column, row)}, which is null here: "
            f"{field.type} cannot hold it"
        )
    return values


def why_rejected(rows: Rows, row: int) -> str:
    """Return why a row is rejected: its fault, or that it is late."""
    return rows.faults.reason(row) if rows.faults.codes[row] else "late: time goes backwards"


def first_late(rows: Rows, slots: Ints, late: Ints, after: Ints) -> str | None:
    """Say where the first of the `late` rows is, and why; `after` as in `StreamBatch.late_after`.

    None if no row is late.
    """
    if not len(late):
        return None
    first = late.argmin()
    row, last = int(late[first]), int(after[first])
    assert rows.time is not None
    before = (slots[:row] == slots[row]) & (rows.time[:row] == last)
    by = rows.origin.place(int(before.argmax())) if before.any() else "a batch or run before"
    return f"{rows.place(row)}: {why_late(rows, row, last)}, set by {by}"
