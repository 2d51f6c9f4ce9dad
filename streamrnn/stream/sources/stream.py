"""Record batches of an Arrow IPC stream, as on stdin."""

import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO

import pyarrow as pa

from streamrnn.errors import DataError, StreamRNNError
from streamrnn.stream.sources.base import Source, SourceBatch
from streamrnn.stream.sources.casts import cast_columns
from streamrnn.stream.sources.content import Content
from streamrnn.stream.sources.contract import Feature
from streamrnn.stream.sources.files import SourceFile
from streamrnn.stream.sources.position import Origin, Position
from streamrnn.stream.sources.schema import (
    NamesInFiles,
    common_schema,
    in_earlier_types,
    new_names,
    select,
    used_schema,
    with_new_names,
)

STDIN = "stdin"
# The errors that pyarrow raises for damaged bytes; names that are not UTF-8 raise ValueError.
DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, RecursionError)


@dataclass(eq=False, repr=False)
class StreamSource(Source):
    """The record batches of an Arrow IPC stream, at most `rows` rows each. It is read once.

    Stdin must hold one Arrow stream and nothing else. It is read until its writer closes it, so a
    socket that stays open keeps the run waiting. If a `stream` is given, bytes after the Arrow
    stream are not read.

    The values in use are validated first, because damaged offsets could point anywhere. (This takes
    11 to 22 ms for 100 MB, a fifth of the time to read them.)
    """

    replayable = False
    name = STDIN
    columns: Sequence[str] | None
    rows: int
    stream: BinaryIO | None = None
    features: Mapping[str, Feature] = field(default_factory=dict)
    renames: NamesInFiles = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.time: str | None = None
        self.earlier: Mapping[str, str] = {}
        self.files: list[SourceFile] = []

    @cached_property
    def _input(self) -> "_Input":
        return _Input(self.stream or sys.stdin.buffer)

    @cached_property
    def _reader(self) -> pa.RecordBatchReader:
        return pa.ipc.open_stream(self._input)

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns in use. Raises DataError."""
        return in_earlier_types(self._own, self.earlier)

    @cached_property
    def _new_names(self) -> dict[str, str]:
        return new_names(self._reader.schema.names, self.renames, STDIN)

    @cached_property
    def _own(self) -> pa.Schema:
        try:
            schema = with_new_names(self._reader.schema, self._new_names)
            return used_schema(schema, self.columns, STDIN)
        except StreamRNNError:
            raise
        except DAMAGE as error:
            raise DataError(
                f"{STDIN}: expected an Arrow IPC stream, received other data: {error}. To write "
                "one in Python: pyarrow.ipc.new_stream(sys.stdout.buffer, schema)"
            ) from error

    @property
    def identity(self) -> Hashable:
        return STDIN

    def batches(
        self, start: Position | None = None, before: Content | None = None
    ) -> Iterator[SourceBatch]:
        """Read all record batches; rows before `start` are read and skipped.

        Raises DataError if the stream is damaged or truncated, if its end-of-stream marker is
        missing (its writer may have been stopped early), or, on stdin, if more bytes follow.
        """
        origin = "earlier runs"
        own, schema = common_schema(self.schema, self._own, STDIN, origin, self.features)
        changed = sum(a.type != b.type for a, b in zip(own, self.schema, strict=True))
        old = {new: old for old, new in self._new_names.items()}
        names = [old.get(name, name) for name in own.names]
        row, skip = 0, start.file_row if start else 0
        try:
            for whole in self._reader:
                used = whole.select(names).rename_columns(own.names)
                used.validate(full=True)
                skipped = min(max(skip - row, 0), used.num_rows)
                row += skipped
                for first in range(skipped, used.num_rows, self.rows):
                    batch = select(used.slice(first, self.rows), own)
                    if own != schema:
                        batch = cast_columns(batch, schema, STDIN, row, origin)
                    places = Origin.consecutive(STDIN, row, batch.num_rows)
                    row += batch.num_rows
                    position = Position(STDIN, 0, 0, row)
                    yield SourceBatch(batch, places, position, cast=changed * batch.num_rows)
        except DAMAGE as error:
            problem = "ends early" if self._input.ended else "is damaged"
            raise DataError(
                f"{STDIN}: the Arrow stream {problem} after row {row}: {error}. Rerun its writer."
            ) from error
        if self._input.ended:
            raise DataError(
                f"{STDIN}: the Arrow stream ends early after row {row}: expected the end-of-stream "
                "marker, received the end of the input. Its writer was stopped, or did not close "
                "the stream: in Python, call writer.close()."
            )
        if self.stream is None and self._input.read(1):
            raise DataError(
                f"{STDIN}: there are extra bytes after the end of the Arrow stream, which has "
                f"{row} rows: expected one stream and nothing else. Write all record batches to "
                "one stream, or write files and set [source] path to their folder."
            )


class _Input:
    """A binary stream that records whether a read was cut short by the end of the input.

    pyarrow also accepts the end of the input between two messages as the end of an Arrow stream. It
    does not read beyond the end-of-stream marker.
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
