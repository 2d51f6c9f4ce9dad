"""A guess of the key and the time of a log, from the types of its columns and from its first rows.

Rows of one stream have different times that do not go back. Among the columns for which this holds,
the likeliest key has a usual name, is text and has few values. An integer column of another name
may be a measure: its many values separate equal times, too. So it is a key only if no other column
is one, and if its values number things, that is, leave out few integers between the lowest and the
highest.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Ints
from streamrnn.jobs.guesses.features import fits

MAX_CANDIDATES = 12
_TOLERATED = 0.05
"""Largest share of rows whose time repeats the last time of their stream, or goes back."""
_ALIKE = 0.01
_KEY_NAME = re.compile(
    r"(^|_)(id|key|uuid|device|sensor|station|user|customer|machine|vehicle|tail_?num|site|host|"
    r"account|ticker|symbol|stream|series|meter|asset|node|unit)(_|$)|\w+id$",
    re.IGNORECASE,
)
_TIME_NAME = re.compile(r"(^|_)(time|timestamp|ts|t|date|datetime|epoch)(_|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Streams:
    """The likeliest key and time of a log; None where no column qualifies."""

    key: str | None
    time: str | None
    disorder: float
    """Share of rows whose time repeats the last time of their stream, or goes back."""
    streams: int
    others: tuple[str, ...] = ()
    """Further columns that could be the key."""


def guess_streams(sample: pa.Table, taken: Sequence[str] = ()) -> Streams:
    """Guess key and time from rows in the order of the log; the `taken` columns feed inputs."""
    times = _time_columns(sample)
    keys = [f.name for f in sample.schema if fits(f.type, "string") or fits(f.type, "int64")]
    keys.sort(key=lambda name: not like_a_key(name))
    keys = [name for name in keys[:MAX_CANDIDATES] if name not in (*taken, *times[:1])]
    if not times:
        named = [name for name in keys if like_a_key(name)]
        key = named[0] if named else None
        count = 0 if key is None else len(pc.unique(sample[key]))
        return Streams(key, None, 0.0, count, tuple(named[1:]))
    possible = [item for time in times[:3] for item in _possible(sample, keys, time)]
    least = min((disorder for disorder, *_ in possible), default=1.0)
    if least > _TOLERATED:
        return Streams(None, times[0], least, 0, tuple(keys))
    kept = [item for item in possible if item[0] <= _TOLERATED]
    texts = [item for item in kept if not _may_be_a_measure(sample.schema.field(item[1]))]
    possible = texts or [item for item in kept if _numbers_things(sample[item[1]], item[3])]
    if not possible:
        return Streams(None, times[0], least, 0, tuple(dict.fromkeys(item[1] for item in kept)))
    least = min(disorder for disorder, *_ in possible)
    alike = [item for item in possible if item[0] <= least + _ALIKE]
    alike.sort(key=lambda item: _rank(sample.schema.field(item[1]), times.index(item[2]), item[3]))
    disorder, key, time, count = alike[0]
    others = [name for _, name, *_ in alike[1:] if name != key]
    return Streams(key, time, disorder, count, tuple(dict.fromkeys(others)))


def _possible(
    sample: pa.Table, keys: Sequence[str], time: str
) -> Iterator[tuple[float, str, str, int]]:
    """Yield (disorder, key, time, number of streams) of the columns that can be the key."""
    column = sample[time]
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    ticks: Ints = column.cast(pa.int64()).to_numpy()
    together, _ = _disorder(np.zeros_like(ticks), ticks)
    for key in keys:
        if key == time:
            continue
        codes, count = _codes(sample[key])
        present = codes >= 0  # rows without a key are rejected
        disorder, pairs = _disorder(codes[present], ticks[present])
        # If the rows are in order even without a key, an integer column may also be a feature.
        likely = not _may_be_a_measure(sample.schema.field(key))
        likely = likely or disorder + _TOLERATED < together
        if likely and (pairs * 2 >= sample.num_rows or count == 1):
            yield disorder, key, time, count


def like_a_key(name: str) -> bool:
    """Return whether a column has a usual name for a key."""
    return _KEY_NAME.search(name) is not None


def _may_be_a_measure(field: pa.Field) -> bool:
    return bool(pa.types.is_integer(field.type)) and not like_a_key(field.name)


def _numbers_things(column: pa.ChunkedArray, count: int) -> bool:
    """Return whether `count` different integers fill at least half of their range."""
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and bool(ends["max"] - ends["min"] < 2 * count)


def _rank(field: pa.Field, time: int, count: int) -> tuple[bool, bool, int, int]:
    return not like_a_key(field.name), pa.types.is_integer(field.type), time, count


def _time_columns(sample: pa.Table) -> list[str]:
    """Return columns that can be the time, the likeliest first."""

    def rank(field: pa.Field) -> int:
        named = _TIME_NAME.search(field.name) is not None
        if sample[field.name].null_count:
            return 9
        if pa.types.is_timestamp(field.type):
            return 0 if named else 1
        if pa.types.is_date(field.type):
            return 2 if named else 3
        return 4 if named and pa.types.is_integer(field.type) else 9

    return [field.name for field in sorted(sample.schema, key=rank) if rank(field) < 9]


def _codes(column: pa.ChunkedArray) -> tuple[Ints, int]:
    """Return a number for each value, and how many different values there are, with null as one."""
    array = column.combine_chunks().dictionary_encode()
    codes: Ints = pc.fill_null(array.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return codes, len(np.unique(codes))


def _disorder(codes: Ints, ticks: Ints) -> tuple[float, int]:
    """Return the share of rows whose time is not after the previous time of their stream.

    Also return the number of rows with an earlier row in their stream.
    """
    order = np.argsort(codes, kind="stable")
    same = np.diff(codes[order]) == 0
    steps = np.diff(ticks[order])[same]
    pairs = len(steps)
    return (float((steps <= 0).mean()) if pairs else 0.0), pairs
