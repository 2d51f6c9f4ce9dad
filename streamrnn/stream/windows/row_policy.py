"""What becomes of a row: late, repeated, rejected, an error, skipped, or a step without nulls.

All engines decide here: `RowPolicy` has what the pipeline file says, and `by_stream` asks it.
"""

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.base.display import without_options
from streamrnn.errors import DataError, LateRowError
from streamrnn.stream.sources import Rows, fitted, shown, shown_time
from streamrnn.stream.sources.formats.text import also_compressed
from streamrnn.stream.windows.sorted_rows import (
    NO_ROWS,
    Previous,
    StreamHistory,
    before_each,
    running_maximum,
)

_EARLIEST = np.iinfo(np.int64).min
_LONGEST = np.iinfo(np.uint64).max


@dataclass(frozen=True)
class RowPolicy:
    """What becomes of rows that are late, repeated, invalid, or follow a gap (`max_gap`, in ticks).

    A stream that was silent for more than `idle` ticks counts as new, since it may have been
    dropped; with `idle`, `max_gap` is at most `idle`, so that the stream starts again. `previous`
    are the features whose nulls repeat the last value of their stream. A run stops when it rejects
    more than `max_rejects` rows. With `answers` the caller learns what became of each row: refused
    rows are counted, but are not rejects.
    """

    late: str = "error"
    bad: str = "error"
    repeated: str = "score"
    max_gap: int | None = None
    idle: int | None = None
    previous: frozenset[str] = frozenset()
    float_names: tuple[str, ...] = ()
    max_rejects: int = 0
    answers: bool = False

    def answering(self, errors: bool) -> "RowPolicy":
        """Return the policy that refuses rows and rejects none.

        With `errors`, what is an error stays one; else such rows are refused, too.
        """
        stay = {"error"} if errors else set()
        late = self.late if self.late in stay | {"apply"} else "drop"
        repeated = self.repeated if self.repeated in stay | {"score"} else "skip"
        bad = self.bad if self.bad in stay else "reject"
        return replace(self, late=late, bad=bad, repeated=repeated, answers=True)

    @cached_property
    def most_gap(self) -> int:
        """The longest gap in ticks that resets no stream; without `max_gap`, the largest uint64."""
        return _LONGEST if self.max_gap is None else self.max_gap

    def limit_rejects(self, rejected: int, what: str, note: str, number: int | None = None) -> None:
        """Raise DataError if a run rejects more rows than it may; `what` says how many, and where.

        `number`: the number of the last rejected row in the input, if it has one.
        """
        if rejected > self.max_rejects:
            raise DataError(
                f"{what}, more than [source] max_rejects = {self.max_rejects}. {note} Fix the "
                "data, or set a larger max_rejects."
            ).at(number)


class JudgedTimes(NamedTuple):
    """The times of N rows, in stream order, compared with the latest earlier time of their streams.

    `clock` is the latest time of each row's stream up to and including the row (None without
    times). A row is `late` if it is before that earlier time, `repeated` if it has the same time
    (None: no row is).
    """

    clock: Ints | None
    late: Bools | None = None
    repeated: Bools | None = None

    def left_out(self, policy: RowPolicy) -> Bools | None:
        """Return which rows are not steps because they are late or repeated; None if no row is."""
        late = self.late if policy.late != "apply" else None
        repeated = self.repeated if policy.repeated != "score" else None
        if late is None or repeated is None:
            return late if repeated is None else repeated
        return late | repeated


def judge_times(
    rows: Rows, order: Ints, stream: Ints, begin: Bools, past: StreamHistory
) -> JudgedTimes:
    """Compare the time of each row with the latest earlier time of its stream."""
    if rows.time is None:
        return JudgedTimes(None)
    time = rows.time.take(order)
    first = begin.nonzero()[0]
    carried, seen = past.last_times(stream.take(first))
    carried = np.where(seen, carried, _EARLIEST)
    before = before_each(time, first, carried)
    if np.logical_and.reduce(time > before):
        return JudgedTimes(time)
    clock, late = time, time < before
    if late.any():
        clock = time.copy()
        clock[first] = np.maximum(clock[first], carried)
        clock = running_maximum(clock, begin)
        before = before_each(clock, first, carried)
        late = time < before
    repeated = time == before
    repeated[first[~seen]] = False  # the stream had no row, not even at the earliest time
    return JudgedTimes(clock, late if late.any() else None, repeated if repeated.any() else None)


