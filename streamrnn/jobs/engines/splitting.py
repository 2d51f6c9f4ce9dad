"""Cut the rows of a source into epochs, one per commit, and each epoch into row ranges for workers.

The rows of a range are divided by shard.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Words
from streamrnn.errors import StreamRNNError
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline
from streamrnn.stream.sources import FileSource, Origin, Position, Reading, SourceFile, named_values
from streamrnn.stream.states import by_shard, key_hashes, shard_of


@dataclass(frozen=True)
class RowRange:
    """Consecutive rows of some files, which one worker reads.

    They begin at `start` in the first file (None: its beginning) and end before `stop` in the last
    one (None: its end). `first` is the number of the first row in the input of the run.
    """

    files: tuple[SourceFile, ...]
    start: Position | None
    stop: Position | None
    first: int
    rows: int


@dataclass(frozen=True)
class Epoch:
    """The row ranges of one commit, and the position after them; None at the end of the source."""

    row_ranges: tuple[RowRange, ...]
    position: Position | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(row_range.rows for row_range in self.row_ranges)


class _Group(NamedTuple):
    """A row group, or the rest of one: its file, and its number of rows.

    `start` is the position of its first row, `number` the number of that row in the input.
    """

    file: SourceFile
    start: Position
    rows: int
    number: int


def cut(
    source: FileSource, start: Position | None, scored: int, epoch_rows: int, range_rows: int
) -> list[Epoch]:
    """Cut the rows of the source from `start` on, at row groups, into epochs of row ranges.

    `scored` is the number of rows of the run before `start`. An epoch or a row range has at least
    one row group, but otherwise no more rows than its limit. Footers are read, rows are not.
    """
    groups = list(_groups(source, start, scored))
    epochs = []
    for epoch, following in _runs(groups, epoch_rows):
        row_ranges = tuple(
            _row_range(own, after or following) for own, after in _runs(epoch, range_rows)
        )
        end = epoch[-1]
        epochs.append(Epoch(row_ranges, None if following is None else _end(end, following)))
    return epochs


def epoch_rows(source: FileSource, loaded: LoadedPipeline) -> list[int]:
    """Return the number of rows of each epoch of a run over all files of a source."""
    rows = rows_of_an_epoch(source, loaded)
    return [epoch.rows for epoch in cut(source, None, 0, rows, rows)]


def rows_of_an_epoch(source: FileSource, loaded: LoadedPipeline) -> int:
    """Return [engine] epoch_rows; if the kind needs the input's end, the number of all rows."""
    if loaded.kind.needs_end:
        return max(1, source.total_rows())
    return loaded.config.engine.epoch_rows


def _groups(source: FileSource, start: Position | None, scored: int) -> Iterator[_Group]:
    """Yield the row groups from `start` on; a file without rows left yields one empty group."""
    number = scored
    for file in source.files:
        begin = start.file_row if start is not None and start.file == file.name else 0
        sizes = source.footer(file).groups
        row, left = 0, False
        for index, size in enumerate(sizes):
            skipped = min(max(begin - row, 0), size)
            if size > skipped:
                position = Position(file.name, index, skipped, row + skipped, False)
                yield _Group(file, position, size - skipped, number)
                number += size - skipped
                left = True
            row += size
        if not left:
            yield _Group(file, Position(file.name, len(sizes), 0, row, False), 0, number)


def _runs(groups: Sequence[_Group], rows: int) -> Iterator[tuple[Sequence[_Group], _Group | None]]:
    """Divide row groups into runs; yield each with the row group after it.

    A run has at most `rows` rows, or a single row group with rows.
    """
    first = total = 0
    for index, group in enumerate(groups):
        if index > first and total and total + group.rows > rows:
            yield groups[first:index], group
            first, total = index, 0
        total += group.rows
    if groups:
        yield groups[first:], None


def _row_range(groups: Sequence[_Group], following: _Group | None) -> RowRange:
    files = tuple(file for file, _ in groupby(group.file for group in groups))
    start = groups[0].start
    continues = following is not None and following.file == files[-1]
    return RowRange(
        files=files,
        start=start if start.file_row else None,
        stop=following.start if continues and following is not None else None,
        first=groups[0].number,
        rows=sum(group.rows for group in groups),
    )


def _end(last: _Group, following: _Group) -> Position:
    """Return the position after `last`: the start of `following`, or the end of the file."""
    if following.file == last.file:
        return following.start
    row = last.start.file_row + last.rows
    return Position(last.file.name, last.start.row_group + (last.rows > 0), 0, row, True)


_BUCKETS = 1 << 16
_KEPT = 4
Heavy = dict[int, tuple[int, str]]
"""Bucket of key hashes -> number of its rows, and one of its keys as text."""


class KeyCounts:
    """Counts rows by the lowest bits of the hashes of their keys.

    Streams share buckets: with many streams, a bucket has about a 65,536th of the rows.
    """

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        self._fields = fields
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._keys: dict[int, str] = {}

    def add(self, keys: Sequence[pa.Array], hash_N: Words) -> None:
        """Count N rows with these key columns and hashes."""
        bucket_N = (hash_N & np.uint64(_BUCKETS - 1)).astype(np.int64)
        counts = np.bincount(bucket_N, minlength=_BUCKETS)
        self._counts += counts
        largest = int(counts.argmax())
        if counts[largest] and largest not in self._keys:
            row = int(np.argmax(bucket_N == largest))
            self._keys[largest] = named_values([field.name for field in self._fields], keys, row)

    def heaviest(self) -> Heavy:
        """Return up to 4 buckets with the most rows, of all that were largest in a record batch."""
        rows: Heavy = {
            bucket: (int(self._counts[bucket]), key) for bucket, key in self._keys.items()
        }
        return dict(sorted(rows.items(), key=lambda item: -item[1][0])[:_KEPT])


