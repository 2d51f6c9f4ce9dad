"""Record batches of an Arrow IPC stream, as on stdin."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from typing import BinaryIO

import pyarrow as pa

from streamrnn.errors import DataError, StreamRNNError
from streamrnn.sources.base import SourceBatch
from streamrnn.sources.content import Content
from streamrnn.sources.files import SourceFile
from streamrnn.sources.position import Position
from streamrnn.sources.schema import select, used_schema
from streamrnn.sources.timeline import FileTimes

STDIN = "stdin"
# What pyarrow raises over damaged bytes; names that are no UTF-8 are ValueErrors.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, RecursionError)


class StreamSource:
    """The record batches of an Arrow IPC stream, `rows` at most in each. It is read once.

    Stdin holds one Arrow stream and nothing else: it is read to its own end, which comes when
    what writes it closes it, so that a socket which is kept open keeps the run waiting. Of a
    `stream` that is given, what follows the Arrow stream is left alone.

    The values in use are checked before they are touched, as damaged offsets would lead anywhere.
    (11 to 22 ms for 100 MB, a fifth of what reading them takes.)
    """

    replayable = False
    name = STDIN
    time: str | None = None

    def __init__(
        self, columns: Sequence[str] | None, rows: int, stream: BinaryIO | None = None
    ) -> None:
        self.columns = columns
        self.rows = rows
        self.files: list[SourceFile] = []
        self._stream = stream

    @cached_property
    def _input(self) -> _Input:
        return _Input(self._stream or sys.stdin.buffer)

    @cached_property
    def _reader(self) -> pa.RecordBatchReader:
        return pa.ipc.open_stream(self._input)

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns in use. Raises DataError for what is no Arrow stream."""
        try:
            return used_schema(self._reader.schema, self.columns, STDIN)
        except StreamRNNError:
            raise
        except DAMAGE as error:
            raise DataError(
                f"{STDIN}: expected an Arrow IPC stream, received something else: {error}. In "
                "Python: pyarrow.ipc.new_stream(sys.stdout.buffer, schema)"
            ) from error

    @property
    def identity(self) -> Hashable:
        """Its name: what a stream holds shows when it is read."""
        return STDIN

    @property
    def of_files(self) -> None:
        """A stream has none."""

    def total_rows(self) -> None:
        """None: unknown."""

    def times(self, files: Sequence[SourceFile]) -> list[FileTimes]:
        """None: there are no files."""
        return []

    def in_time_order(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """None: there are no files."""
        return []

    def batches(
        self, start: Position | None = None, before: Content | None = None
    ) -> Iterator[SourceBatch]:
        """All record batches; rows before `start` are read, and passed over.

        Raises DataError where the stream is damaged or breaks off; at its end if the mark of the
        end is missing, as its producer may have been stopped before it was done; and for stdin if
        more follows, such as another stream.
        """
        names, row, skip = self.schema.names, 0, start.file_row if start else 0
        try:
            for whole in self._reader:
                used = whole.select(names)
                used.validate(full=True)
                passed = min(max(skip - row, 0), used.num_rows)
                row += passed
                for first in range(passed, used.num_rows, self.rows):
                    batch = select(used.slice(first, self.rows), self.schema)
                    position = Position(STDIN, 0, 0, row + batch.num_rows, done=False)
                    yield SourceBatch(batch, STDIN, row, position)
                    row += batch.num_rows
        except DAMAGE as error:
            what = "breaks off" if self._input.ended else "is damaged"
            raise DataError(
                f"{STDIN}: the Arrow stream {what} after row {row}: {error}. Run what writes it "
                "again."
            ) from error
        if self._input.ended:
            raise DataError(
                f"{STDIN}: the Arrow stream breaks off after row {row}: expected the mark of its "
                "end, received the end of the input. What writes it was stopped, or has to close "
                "the stream: in Python, writer.close()."
            )
        if self._stream is None and self._input.read(1):
            raise DataError(
                f"{STDIN}: more bytes after the end of the Arrow stream, which is after row {row}: "
                "expected one stream and nothing else. Write all record batches into one stream, "
                "or write files and name their folder: [source] path."
            )


class _Input:
    """A binary stream that remembers whether more was wanted of it than was there.

    pyarrow takes that for the end of an Arrow stream too, where it comes between two messages;
    behind the mark of the end it reads no further.
    """

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.ended = self.ended or len(data) < size
        return data
