"""Arrow IPC: files (Feather version 2), and streams in files."""

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from streamrnn.stream.sources.formats.base import FileFormat, FileReader, Footer, Hints

_MAGIC = b"ARROW1"


class ArrowReader(FileReader):
    """One open Arrow IPC file or stream: its beginning, not its name, tells which of the two it is.

    Values are validated before use. A stream has no footer.
    """

    def __init__(self, stream: pa.NativeFile, hints: Hints) -> None:
        self._stream = stream
        start = stream.read(len(_MAGIC))
        stream.seek(0)
        self._file = pa.ipc.open_file(stream) if start == _MAGIC else None
        self.schema: pa.Schema = (self._file or pa.ipc.open_stream(stream)).schema
        if self._file is None:
            stream.seek(max(stream.size() - 8, 0))
            if stream.read() != b"\xff\xff\xff\xff\0\0\0\0":
                raise pa.ArrowInvalid(
                    "the end of the stream is missing: is it still being written?"
                )

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the number of rows of each record batch, of which only one column is read."""
        one = pa.ipc.IpcReadOptions(included_fields=[0])
        return Footer([batch.num_rows for batch in self._from(0, one)], None, "record batches")

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for batch in self._from(group):
            batch = batch.select(columns)
            batch.validate(full=True)
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)

    def _from(
        self, group: int, options: pa.ipc.IpcReadOptions | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read the record batches from number `group` on."""
        if self._file is None:
            self._stream.seek(0)
            yield from islice(pa.ipc.open_stream(self._stream, options=options), group, None)
            return
        file = self._file if options is None else pa.ipc.open_file(self._stream, options=options)
        for i in range(group, file.num_record_batches):
            yield file.get_batch(i)


ARROW = FileFormat("Arrow IPC", (".arrow", ".feather", ".ipc", ".arrows"), ArrowReader)
