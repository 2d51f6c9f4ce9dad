"""Pieces of files, one after another, gathered into record batches that may span files."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from streamrnn.stream.sources.base import SourceBatch
from streamrnn.stream.sources.content import Content, Reading
from streamrnn.stream.sources.origin import Origin
from streamrnn.stream.sources.position import Position

# Pieces are copied when they are gathered; offsets of strings have 32 bits.
_MOST_BYTES = 64 << 20
# A run stops after a record batch: on an object store, to read 256 files may take 10 s.
_MOST_PIECES = 256
Contents = Callable[[pa.RecordBatch, Sequence[int]], Sequence[Content]]


class Piece(NamedTuple):
    """Consecutive rows of one file, from `first_row` on, and the position after the last.

    `etag` is the object store's name of the version read, `opened_ns` the time it was opened,
    `cast` the number of values of columns that have another type in the file. `by_time`: its rows
    were sorted by time, and are counted in that order. `offset`: one of the text of its times that
    is not that of UTC.
    """

    batch: pa.RecordBatch
    path: str
    first_row: int
    position: Position
    etag: str
    opened_ns: int
    cast: int
    by_time: bool
    offset: str = ""


def gather_pieces(
    pieces: Iterator[Piece], rows: int, before: Content, contents: Contents
) -> Iterator[SourceBatch]:
    """Yield record batches of whole pieces, with at most `rows` rows (or one piece) each.

    `before` is the content of the first file before its first piece; `contents` returns those of
    the pieces of a batch, given their sizes. If `pieces` raises an error, the pieces before it are
    yielded first.
    """
    waiting: list[Piece] = []
    last = Reading(before)
    free_rows = free_bytes = 0
    schema: pa.Schema | None = None
    try:
        for piece in pieces:
            batch = piece.batch
            size, width = batch.num_rows, batch.nbytes
            if waiting and (
                size > free_rows
                or width > free_bytes
                or len(waiting) == _MOST_PIECES
                or not batch.schema.equals(schema)
            ):
                joined, last = _joined(waiting, last, contents)
                yield joined
                waiting = []
            if not waiting:
                free_rows, free_bytes, schema = rows, _MOST_BYTES, batch.schema
            waiting.append(piece)
            free_rows -= size
            free_bytes -= width
    except Exception:
        if waiting:
            yield _joined(waiting, last, contents)[0]
        raise
    if waiting:
        yield _joined(waiting, last, contents)[0]


def _joined(
    pieces: Sequence[Piece], last: Reading, contents: Contents
) -> tuple[SourceBatch, Reading]:
    """Return the pieces as one batch, and what was read so far of the last file.

    `last` is what was read of the first file before the first piece.
    """
    batch = pieces[0].batch
    if len(pieces) > 1:
        batch = pa.concat_batches([piece.batch for piece in pieces])
    sizes = [piece.batch.num_rows for piece in pieces]
    readings: dict[str, Reading] = {}
    for piece, content in zip(pieces, contents(batch, sizes), strict=True):
        if piece.first_row:
            content += last.content
        last = Reading(content, piece.etag, piece.opened_ns)
        readings[piece.position.file] = last
    origin = Origin.pieces(
        [piece.path for piece in pieces],
        [piece.first_row for piece in pieces],
        sizes,
        pieces[0].by_time,
    )
    cast = sum(piece.cast for piece in pieces)
    offset = max(piece.offset for piece in pieces)
    return SourceBatch(batch, origin, pieces[-1].position, readings, cast, offset), last