def resets(
    rows: Rows,
    order: Ints,
    stream: Ints,
    begin: Bools,
    time: Ints | None,
    past: StreamHistory,
    policy: RowPolicy,
) -> tuple[Bools, dict[str, int]]:
    """Return which rows (N,), in stream order, start their stream again.

    These are rows that the reset column marks, and rows after a gap. Also return two counts.
    "fresh_starts": the rows among them whose stream has an earlier row, at most `idle` before.
    "started_behind": streams without an earlier row that began more than `idle` behind the newest
    time, so that their state may have been dropped.
    """
    reset = np.zeros(len(order), bool)
    counts = {"fresh_starts": 0, "started_behind": 0}
    if rows.reset is not None:
        reset |= rows.reset.take(order)
    gap = None
    if policy.max_gap is not None and time is not None and len(time):
        first = begin.nonzero()[0]
        carried, seen = past.last_times(stream.take(first))
        before = before_each(time, first, np.where(seen, carried, time.take(first)))
        # The difference is never negative, and as unsigned it cannot overflow.
        gap = (time - before).view(np.uint64)
        reset |= gap > policy.max_gap
        if policy.idle is not None and past.newest is not None:
            behind = time.take(first) < past.newest - policy.idle
            counts["started_behind"] = int((behind & ~seen).sum())
    if len(starts := reset.nonzero()[0]):
        _, seen = past.last_times(stream[starts])
        again = seen | ~begin[starts]
        if policy.idle is not None and gap is not None:
            again &= gap[starts] <= policy.idle
        counts["fresh_starts"] = int(again.sum())
    return reset, counts


def raise_first(
    rows: Rows,
    slots: Ints,
    order: Ints,
    judged: JudgedTimes,
    past: StreamHistory,
    policy: RowPolicy,
) -> None:
    """Raise DataError for the first row, in file order, that the policy says is an error."""
    if not rows.faults.reasons and judged.late is None and judged.repeated is None:
        return
    wrong = {
        "bad": np.flatnonzero(rows.faults.codes) if rows.faults.reasons else NO_ROWS,
        "late": NO_ROWS if judged.late is None else order[judged.late],
        "repeated": NO_ROWS if judged.repeated is None else order[judged.repeated],
    }
    firsts = {
        int(index.min()): name
        for name, index in wrong.items()
        if len(index) and getattr(policy, name) == "error"
    }
    if not firsts:
        return
    row, name = min(firsts.items())
    count = len(wrong[name])
    if name == "bad":
        raise DataError(
            f"{rows.place(row)}: {rows.faults.reason(row)}. "
            f"Invalid rows in this record batch: {count}. {rows.faults.how_to_fix(row)} "
            'or set [source] bad = "reject".'
        ).at(rows.number(row))
    assert judged.clock is not None
    if name == "late":
        # The clock of a late row is the latest time of the rows before it.
        last = int(judged.clock[np.flatnonzero(order == row)[0]])
        late = _late_error(rows, slots, row, last, count)
        raise late.cured_by_sorting() if _ahead_in_its_file(rows, slots, row, past) else late
    raise DataError(
        f"{rows.place(row)}: {why_repeated(rows, slots, row)}. Repeated rows in this record "
        f"batch: {count}. Remove what was written twice, or set [source] repeated to "
        '"score", "skip" or "reject" (an output that has rows keeps the setting that it has).'
    ).at(rows.number(row))


def why_late(rows: Rows, slots: Ints, row: int, last: int) -> str:
    """Return why a row is late: its time, and `last`, the last time of its stream, in ticks."""
    times = rows.batch.column(rows.time_name)
    return (
        f"{rows.time_name} {shown(times, row)} is before {shown_time(last, times.type)}, the last "
        f"time of this stream, set by {_row_at(rows, slots, row, last)}"
    )


