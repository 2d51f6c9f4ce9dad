"""The first task of a worker: read a row range of the source, and divide its rows by shard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Words
from streamrnn.errors import StreamRNNError
from streamrnn.jobs.engines.ranges import RowRange
from streamrnn.stream.scoring import BoundPipeline
from streamrnn.stream.sources import Origin, Reading, SourceBatch, SourceOfFiles, shown
from streamrnn.stream.states import by_shard, key_hashes, shard_of

_BUCKETS = 1 << 16
_KEPT = 4
Heavy = dict[int, tuple[int, str]]
"""Bucket of the key's hash -> number of rows, and the key as text."""


class KeyCounts:
    """Counts rows by a part of the hash of their keys.

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
            self._keys[largest] = self._text(keys, int(np.argmax(bucket_N == largest)))

    def heaviest(self) -> Heavy:
        """Return the buckets with the most rows; each was the largest one of a record batch."""
        rows: Heavy = {
            bucket: (int(self._counts[bucket]), key) for bucket, key in self._keys.items()
        }
        return dict(sorted(rows.items(), key=lambda item: -item[1][0])[:_KEPT])

    def _text(self, keys: Sequence[pa.Array], row: int) -> str:
        named = zip(self._fields, keys, strict=True)
        return ", ".join(f"{field.name}={shown(array, row)}" for field, array in named)


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
    its end. `by_time`: the rows of a file are counted in the order of their time.
    """

    batches: tuple[tuple[pa.RecordBatch, Array], ...]
    spans: tuple[FileSpan, ...]
    first: int
    failed: bool = False
    by_time: bool = False

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(batch.num_rows for batch, _ in self.batches)

    @property
    def bytes(self) -> int:
        """Number of bytes of the rows."""
        return sum(batch.nbytes + offset_N.nbytes for batch, offset_N in self.batches)

    def origin(self, offset_N: Array) -> Origin:
        """Return the origin of rows, given their offsets in the row range."""
        starts = np.array([span.offset for span in self.spans], np.int64)
        rows = np.array([span.row for span in self.spans], np.int64)
        file_N = np.searchsorted(starts, offset_N, side="right") - 1
        files = tuple(span.file for span in self.spans)
        row_N = offset_N - starts[file_N] + rows[file_N]
        number_N = offset_N.astype(np.int64) + self.first
        return Origin(files, file_N, row_N, number_N, self.by_time)


@dataclass
class Split:
    """What the driver needs to know about a row range that was read.

    `rows_S`: number of rows of each shard. `readings`: what was read of each file, by name. `cast`
    and `offset`: as in a `SourceBatch`. `bytes`: size of all chunks. `error` ended the reading;
    `reached` is the number of the first row that was not read.
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
    bound: BoundPipeline, source: SourceOfFiles, row_range: RowRange, shards: int
) -> tuple[Split, list[Chunk]]:
    """Read a row range of the source and divide its rows.

    Returns what the driver needs, and a chunk per shard. An error of the source is returned, not
    raised: the rows before it may have an earlier one.
    """
    result = Split([0] * shards, reached=row_range.first)
    batches: list[list[tuple[pa.RecordBatch, Array]]] = [[] for _ in range(shards)]
    spans: list[FileSpan] = []
    counts = KeyCounts(bound.layout.keys)
    offset, by_time = 0, False
    try:
        for item in _read(source, row_range):
            result.readings |= item.readings
            result.cast += item.cast
            result.offset = result.offset or item.offset
            spans += _spans(item.origin, offset)
            by_time = item.origin.by_time
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
        Chunk(_joined(own), tuple(spans), row_range.first, failed, by_time) for own in batches
    ]
    result.rows_S = [chunk.rows for chunk in chunks]
    result.bytes = sum(chunk.bytes for chunk in chunks)
    return result, chunks


def _read(source: SourceOfFiles, row_range: RowRange) -> Iterator[SourceBatch]:
    files = [file.anywhere() for file in row_range.files]
    return source.subset(files).batches(row_range.start, stop=row_range.stop)


def _spans(origin: Origin, offset: int) -> Iterator[FileSpan]:
    """Yield the span of each file of consecutive rows, the first of which is at `offset`."""
    if not len(origin.file_N):
        return
    starts = np.flatnonzero(np.diff(origin.file_N, prepend=-1))
    for start in starts.tolist():
        yield FileSpan(origin.file(start), offset + start, int(origin.row_N[start]))


def _joined(
    batches: Sequence[tuple[pa.RecordBatch, Array]],
) -> tuple[tuple[pa.RecordBatch, Array], ...]:
    """Join successive record batches with equal schemas: a few large buffers are moved faster."""
    joined = []
    for _, own in groupby(batches, key=lambda item: item[0].schema):
        rows, offsets = zip(*own, strict=True)
        joined.append((pa.concat_batches(rows), np.concatenate(offsets)))
    return tuple(joined)
