"""The subject of a report: an output, its columns, and one pass over its rows."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Floats, Ints
from streamrnn.base.display import as_text
from streamrnn.errors import ConfigError
from streamrnn.jobs.outputs import part_batches, rows_of
from streamrnn.plugins.report.timeline import BucketSample, Timeline, positions
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.config import value_of
from streamrnn.stream.sources import parse_time, time_of
from streamrnn.stream.states import KeyIndex

MOST_OUTPUTS = 4
"""Largest number of outputs that are drawn: of more outputs, the first ones."""
MOST_STREAMS = 12
"""Largest number of streams drawn one by one: by default, the ones with the most rows."""
NO_KEY = (
    "the key is not in the output: add [source] key to [output] columns, and score again with "
    "--full-refresh."
)
"""Why streams are not drawn, and how to get them drawn."""
_AXES = (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer)


@dataclass(frozen=True)
class OutputColumns:
    """The columns of an output: its keys, its time if it has one, the outputs of the model.

    Rows are limited to times at or after `since` and before `until`, both in ticks of the time
    column. `time_zone` is [source] time_zone.
    """

    keys: tuple[pa.Field, ...]
    time: pa.Field | None
    outputs: tuple[str, ...]
    since: int | None = None
    until: int | None = None
    time_zone: str = ""

    @classmethod
    def of(cls, manifest: Manifest, since: str | None, until: str | None) -> "OutputColumns":
        """Find the columns in a manifest.

        Raises ConfigError for limits without times, or in the wrong order.
        """
        schema, config = decode_schema(manifest.schema), manifest.config
        present = set(schema.names)
        keys = value_of("source.key", config) or ()
        name = value_of("source.time", config)
        time = schema.field(name) if name in present else None
        if time is not None and not any(is_axis(time.type) for is_axis in _AXES):
            time = None
        if time is None and (since is not None or until is not None):
            raise ConfigError(
                "since and until need the time of the rows in the output: add [source] time to "
                "[output] columns, and score again with --full-refresh"
            )
        zone = value_of("source.time_zone", config)
        begin, end = (
            None if time is None or text is None else parse_time(text, time.type, name, zone)
            for name, text in (("since", since), ("until", until))
        )
        if begin is not None and end is not None and begin >= end:
            raise ConfigError(
                f"since {since} is not before until {until}: no row would be drawn. Swap them, "
                "or leave one out"
            )
        return cls(
            tuple(schema.field(key) for key in keys) if present.issuperset(keys) else (),
            time,
            tuple(_outputs(schema, config)),
            begin,
            end,
            zone,
        )

    @property
    def drawn(self) -> tuple[str, ...]:
        """The outputs that are drawn."""
        return self.outputs[:MOST_OUTPUTS]

    @property
    def clock(self) -> bool:
        """Whether times are clock times, not integers."""
        return self.time is not None and not pa.types.is_integer(self.time.type)

    @property
    def zone(self) -> str | None:
        """The time zone of the clock; None if there is no clock, or it has no zone."""
        if self.time is None or not pa.types.is_timestamp(self.time.type):
            return None
        zone: str | None = self.time_zone or self.time.type.tz
        return zone

    def limited(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows between the limits."""
        for limit, keep in ((self.since, pc.greater_equal), (self.until, pc.less)):
            if limit is not None and self.time is not None:
                time = batch.column(self.time.name)
                batch = batch.filter(keep(time, time_of(limit, time.type)))
        return batch

    def places(self, batch: pa.RecordBatch, before: int) -> Ints:
        """Return the place of each row on the axis; without times, its number in the output."""
        if self.time is None:
            return np.arange(before, before + batch.num_rows)
        return positions(batch.column(self.time.name), self.time_zone)


def floats_of(batch: pa.RecordBatch, names: tuple[str, ...]) -> Floats:
    """Return columns (N, V) as float32; null, and each value of a missing column, is NaN."""
    value_NV = np.full((batch.num_rows, len(names)), np.nan, np.float32)
    for index, name in enumerate(names):
        if name in batch.schema.names:
            column = batch.column(name)
            if not pa.types.is_floating(column.type):
                column = column.cast(pa.float64(), safe=False)
            value_NV[:, index] = column.to_numpy(zero_copy_only=False)
    return value_NV


def _outputs(schema: pa.Schema, config: Mapping[str, Any]) -> list[str]:
    names = value_of("output.names", config)
    if names:
        return [name for name in names if name in schema.names]
    carried = value_of("output.columns", config)
    if carried == "*" or carried is None:
        carried = list(config.get("source.schema", {}))
    other = {*carried, value_of("output.model_column", config)}
    numbers = (f for f in schema if pa.types.is_floating(f.type) or pa.types.is_integer(f.type))
    return [field.name for field in numbers if field.name not in other]