def why_repeated(rows: Rows, slots: Ints, row: int) -> str:
    """Return why a row is repeated: its time, and the first row that has it."""
    assert rows.time is not None
    time = shown(rows.batch.column(rows.time_name), row)
    by = _row_at(rows, slots, row, int(rows.time[row]))
    return f"{rows.time_name} {time} repeats the last time of this stream, set by {by}"


def _row_at(rows: Rows, slots: Ints, row: int, time: int) -> str:
    """Return where `time` (in ticks) first occurs in the stream of `row`, before it."""
    assert rows.time is not None
    before = (slots[:row] == slots[row]) & (rows.time[:row] == time)
    return rows.origin.place(int(before.argmax())) if before.any() else "an earlier batch or run"


def _late_error(rows: Rows, slots: Ints, row: int, last: int, count: int) -> LateRowError:
    keys, file = ", ".join(rows.key_names), rows.origin.file(row)
    what = (
        f"{rows.place(row)}: time goes backwards: {why_late(rows, slots, row, last)}. Late rows in "
        f"this record batch: {count}. One row with a time too far ahead makes the next rows of its "
        "stream late, until their times pass that time."
    )
    kind = rows.batch.column(rows.time_name).type
    how = _in_duckdb(file, str(rows.time_name), kind, keys)
    advice = (
        f"If the source is not sorted, sort it{how}; if an earlier run has scored later rows, or "
        'late rows are expected, set [source] late to "drop", "reject" or "apply".'
    )
    return LateRowError(what, advice, file, last).at(rows.number(row))


def _ahead_in_its_file(rows: Rows, slots: Ints, row: int, past: StreamHistory) -> bool:
    """Return whether a row is late because of rows of its file alone, as far as this batch shows.

    If the last time was set in an earlier batch, the result is False, even if by the same file.
    """
    assert rows.time is not None
    carried, seen = past.last_times(slots[row : row + 1])
    before = np.flatnonzero(slots[:row] == slots[row]).tolist()
    file = rows.origin.file(row)
    others = [rows.time[i] for i in before if rows.origin.file(i) != file]
    return bool(max([*carried[seen], *others], default=_EARLIEST) <= rows.time[row])


def _in_duckdb(file: str, time: str, kind: pa.DataType, keys: str) -> str:
    """Return how to sort a file: in DuckDB if it reads and writes the format, else only by what."""
    name = without_options(file).lower()
    if name.endswith(also_compressed(".csv")):
        # Values stay text, as "007" would become 7; only times are compared as times.
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
    past: StreamHistory,
    policy: RowPolicy,
    counts: dict[str, int],
) -> tuple[dict[str, Array], Bools | None, Previous]:
    """Return values in stream order with nulls filled, which rows to skip, and last values.

    The matrix of all float32 features has the name "". The second result is None if no row is to be
    skipped, the third has the last values of each segment.
    """
    matrix = rows.features.take(order, axis=0)
    # Of features with nulls, `fill` sets the last values again.
    previous = previous_of(matrix.take(ends - 1, axis=0) if policy.previous else matrix, policy)
    absent = None if rows.complete else np.isnan(matrix)
    if absent is None and not rows.identifiers:
        return {"": matrix}, None, previous
    missing = np.zeros(len(order), bool)
    slot = stream.take(group)

    def fill(name: str, column: Array, valid: Bools) -> tuple[Array, Bools]:
        """Replace a null by the last value of its segment, or of the stream before it."""
        if valid.all():
            previous[name] = column[ends - 1], np.ones(len(ends), bool)
            return column, valid
        start, has_start = past.previous(name, slot)
        has_start &= ~reset
        source = np.maximum.accumulate(np.where(valid, np.arange(len(valid)), -1))
        segment = np.repeat(np.arange(len(group)), ends - group)
        inside = source >= group[segment]
        filled = np.where(inside, column[source], start[segment])
        present = inside | has_start[segment]
        counts["filled"] += int((present & ~valid).sum())
        previous[name] = filled[ends - 1], present[ends - 1]
        return filled, present

    if absent is not None:
        for i, name in enumerate(policy.float_names):
            if absent[:, i].any() and name in policy.previous:
                matrix[:, i], valid = fill(name, matrix[:, i], ~absent[:, i])
                missing |= ~valid
            else:
                missing |= absent[:, i]
    values: dict[str, Array] = {"": matrix}
    for name, (column, present) in rows.identifiers.items():
        column, valid = column[order], present[order]
        if name in policy.previous:
            column, valid = fill(name, column, valid)
        missing |= ~valid
        values[name] = column
    return values, missing if missing.any() else None, previous


