"""Arrow IPC files (Feather version 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from streamrnn.sources.formats.base import ColumnStatistics, Footer


class ArrowFiles:
    """Arrow IPC files: record batches, without statistics."""

    name = "Arrow IPC"
    suffixes: tuple[str, ...] = (".arrow", ".feather", ".ipc")

    def open(self, stream: pa.NativeFile) -> ArrowReader:
        """Read the footer of a file. Raises pa.ArrowException or OSError if it is invalid."""
        return ArrowReader(stream)


class ArrowReader:
    """One open Arrow IPC file. Values are validated before use."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._file = pa.ipc.open_file(stream)
        self.schema: pa.Schema = self._file.schema

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the rows of each record batch, for which one column of it is read."""
        one = pa.ipc.IpcReadOptions(included_fields=[0])
        file = pa.ipc.open_file(self._stream, options=one)
        sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        return Footer(sizes, None)

    def statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        """Return nothing: the format has no statistics."""
        return {}

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read all rows from a record batch on."""
        for i in range(group, self._file.num_record_batches):
            batch = self._file.get_batch(i).select(columns)
            batch.validate(full=True)
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)