@dataclass(frozen=True)
class Extent:
    """The number of rows, their first and last place, and the first place and model of each commit.

    `commits`: number of a commit -> its first place. `models`: number of a commit -> fingerprint of
    its model.
    """

    rows: int
    first: int
    last: int
    commits: dict[int, int]
    models: dict[int, str]


def extent_of(path: str, manifest: Manifest, columns: OutputColumns) -> Extent | None:
    """Read the times of all parts; return None without a row. Raises CheckpointError."""
    names = [] if columns.time is None else [columns.time.name]
    rows, ends = 0, []
    commits: dict[int, int] = {}
    models: dict[int, str] = {}
    read = part_batches(path, manifest, names) if names else ((p, None) for p in manifest.parts)
    for part, batch in read:
        if batch is None:
            count, low, high = part.rows, rows, rows + part.rows - 1
        else:
            place = columns.places(columns.limited(batch), rows)
            count = len(place)
            low, high = (int(place.min()), int(place.max())) if count else (0, 0)
        if not count:
            continue
        rows += count
        ends += [low, high]
        commits[part.commit] = min(low, commits.get(part.commit, low))
        models[part.commit] = part.model
    return Extent(rows, min(ends), max(ends), commits, models) if ends else None


class OutputStreams:
    """The streams of an output: each one's number of rows, ends, and active buckets."""

    def __init__(self, keys: Sequence[pa.Field], timeline: Timeline) -> None:
        self._timeline = timeline
        self._index = KeyIndex(keys) if keys else None
        self.rows = np.zeros(0, np.int64)
        self.first = np.zeros(0, np.int64)
        self.last = np.zeros(0, np.int64)
        self._active = np.zeros((0, (timeline.buckets + 7) // 8), np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, batch: pa.RecordBatch) -> Ints:
        """Return the slot of each row; without keys in the output, there is one stream."""
        if self._index is None:
            return np.zeros(batch.num_rows, np.int64)
        return self._index.find([batch.column(field.name) for field in self._index.fields])

    def add(self, slot_N: Ints, place_N: Ints) -> None:
        """Add rows."""
        more = int(slot_N.max(initial=-1)) + 1 - len(self.rows)
        if more > 0:
            limits = np.iinfo(np.int64)
            self.rows = np.append(self.rows, np.zeros(more, np.int64))
            self.first = np.append(self.first, np.full(more, limits.max))
            self.last = np.append(self.last, np.full(more, limits.min))
            fresh = np.zeros((more, self._active.shape[1]), np.uint8)
            self._active = np.concatenate([self._active, fresh])
        self.rows += np.bincount(slot_N, minlength=len(self.rows))
        np.minimum.at(self.first, slot_N, place_N)
        np.maximum.at(self.last, slot_N, place_N)
        buckets = self._timeline.buckets
        code = np.unique(slot_N * buckets + self._timeline.bucket(place_N))
        slot, bucket = np.divmod(code, buckets)
        bit = np.left_shift(1, bucket % 8).astype(np.uint8)
        np.bitwise_or.at(self._active, (slot, bucket // 8), bit)

    def active(self) -> Ints:
        """Return the number of streams with rows in each bucket."""
        total = np.zeros(self._timeline.buckets, np.int64)
        for start in range(0, len(self._active), 65536):  # unpacked, bits take 8 times the memory
            bits = np.unpackbits(self._active[start : start + 65536], axis=1, bitorder="little")
            total += bits[:, : self._timeline.buckets].sum(axis=0, dtype=np.int64)
        return total

    def new(self) -> Ints:
        """Return the number of streams whose first row is in each bucket."""
        bucket = self._timeline.bucket(self.first)
        return np.bincount(bucket, minlength=self._timeline.buckets)

    def keys(self, slots: Ints) -> list[str]:
        """Return the keys of some slots as text, as `texts_of_keys` does."""
        if self._index is None:
            return ["all rows"] * len(slots)
        return texts_of_keys([key.take(pa.array(slots)) for key in self._index.arrays()])

    def key_arrays(self) -> list[pa.Array]:
        """Return the keys of all slots, an array for each key column."""
        return [] if self._index is None else self._index.arrays()

    def key_table(self) -> pa.Table:
        """Return the keys of all slots, with the metadata of a state table."""
        assert self._index is not None
        names = [field.name for field in self._index.fields]
        keys = {"streamrnn.keys": json.dumps(names)}
        return pa.table(self._index.arrays(), names).replace_schema_metadata(keys)


class StreamMeans:
    """Means of values by chosen stream and bucket."""

    def __init__(self, slots: Ints, timeline: Timeline, series: int) -> None:
        self.slots = slots
        self.timeline = timeline
        self._sums = np.zeros((len(slots) * timeline.buckets, series))
        self._counts = np.zeros((len(slots) * timeline.buckets, series), np.int64)

    def add(self, slot_N: Ints, place_N: Ints, value_NV: Floats) -> None:
        """Add rows of any streams; values that are not finite are left out."""
        order = np.argsort(self.slots)
        at = np.searchsorted(self.slots[order], slot_N).clip(0, len(order) - 1)
        chosen = self.slots[order][at] == slot_N
        code = order[at[chosen]] * self.timeline.buckets + self.timeline.bucket(place_N[chosen])
        size = len(self._sums)
        for series in range(self._sums.shape[1]):
            value = value_NV[chosen, series].astype(np.float64)
            finite = np.isfinite(value)
            self._sums[:, series] += np.bincount(code[finite], value[finite], minlength=size)
            self._counts[:, series] += np.bincount(code[finite], minlength=size)

    def means(self) -> Floats:
        """Return means (streams, buckets, series), NaN where there are no values."""
        means = np.full(self._sums.shape, np.nan)
        np.divide(self._sums, self._counts, out=means, where=self._counts > 0)
        return means.reshape(len(self.slots), self.timeline.buckets, -1)


def texts_of_keys(columns: Sequence[pa.Array]) -> list[str]:
    """Return keys, an array for each key column, as text that `--key` reads.

    That is a line of CSV; for one column plain text, in quotes if it would be invisible.
    """
    texts = [[_text(value) for value in column] for column in columns]
    if len(columns) == 1:
        return [text if text.strip() else f'"{text}"' for text in texts[0]]
    lines = []
    for row in zip(*texts, strict=True):
        line = StringIO()
        csv.writer(line, lineterminator="").writerow(row)
        lines.append(line.getvalue())
    return lines


def _text(value: pa.Scalar) -> str:
    try:
        return as_text(value.as_py())
    except (ValueError, ArithmeticError):  # nanoseconds, years beyond 9999
        return str(value.cast(pa.string()).as_py())


class Subject:
    """An output that has rows, and the result of a pass over its keys, times and drawn outputs.

    `keys`: the streams to draw, as for `drop_streams`. `scored`: number of rows (buckets,) whose
    first output has a value; `infinite`: number of infinite values in all drawn outputs. Raises
    CheckpointError.
    """

    def __init__(
        self,
        path: str,
        manifest: Manifest,
        columns: OutputColumns,
        extent: Extent,
        keys: Sequence[str],
    ) -> None:
        self.path, self.manifest, self.columns = path, manifest, columns
        self.extent, self.keys = extent, keys
        clock, timed, drawn = columns.clock, columns.time is not None, columns.drawn
        self.timeline = line = Timeline.of(extent.first, extent.last, clock=clock, timed=timed)
        self.sample = BucketSample(line.buckets, len(drawn))
        self.streams = OutputStreams(columns.keys, line)
        self.scored, self.infinite = np.zeros(line.buckets, np.int64), 0
        for slot, place, value in self._rows():
            bucket = line.bucket(place)
            self.streams.add(slot, place)
            self.sample.add(bucket, value)
            if drawn:
                self.scored += np.bincount(bucket[~np.isnan(value[:, 0])], minlength=line.buckets)
            self.infinite += int(np.isinf(value).sum())

    def _rows(self) -> Iterator[tuple[Ints, Ints, Floats]]:
        """Yield the slots, the places and the drawn outputs of the rows, by record batch."""
        columns, before = self.columns, 0
        time = [] if columns.time is None else [columns.time.name]
        names = [*(field.name for field in columns.keys), *time, *columns.drawn]
        for _, batch in part_batches(self.path, self.manifest, names):
            batch = columns.limited(batch)
            place = columns.places(batch, before)
            yield self.streams.find(batch), place, floats_of(batch, columns.drawn)
            before += batch.num_rows

    def add_streams(self, means: StreamMeans) -> None:
        """Add to `means` the outputs of its streams, in a second pass. Raises CheckpointError."""
        for rows in self._rows():
            means.add(*rows)

    def chosen(self) -> Ints:
        """Return the slots of the streams to draw.

        Raises ConfigError for an unknown key, and for more streams than can be drawn.
        """
        if self.keys and self.columns.keys:
            mask = rows_of(self.streams.key_table(), self.keys, self.path)
            slots = np.flatnonzero(mask).astype(np.int64)
            if len(slots) > MOST_STREAMS:
                raise ConfigError(
                    f"--key: expected at most {MOST_STREAMS} streams, received {len(slots)}"
                )
            return slots
        order: Ints = np.argsort(-self.streams.rows, kind="stable").astype(np.int64)
        return order[:MOST_STREAMS]