def previous_of(latest: Floats, policy: RowPolicy) -> Previous:
    """Return the last values of the features with nulls = "previous"; the rows have no nulls."""
    if not policy.previous:
        return {}
    present = np.ones(len(latest), bool)
    numbered = enumerate(policy.float_names)
    return {name: (latest[:, i], present) for i, name in numbered if name in policy.previous}


def kept_and_rejected(
    rows: Rows, late: Ints, repeated: Ints, policy: RowPolicy
) -> tuple[Ints, Ints]:
    """Return the rows that give an output row, and the rejected ones, in file order.

    `late` and `repeated` are the rows that are not steps because they are late or repeated.
    """
    if not (rows.faults.reasons or len(late) or len(repeated)):
        return np.arange(len(rows)), NO_ROWS
    rejected = rows.faults.codes != 0
    dropped = rejected.copy()
    for index, becomes in ((late, policy.late), (repeated, policy.repeated)):
        dropped[index] = True
        rejected[index] = becomes == "reject"
    return np.flatnonzero(~dropped), np.flatnonzero(rejected)


def reject_names(schema: pa.Schema) -> list[str]:
    """Return the names of the columns of rejects: reason, file, row (in the file), then `schema`'s.

    A name that is taken gets "_" appended.
    """
    names = ["reason", "file", "row"]
    for name in schema.names:
        while name in names:
            name += "_"
        names.append(name)
    return names


def rejected_rows(rows: Rows, rejected: Ints, repeated: Ints, schema: pa.Schema) -> pa.RecordBatch:
    """Return the rejects of N rows, with reason and place, in the types of `schema`.

    A value that does not fit becomes null, and is named in the reason of its row.
    """
    index, again = rejected.tolist(), set(repeated.tolist())
    reasons = [why_rejected(rows, row, again) for row in index]
    values = []
    for field, column in zip(schema, rows.batch.take(pa.array(rejected)).columns, strict=True):
        if column.type != field.type:  # a feature may have any type of number in a file
            received = column
            column, unfit = fitted(received, field.type)
            for row in unfit:
                reasons[row] += (
                    f"; column {field.name!r} holds {shown(received, row)}, which is null here: "
                    f"{field.type} cannot hold it"
                )
        values.append(column)
    files = pa.array([rows.origin.file(row) for row in index], pa.string())
    place = [pa.array(reasons, pa.string()), files, pa.array(rows.origin.row_N[rejected])]
    return pa.RecordBatch.from_arrays([*place, *values], reject_names(schema))


def why_rejected(rows: Rows, row: int, repeated: Container[int]) -> str:
    """Return why a row is rejected: for its fault, as one of the `repeated`, or as late."""
    if rows.faults.codes[row]:
        return rows.faults.reason(row)
    if row in repeated:
        return "repeated: the stream had a row of this time"
    return "late: time goes backwards"


def why_refused(rows: Rows, late: Ints, repeated: Ints, policy: RowPolicy) -> Array:
    """Return why each of N rows is not accepted (N,), "" where it is; for `RowPolicy.answers`.

    `late` are the rows that are not steps because they are late; `repeated` are all repeated rows.
    """
    reason = np.full(len(rows), "", object)
    reason[late] = "late"
    if policy.repeated != "score":
        reason[repeated] = "repeated"
    for row in np.flatnonzero(rows.faults.codes).tolist():
        reason[row] = f"rejected: {rows.faults.reason(row)}"
    return reason
