"""The first task of a worker: read a piece of the source, and divide its rows by shard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array
from streamrnn.errors import StreamRNNError
from streamrnn.jobs.engines.heavy import Heavy, KeyCounts
from streamrnn.jobs.engines.pieces import RowRange
from streamrnn.stream.scoring import BoundPipeline
from streamrnn.stream.sources import Origin, Reading, SourceBatch, SourceOfFiles
from streamrnn.stream.states import by_shard, key_hashes, shard_of


class FileSpan(NamedTuple):
    """Rows of one file within a piece: from row `offset` of the piece on, row `row` of `file`."""

    file: str
    offset: int
    row: int


@dataclass(frozen=True)
class Chunk:
    """The rows of one piece that belong to one shard, in their order.

    `batches` are record batches, each with the offsets of its rows in the piece (uint32). `first`
    is the number of the piece's first row in the input. `failed`: the piece could not be read to
    its end.
    """

    batches: tuple[tuple[pa.RecordBatch, Array], ...]
    spans: tuple[FileSpan, ...]
    first: int
    failed: bool = False

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(batch.num_rows for batch, _ in self.batches)

    @property
    def bytes(self) -> int:
        """Bytes of the rows."""
        return sum(batch.nbytes + offset_N.nbytes for batch, offset_N in self.batches)

    def origin(self, offset_N: Array) -> Origin:
        """Return the origin of rows, given their offsets in the piece."""
        starts = np.array([span.offset for span in self.spans], np.int64)
        rows = np.array([span.row for span in self.spans], np.int64)
        file_N = np.searchsorted(starts, offset_N, side="right") - 1
        files = tuple(span.file for span in self.spans)
        row_N = offset_N - starts[file_N] + rows[file_N]
        return Origin(files, file_N, row_N, offset_N.astype(np.int64) + self.first)


@dataclass
class Split:
    """What the driver needs to know of a piece that was read.

    `readings`: what was read of each file, by name. `rows_S` are the rows of each shard, `bytes`
    those of all chunks. `offset` is the one of a `SourceBatch`. `error`, with the number of the
    first row that was not read, ended it.
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
    bound: BoundPipeline, source: SourceOfFiles, piece: RowRange, shards: int
) -> tuple[Split, list[Chunk]]:
    """Read a piece of the source and divide its rows.

    Returns what the driver needs, and a chunk per shard. An error of the source is returned, not
    raised: the rows before it may have an earlier one.
    """
    found = Split([0] * shards, reached=piece.first)
    batches: list[list[tuple[pa.RecordBatch, Array]]] = [[] for _ in range(shards)]
    spans: list[FileSpan] = []
    counts = KeyCounts(bound.layout.keys)
    offset = 0
    try:
        for item in _read(source, piece):
            found.readings |= item.readings
            found.cast += item.cast
            found.offset = found.offset or item.offset
            spans += _spans(item.origin, offset)
            keys = [item.batch.column(field.name) for field in bound.layout.keys]
            hash_N = key_hashes(keys)
            counts.add(keys, hash_N)
            for own, index in zip(batches, by_shard(shard_of(hash_N, shards), shards), strict=True):
                if len(index):
                    rows = item.batch.take(pa.array(index))
                    own.append((rows, (index + offset).astype(np.uint32)))
            offset += item.batch.num_rows
    except StreamRNNError as error:
        found.error = error
    found.reached += offset
    found.heavy = counts.heaviest()
    failed = found.error is not None
    chunks = [Chunk(_joined(own), tuple(spans), piece.first, failed) for own in batches]
    found.rows_S = [chunk.rows for chunk in chunks]
    found.bytes = sum(chunk.bytes for chunk in chunks)
    return found, chunks


def _read(source: SourceOfFiles, piece: RowRange) -> Iterator[SourceBatch]:
    files = [file.anywhere() for file in piece.files]
    return source.subset(files).batches(piece.start, stop=piece.stop)


def _spans(origin: Origin, offset: int) -> Iterator[FileSpan]:
    """Yield the span of each file of consecutive rows; `offset` is that of the first row."""
    if not len(origin.file_N):
        return
    starts = np.flatnonzero(np.diff(origin.file_N, prepend=-1))
    for start in starts.tolist():
        yield FileSpan(origin.file(start), offset + start, int(origin.row_N[start]))


def _joined(
    batches: Sequence[tuple[pa.RecordBatch, Array]],
) -> tuple[tuple[pa.RecordBatch, Array], ...]:
    """Join successive record batches with equal schemas: few large buffers are moved faster."""
    joined = []
    for _, own in groupby(batches, key=lambda item: item[0].schema):
        rows, offsets = zip(*own, strict=True)
        joined.append((pa.concat_batches(rows), np.concatenate(offsets)))
    return tuple(joined)
