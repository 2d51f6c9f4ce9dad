"""Record batches of an Arrow IPC stream, as on stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa

from streamrnn.errors import DataError
from streamrnn.sources.parquet import SourceBatch
from streamrnn.sources.position import Position
from streamrnn.sources.schema import select, used_schema

STDIN = "stdin"


class StreamSource:
    """The record batches of an Arrow IPC stream, `rows` at most in each. It is read once."""

    def __init__(
        self, columns: Sequence[str] | None, rows: int, stream: BinaryIO | None = None
    ) -> None:
        self.rows = rows
        try:
            self._reader = pa.ipc.open_stream(stream or sys.stdin.buffer)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{STDIN}: expected an Arrow IPC stream, received something else: {error}. In "
                "Python: pyarrow.ipc.new_stream(sys.stdout.buffer, schema)"
            ) from error
        self.schema = used_schema(self._reader.schema, columns, STDIN)

    def batches(self) -> Iterator[SourceBatch]:
        """All record batches. Raises DataError where the stream breaks off."""
        row = 0
        try:
            for whole in self._reader:
                for first in range(0, whole.num_rows, self.rows):
                    batch = whole.slice(first, self.rows)
                    position = Position(STDIN, 0, 0, row + batch.num_rows, done=False)
                    yield SourceBatch(select(batch, self.schema), STDIN, row, position)
                    row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{STDIN}: the Arrow stream breaks off after row {row}: {error}"
            ) from error