def merged(parts: Sequence[Heavy]) -> Heavy:
    """Add the rows of equal buckets.

    >>> merged([{7: (30, "id=a")}, {7: (50, "id=a"), 9: (10, "id=b")}])
    {7: (80, 'id=a'), 9: (10, 'id=b')}
    """
    total: Heavy = {}
    for part in parts:
        for bucket, (rows, key) in part.items():
            before, first = total.get(bucket, (0, key))
            total[bucket] = before + rows, first
    return total


class FileSpan(NamedTuple):
    """Rows of one file within a row range: row `offset` of the range is row `row` of `file`."""

    file: str
    offset: int
    row: int


@dataclass(frozen=True)
class Chunk:
    """The rows of one row range that belong to one shard, in their order.

    `batches` are record batches, each with the offsets of its rows in the range (uint32). `first`
    is the number of the range's first row in the input. `failed`: the range could not be read to
    its end. `by_time` and `unfit` are as in the rows' `Origin`.
    """

    batches: tuple[tuple[pa.RecordBatch, Array], ...]
    spans: tuple[FileSpan, ...]
    first: int
    failed: bool = False
    by_time: bool = False
    unfit: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def origin(self, offset_N: Array) -> Origin:
        """Return the origin of rows, given their offsets in the row range."""
        starts = np.array([span.offset for span in self.spans], np.int64)
        rows = np.array([span.row for span in self.spans], np.int64)
        file_N = np.searchsorted(starts, offset_N, side="right") - 1
        files = tuple(span.file for span in self.spans)
        row_N = offset_N - starts[file_N] + rows[file_N]
        number_N = offset_N.astype(np.int64) + self.first
        return Origin(files, file_N, row_N, number_N, self.by_time, self.unfit)


@dataclass
class Split:
    """What the driver needs to know about a row range that was read.

    `rows_S`: number of rows of each shard. `readings`: what was read of each file, by name. `cast`
    and `offset`: as in a `SourceBatch`. `bytes`: size of all chunks. `error`: what ended the
    reading early, None if nothing did. `reached`: the number of the first row that was not read.
    """

    rows_S: list[int]
    readings: dict[str, Reading] = field(default_factory=dict)
    cast: int = 0
    offset: str = ""
    bytes: int = 0
    heavy: Heavy = field(default_factory=dict)
    error: StreamRNNError | None = None
    reached: int = 0


def split(
    bound: BoundPipeline, source: FileSource, row_range: RowRange, shards: int
) -> tuple[Split, list[Chunk]]:
    """Read a row range of the source and divide its rows.

    Returns what the driver needs, and a chunk per shard. An error of the source is returned, not
    raised: the rows before it may cause an earlier error.
    """
    result = Split([0] * shards, reached=row_range.first)
    batches: list[list[tuple[pa.RecordBatch, Array]]] = [[] for _ in range(shards)]
    spans: list[FileSpan] = []
    counts = KeyCounts(bound.layout.keys)
    offset, by_time, unfit = 0, False, dict[tuple[str, int], str]()
    files = [file.anywhere() for file in row_range.files]
    try:
        for item in source.subset(files).batches(row_range.start, stop=row_range.stop):
            result.readings |= item.readings
            result.cast += item.cast
            result.offset = result.offset or item.offset
            origin, by_time = item.origin, item.origin.by_time
            unfit |= origin.unfit
            for start in np.flatnonzero(np.diff(origin.file_N, prepend=-1)).tolist():
                row = int(origin.row_N[start])
                spans.append(FileSpan(origin.file(start), offset + start, row))
            keys = [item.batch.column(field.name) for field in bound.layout.keys]
            hash_N = key_hashes(keys)
            counts.add(keys, hash_N)
            for own, index in zip(batches, by_shard(shard_of(hash_N, shards), shards), strict=True):
                if len(index):
                    rows = item.batch.take(pa.array(index))
                    own.append((rows, (index + offset).astype(np.uint32)))
            offset += item.batch.num_rows
    except StreamRNNError as error:
        result.error = error
    result.reached += offset
    result.heavy = counts.heaviest()
    failed = result.error is not None
    chunks = [
        Chunk(_joined(own), tuple(spans), row_range.first, failed, by_time, unfit)
        for own in batches
    ]
    result.rows_S = [sum(rows.num_rows for rows, _ in chunk.batches) for chunk in chunks]
    result.bytes = sum(a.nbytes + b.nbytes for chunk in chunks for a, b in chunk.batches)
    return result, chunks


def _joined(
    batches: Sequence[tuple[pa.RecordBatch, Array]],
) -> tuple[tuple[pa.RecordBatch, Array], ...]:
    """Join successive record batches with equal schemas: a few large buffers are moved faster."""
    joined = []
    for _, own in groupby(batches, key=lambda item: item[0].schema):
        rows, offsets = zip(*own, strict=True)
        joined.append((pa.concat_batches(rows), np.concatenate(offsets)))
    return tuple(joined)
