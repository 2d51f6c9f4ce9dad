"""Guesses of what each column of a log is: key, time, or a feature of an input of the model.

Rows of one stream have distinct times that do not go back. Among the columns for which this holds,
the likeliest key has a usual name, is text and has few values. An integer column of another name
may be a measure: its many values separate equal times, too. So it is a key only if no other column
is one, and if its values number things, that is, leave out few integers between the lowest and the
highest. Features are chosen by name, type, width and scaling.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Floats, Ints
from streamrnn.stream.config import TODO
from streamrnn.stream.sources.casts import is_real, is_text

MAX_CANDIDATES = 12
_TOLERATED = 0.05
"""Largest `disorder` of a key."""
_ALIKE = 0.01
_KEY_NAME = re.compile(
    r"(^|_)(id|key|uuid|device|sensor|station|user|customer|machine|vehicle|tail_?num|site|host|"
    r"account|ticker|symbol|stream|series|meter|asset|node|unit)(_|$)|\w+id$",
    re.IGNORECASE,
)
_TIME_NAME = re.compile(r"(^|_)(time|timestamp|ts|t|date|datetime|epoch)(_|$)", re.IGNORECASE)
_InputSpec = tuple[str, tuple[int | None, ...], str, int | None]
"""Name, shape and dtype; if the input reads ids, their number."""
_WAVE = ("hour_sin", "hour_cos")
_YEAR = 365 * 86400
_FAR = 0.75
"""Limit of a distance: difference of means, in deviations, plus ratio of deviations minus 1."""


@dataclass(frozen=True)
class Streams:
    """The likeliest key and time of a log; None where no column qualifies."""

    key: str | None
    time: str | None
    disorder: float
    """Share of rows whose time repeats the previous time of their stream, or goes back."""
    streams: int
    others: tuple[str, ...] = ()
    """Further columns that could be the key."""


class _Candidate(NamedTuple):
    """A column that can be the key if `time` is the time; `streams`: how many values it has."""

    key: str
    time: str
    disorder: float
    streams: int


def guess_streams(sample: pa.Table, taken: Sequence[str] = ()) -> Streams:
    """Guess key and time from rows in the order of the log; `taken` columns are not the key."""
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
    least = min((item.disorder for item in possible), default=1.0)
    if least > _TOLERATED:
        return Streams(None, times[0], least, 0, tuple(keys))
    kept = [item for item in possible if item.disorder <= _TOLERATED]
    texts = [item for item in kept if not _may_be_a_measure(sample.schema.field(item.key))]
    possible = texts or [item for item in kept if _numbers_things(sample[item.key], item.streams)]
    if not possible:
        return Streams(None, times[0], least, 0, tuple(dict.fromkeys(of.key for of in kept)))

    def rank(item: _Candidate) -> tuple[bool, bool, int, int]:
        whole = pa.types.is_integer(sample.schema.field(item.key).type)
        return not like_a_key(item.key), whole, times.index(item.time), item.streams

    least = min(item.disorder for item in possible)
    best, *alike = sorted((of for of in possible if of.disorder <= least + _ALIKE), key=rank)
    others = dict.fromkeys(of.key for of in alike if of.key != best.key)
    return Streams(best.key, best.time, best.disorder, best.streams, tuple(others))


def _possible(sample: pa.Table, keys: Sequence[str], time: str) -> Iterator[_Candidate]:
    """Yield each column that can be the key."""
    column = sample[time]
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    ticks: Ints = column.cast(pa.int64()).to_numpy()
    together, _ = _disorder(np.zeros_like(ticks), ticks)
    for key in keys:
        if key == time:
            continue
        indices = sample[key].combine_chunks().dictionary_encode().indices.cast(pa.int64())
        codes = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False)
        count = len(np.unique(codes))  # null is one of them
        present = codes >= 0  # rows without a key are rejected
        disorder, pairs = _disorder(codes[present], ticks[present])
        # If the rows are in order even without a key, an integer column may also be a feature.
        likely = not _may_be_a_measure(sample.schema.field(key))
        likely = likely or disorder + _TOLERATED < together
        if likely and (pairs * 2 >= sample.num_rows or count == 1):
            yield _Candidate(key, time, disorder, count)


def like_a_key(name: str) -> bool:
    """Return whether a column has a usual name for a key."""
    return _KEY_NAME.search(name) is not None


def _may_be_a_measure(field: pa.Field) -> bool:
    return bool(pa.types.is_integer(field.type)) and not like_a_key(field.name)


def _numbers_things(column: pa.ChunkedArray, count: int) -> bool:
    """Return whether `count` distinct integers fill at least half of their range."""
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and bool(ends["max"] - ends["min"] < 2 * count)


def _time_columns(sample: pa.Table) -> list[str]:
    """Return columns that can be the time, the likeliest first."""
    ranks: dict[str, int] = {}
    for column in sample.schema:
        named = _TIME_NAME.search(column.name) is not None
        if sample[column.name].null_count:
            continue
        if pa.types.is_timestamp(column.type):
            ranks[column.name] = 0 if named else 1
        elif pa.types.is_date(column.type):
            ranks[column.name] = 2 if named else 3
        elif named and pa.types.is_integer(column.type):
            ranks[column.name] = 4
    return sorted(ranks, key=lambda name: ranks[name])


def pauses(sample: pa.Table, key: str, time: str) -> list[str]:
    """Return a note if streams go on after a year or more that is unusually long for the log."""
    table = sample.select([key, time]).drop_null()
    ticks: Ints = table[time].cast(pa.timestamp("s"), safe=False).to_numpy().astype(np.int64)
    codes = table[key].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((ticks, codes))
    same = np.flatnonzero(np.diff(codes[order]) == 0)
    gaps = np.diff(ticks[order])[same]
    long = same[gaps >= max(_YEAR, 10 * float(np.median(gaps)))] if len(gaps) else gaps
    if not len(long):
        return []
    start, end = order[long[0] : long[0] + 2].tolist()
    return [
        f"streams with a pause of a year or more: {len(np.unique(codes[order[long]])):,}, such as "
        f"{table[key][start]} from {table[time][start].as_py():%Y-%m-%d} to "
        f"{table[time][end].as_py():%Y-%m-%d}; if a name is used again for another thing, add a "
        "column to the key, or set max_gap"
    ]


def _disorder(codes: Ints, ticks: Ints) -> tuple[float, int]:
    """Return the share of rows whose time is not after the previous time of their stream.

    Only rows with an earlier row in their stream count; also return their number.
    """
    order = np.argsort(codes, kind="stable")
    same = np.diff(codes[order]) == 0
    steps = np.diff(ticks[order])[same]
    return (float((steps <= 0).mean()) if len(steps) else 0.0), len(steps)


@dataclass
class GuessedFeatures:
    """The features of each input, time features, and notes on how they were guessed."""

    inputs: dict[str, list[str]] = field(default_factory=dict)
    vocabularies: list[str] = field(default_factory=list)
    """Columns of text that an input of numbers reads."""
    time_features: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """All columns, each once, without time features."""
        names = [name for names in self.inputs.values() for name in names]
        return [name for name in dict.fromkeys(names) if name not in _WAVE]


def named_columns(specs: Sequence[_InputSpec], sample: pa.Table) -> dict[str, str]:
    """Return the column with a similar name, if any, for each input that reads one column."""
    named: dict[str, str] = {}
    for name, shape, dtype, ids in specs:
        if _width(shape, dtype) == 1:
            fitting = _readable(sample, dtype, ids)
            column = _by_name(name, [n for n in fitting if n not in named.values()])
            if column is not None:
                named[name] = column
    return named


def guess_features(
    specs: Sequence[_InputSpec],
    sample: pa.Table,
    taken: Sequence[str],
    scaling: Mapping[str, tuple[Floats, Floats]],
    *,
    has_times: bool,
) -> GuessedFeatures:
    """Guess the features of each input; `taken` columns (key, time, partitions) are left out."""
    named = {i: c for i, c in named_columns(specs, sample).items() if c not in taken}
    guess = GuessedFeatures()
    for name, shape, dtype, ids in specs:
        used = {*taken, *named.values(), *(c for cs in guess.inputs.values() for c in cs)}
        free = [column for column in _readable(sample, dtype, ids) if column not in used]
        if name in named:
            guess.inputs[name] = [named[name]]
            guess.notes.append(f"input {name!r}: the column with the same or a similar name")
        elif dtype != "float32":
            unused = sample.select([name for name in sample.column_names if name not in used])
            _only_column(guess, name, dtype, ids, free, unused)
        else:
            ends = scaling.get(name)
            _float_columns(guess, name, _width(shape, dtype), free, sample, ends, has_times)
    return guess


def _width(shape: tuple[int | None, ...], dtype: str) -> int | None:
    return 1 if dtype != "float32" or len(shape) == 1 else shape[-1]


def fits(kind: pa.DataType, dtype: str) -> bool:
    """Return whether an input of this dtype can read a column of this type."""
    if dtype == "string":
        return is_text(kind)
    if dtype == "int64":
        return bool(pa.types.is_integer(kind))
    return is_real(kind) or bool(pa.types.is_decimal(kind))


def _readable(sample: pa.Table, dtype: str, ids: int | None) -> list[str]:
    """Return the columns that an input can read: by type, and from 0 to `ids` - 1 if it is set."""
    names = [f.name for f in sample.schema if fits(f.type, dtype)]
    if ids is None or dtype != "int64":
        return names
    ends = {name: pc.min_max(sample[name]).as_py() for name in names}
    return [n for n in names if (ends[n]["min"] or 0) >= 0 and (ends[n]["max"] or 0) < ids]


def _by_name(name: str, columns: Sequence[str]) -> str | None:
    """Return the column of this name, else the only column whose name extends or begins `name`.

    Names are compared by their letters and digits, in lower case; if a name has fewer than 3, only
    an equal name counts.
    """

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    wanted = plain(name)
    if exact := [column for column in columns if plain(column) == wanted]:
        return exact[0]
    alike = [
        column
        for column in columns
        if min(len(wanted), len(plain(column))) > 2
        and (plain(column).startswith(wanted) or wanted.startswith(plain(column)))
    ]
    return alike[0] if len(alike) == 1 else None


def _only_column(
    guess: GuessedFeatures,
    name: str,
    dtype: str,
    ids: int | None,
    free: list[str],
    unused: pa.Table,
) -> None:
    kind = {"int64": f"ids from 0 to {ids - 1}" if ids else "integers", "string": "text"}[dtype]
    text = [f.name for f in unused.schema if fits(f.type, "string")]
    words = _by_name(name, text) or (text[0] if len(text) == 1 and not free else None)
    if dtype == "int64" and words is not None:
        guess.inputs[name] = [words]
        guess.vocabularies.append(words)
        guess.notes.append(
            f"{TODO}: input {name!r} reads ids of the text in {words!r}: name its vocabulary, a "
            "list or a file of the values in the order of training"
        )
        return
    if len(free) == 1:
        guess.inputs[name] = free
        guess.notes.append(f"input {name!r}: the only column of {kind} that is left")
        return
    guess.inputs[name] = [TODO]
    left = ", ".join(f"{f.name} ({f.type})" for f in unused.schema) or "none"
    among = ", ".join(free) if free else f"none has {kind}; left are {left}"
    guess.notes.append(f"{TODO}: input {name!r} reads one column of {kind}: {among}")


def _float_columns(
    guess: GuessedFeatures,
    name: str,
    width: int | None,
    free: list[str],
    sample: pa.Table,
    scaling: tuple[Floats, Floats] | None,
    has_times: bool,
) -> None:
    floats = [n for n in free if pa.types.is_floating(sample.schema.field(n).type)]
    if scaling is not None and width is not None and len(scaling[0]) == width > 1:
        matched = _by_scaling(free, sample, *scaling, has_times=has_times)
        if matched is not None:
            guess.inputs[name] = matched
            guess.notes.append(
                f"input {name!r}: the columns whose mean and deviation are nearest to those that "
                "the model's Normalization holds"
            )
            if _WAVE[0] in matched:
                guess.time_features = ("hour",)
                guess.notes.append(
                    "time features: the model has a sine and a cosine; hour is a guess: they may "
                    "also be of day_of_week or day_of_year"
                )
            return
    for columns, what in ((free, "numeric columns"), (floats, "columns of floats")):
        if columns and width in (None, len(columns)):
            guess.inputs[name] = columns
            guess.notes.append(
                f"input {name!r}: all {what} that are left, in the order of the file; check the "
                "order"
            )
            return
    guess.inputs[name] = [TODO]
    guess.notes.append(
        f"{TODO}: input {name!r} reads {width} features, in the order of training; numeric "
        f"columns: {', '.join(free) or 'none'}"
    )


def _by_scaling(
    columns: Sequence[str], sample: pa.Table, means: Floats, deviations: Floats, *, has_times: bool
) -> list[str] | None:
    """Return a column for each mean and deviation, nearest pairs first; None if one has no match.

    The last two are taken for a sine and a cosine of the time if there are times, more than two
    means, and these two have mean 0 and variance 1/2.
    """
    waves = 0
    tail = np.abs(means[-2:]) < 0.05, np.abs(deviations[-2:] - np.sqrt(0.5)) < 0.05
    if has_times and len(means) > 2 and all(part.all() for part in tail):
        waves = 2
    slots = len(means) - waves
    pairs = []
    for column in columns:
        values = sample[column].cast(pa.float64(), safe=False).drop_null()
        mean, deviation = pc.mean(values).as_py(), pc.stddev(values).as_py()
        if not (len(values) and np.isfinite(mean) and deviation > 0):
            continue
        wanted = zip(means[:slots].tolist(), deviations[:slots].tolist(), strict=True)
        for slot, (center, unit) in enumerate(wanted):
            if unit > 0:
                ratio = deviation / unit
                distance = abs(mean - center) / unit + max(ratio, 1 / ratio) - 1
                pairs.append((distance, slot, column))
    chosen: dict[int, str] = {}
    for distance, slot, column in sorted(pairs):
        if distance < _FAR and slot not in chosen and column not in chosen.values():
            chosen[slot] = column
    if len(chosen) < slots:
        return None
    return [*(chosen[i] for i in range(slots)), *_WAVE[:waves]]
