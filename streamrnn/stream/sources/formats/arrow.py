"""Arrow IPC: files (Feather version 2), and streams in files."""

from collections.abc import Iterator

import pyarrow as pa

from streamrnn.stream.sources.formats.base import FileReader, Footer, Hints

_MAGIC = b"ARROW1"


class ArrowFiles:
    """Arrow IPC files and streams: record batches, without statistics.

    The beginning of a file, not its name, tells which of the two it is.
    """

    name = "Arrow IPC"
    suffixes: tuple[str, ...] = (".arrow", ".feather", ".ipc", ".arrows")
    typed = True
    header = 0

    def open(self, stream: pa.NativeFile, hints: Hints) -> "ArrowReader | ArrowStreamReader":
        """Read a footer, or a schema. Raises pa.ArrowException or OSError if it is invalid."""
        start = stream.read(len(_MAGIC))
        stream.seek(0)
        return ArrowReader(stream) if start == _MAGIC else ArrowStreamReader(stream)


class ArrowReader(FileReader):
    """One open Arrow IPC file. Values are validated before use."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._file = pa.ipc.open_file(stream)
        self.schema: pa.Schema = self._file.schema

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the number of rows of each record batch, of which only one column is read."""
        one = pa.ipc.IpcReadOptions(included_fields=[0])
        file = pa.ipc.open_file(self._stream, options=one)
        sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        return Footer(sizes, None, "record batches")

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read all rows from a record batch on."""
        for i in range(group, self._file.num_record_batches):
            yield from _validated(self._file.get_batch(i), rows, columns)


class ArrowStreamReader(FileReader):
    """One open file with an Arrow IPC stream. Values are validated before use.

    It has no footer: its record batches are counted by reading one column of each.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self.schema: pa.Schema = self._restarted(None).schema
        stream.seek(max(stream.size() - 8, 0))
        if stream.read() != b"\xff\xff\xff\xff\0\0\0\0":
            raise pa.ArrowInvalid("the end of the stream is missing: is it still being written?")

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the number of rows of each record batch."""
        one = pa.ipc.IpcReadOptions(included_fields=[0])
        return Footer([batch.num_rows for batch in self._restarted(one)], None, "record batches")

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read all rows from a record batch on."""
        for i, batch in enumerate(self._restarted(None)):
            if i >= group:
                yield from _validated(batch, rows, columns)

    def _restarted(self, options: pa.ipc.IpcReadOptions | None) -> pa.RecordBatchStreamReader:
        self._stream.seek(0)
        return pa.ipc.open_stream(self._stream, options=options)


def _validated(batch: pa.RecordBatch, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    batch = batch.select(columns)
    batch.validate(full=True)
    for first in range(0, batch.num_rows, rows):
        yield batch.slice(first, rows)
