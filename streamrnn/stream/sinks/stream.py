"""Rows as an Arrow IPC stream on stdout, or any binary stream."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from streamrnn.base.storage.files import advice_on
from streamrnn.errors import PipeClosed, SinkError


class StreamSink:
    """Writes record batches to `stream` (default: stdout) without buffering.

    A write blocks while the reader is slow. Raises PipeClosed if the reader closed the stream,
    SinkError for other errors. Closing ends the Arrow stream, and leaves `stream` open.
    """

    def __init__(self, schema: pa.Schema, stream: BinaryIO | None = None) -> None:
        if stream is None and sys.stdout is None:
            raise SinkError(
                "stdout, to which the rows are to be written, is closed. Connect it to a file or "
                "a pipe, or set [sink] path to a folder"
            )
        self._stream = stream or sys.stdout.buffer
        with self._guarded():
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._stream, mode="w"), schema)
            self._stream.flush()

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch, which must have the schema of the stream."""
        with self._guarded():
            self._writer.write_batch(batch)
            self._stream.flush()

    def close(self) -> None:
        """Write the end-of-stream marker, so that a reader can detect a truncated stream."""
        with self._guarded():
            self._writer.close()
            self._stream.flush()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            # Python flushes stdout again at exit, and would print "Exception … Broken pipe".
            if self._stream is sys.stdout.buffer:
                with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())
            raise PipeClosed("the reader of the output closed the pipe") from error
        except (OSError, pa.ArrowException) as error:
            raise SinkError(
                f"cannot write the stream: {getattr(error, 'strerror', None) or error}. "
                f"{advice_on(error)} and rerun the same command; it writes the stream from its "
                "beginning."
            ) from error
