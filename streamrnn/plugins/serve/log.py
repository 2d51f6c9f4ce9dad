"""The log of accepted rows, which are on disk before the answer is sent, and of the last answers.

A segment is an Arrow stream. While it is written, its file is `N.arrows.open`. A commit, or rows of
other types, close the segment: its file becomes `N.arrows`, which runs read as a file of their
source. A crash leaves a segment open, and its last record batch may be torn. That batch is cut off,
as none of its requests was answered. Changed bytes before a whole record batch raise an error.

Each record batch has a note of the producers who sent its rows, and a checksum of rows and note. A
segment begins with a record batch without rows, whose note has all producers. A note is a JSON
object of producer -> [sequence, answer]. The answer is an Arrow record batch in base64, or null if
the answer was dropped.
"""

import base64
import io
import logging
import os
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import orjson
import pyarrow as pa
from starlette.exceptions import HTTPException

from streamrnn.base.storage import LocalFiles, LocalOutput, sink_errors
from streamrnn.errors import SinkError
from streamrnn.jobs.outputs import put_ahead

_OPEN, _CLOSED = ".arrows.open", ".arrows"
_END = b"\xff\xff\xff\xff\0\0\0\0"
_BEGIN = re.compile(rb"(?s)(?=\xff{4}...\0)")
"""Where a message of an Arrow stream may begin: four bytes 0xFF, then the message's length."""
_NOTE, _SUM = b"note", b"crc32"
_LOGGER = logging.getLogger("streamrnn.plugins")
_PRODUCERS = 10_000
"""Largest number of producers in memory; the one that was silent longest is forgotten first."""
_ANSWERS = 64 << 20
"""Largest size of all answers, in bytes of base64: the oldest are dropped first, the last never."""


class Producers:
    """The number of each producer's last request, and the answer to it."""

    def __init__(self) -> None:
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._size = 0
        self.forgotten = 0
        """The number of forgotten producers."""

    def answer(
        self, producer: str, sequence: int, schema: pa.Schema | None
    ) -> pa.RecordBatch | HTTPException | None:
        """Return the answer to a request that repeats the producer's last one; None for a new one.

        If another `sequence` is expected, or the answer was dropped or has another schema than
        `schema`, return an HTTPException with status 409 that says which sequence to send.
        """
        last = self._numbers.get(producer, sequence - 1)
        if sequence == last + 1:
            return None
        why = f"expected sequence {last} (the last one, again) or {last + 1}"
        if sequence == last:
            with suppress(KeyError, OSError, pa.ArrowException):  # dropped, or of other columns
                answer = base64.b64decode(self._answers[producer])
                rows = pa.ipc.read_record_batch(pa.py_buffer(answer), schema)
                rows.validate(full=True)
                return rows
            why = f"rows were accepted, but the answer is not kept; expected sequence {last + 1}"
        return HTTPException(409, f"producer {producer!r}: {why}, received {sequence}")

    def remember(self, note: bytes) -> None:
        """Add the last requests of the producers in a note."""
        for producer, (sequence, answer) in orjson.loads(note).items():
            self._numbers[producer] = sequence
            self._numbers.move_to_end(producer)
            self._drop_answer(producer)
            if answer is not None:
                self._answers[producer] = answer
                self._size += len(answer)
        while len(self._numbers) > _PRODUCERS:
            self._drop_answer(self._numbers.popitem(last=False)[0])
            self.forgotten += 1
        while self._size > _ANSWERS and len(self._answers) > 1:
            self._drop_answer(next(iter(self._answers)))

    def _drop_answer(self, producer: str) -> None:
        self._size -= len(self._answers.pop(producer, ""))

    def note(self) -> bytes:
        """Return the last requests of all producers as a note."""
        last = {name: (n, self._answers.get(name)) for name, n in self._numbers.items()}
        return orjson.dumps(last)


class _Segment:
    def __init__(self, output: LocalOutput, schema: pa.Schema) -> None:
        self.output, self.schema = output, schema
        self._buffer = io.BytesIO()
        # Without it, a record batch takes 20 writes.
        self._joining = pa.output_stream(self._buffer, buffer_size=1 << 16)
        self._writer = pa.ipc.new_stream(self._joining, schema)

    def write(self, rows: pa.RecordBatch, note: bytes) -> None:
        metadata = {_NOTE: note, _SUM: str(_checksum(rows, note)).encode()}
        self._writer.write_batch(rows, custom_metadata=metadata)
        self._joining.flush()
        self.output.write(self._buffer.getvalue(), hashed=False)
        self._buffer.seek(0)
        self._buffer.truncate()


class Log:
    """Appends rows to the segments in a folder, for one writer.

    After a SinkError a log must not be used: it is unknown how much of the open segment is on disk,
    so not even its end may be written.

    Opening a log closes segments that a crash has left open. `used`: paths of earlier segments,
    including removed ones and ones in another folder; new segments get higher numbers. `producers`:
    the producers whose requests were appended or read. `closed`: the paths of closed segments that
    no commit has taken, in order.
    """

    def __init__(self, folder: str, used: Iterable[str] = ()) -> None:
        self.producers = Producers()
        self._files = LocalFiles(folder)
        self._used = [path for path in used if path.endswith(_CLOSED)]
        self._open: _Segment | None = None
        self.closed: list[str] = []
        self._files.make("")
        for name in self._files.entries(""):
            if name.endswith(_OPEN):
                self._cut(name)

    @property
    def segments(self) -> list[str]:
        """The paths of all closed segments, in order."""
        names = (name for name in self._files.entries("") if name.endswith(_CLOSED))
        return [self._files.show(name) for name in sorted(names, key=_number)]

    def append(
        self, rows: pa.RecordBatch, answers: Mapping[str, tuple[int, pa.RecordBatch]]
    ) -> None:
        """Write rows, and remember the answers to producers: producer -> (sequence, answer)."""
        note = orjson.dumps(
            {
                producer: (sequence, base64.b64encode(answer.serialize()).decode())
                for producer, (sequence, answer) in answers.items()
            }
        )
        if self._open is not None and self._open.schema != rows.schema:
            self.close()
        if self._open is None:
            last = max(map(_number, [*self._used, *self.segments]), default=0)
            put_ahead(self._files)
            output = self._files.create(f"{last + 1:010d}{_OPEN}")
            self._files.sync("")
            self._open = _Segment(output, rows.schema)
            self._open.write(rows.slice(0, 0), self.producers.note())
        self._open.write(rows, note)
        self.producers.remember(note)

    def read(self, path: str) -> Iterator[pa.RecordBatch]:
        """Yield record batches of a closed segment; remember their producers. Raises SinkError."""
        with sink_errors("read", path), pa.ipc.open_stream(pa.OSFile(path)) as reader:
            for batch, metadata in reader.iter_batches_with_custom_metadata():
                self.producers.remember(metadata[_NOTE])
                yield batch

    def sync(self) -> None:
        """Wait until the written rows are on disk."""
        if self._open is not None:
            self._open.output.sync()

    def close(self) -> None:
        """Close the open segment, if there is one; the next rows begin another segment."""
        if self._open is not None:
            self._open.output.write(_END)
            self._open.output.finish()
            self.closed.append(self._name_closed(os.path.basename(self._open.output.path)))
            self._open = None

    def take_closed(self) -> list[str]:
        """Close the open segment; return the paths of all segments closed since the last call."""
        self.close()
        closed, self.closed = self.closed, []
        return closed

    def older(self, before: float) -> list[str]:
        """Return the paths of closed segments last changed before a time, in seconds since 1970.

        The newest segment is left out: it has the notes of all producers.
        """
        return [path for path in self.segments[:-1] if os.stat(path).st_mtime < before]

    def remove(self, segments: Iterable[str]) -> None:
        """Remove closed segments, named by their paths."""
        for path in segments:
            self._files.delete(os.path.basename(path))

    def _cut(self, name: str) -> None:
        """Close a segment that a crash has left open; keep only whole record batches.

        A segment without a whole record batch is deleted. Raises SinkError for changed bytes.
        """
        path = self._files.show(name)
        with sink_errors("read", path), self._files.open(name) as file:
            content = file.read_buffer()
        end = _whole(content)
        tail = content[end:].to_pybytes()
        if _followed(tail):
            raise SinkError(
                f"{path}: expected a record batch at byte {end}, received changed bytes and whole "
                "record batches after them, which no crash explains. Restore the file; or "
                f"give up all its rows from that byte on: truncate -s {end} {path}"
            )
        if not _END.startswith(tail):
            _LOGGER.warning("%s: cut off %d torn bytes at the end", path, len(tail))
        if not end:
            self._files.delete(name)
            return
        with sink_errors("write", path), open(path, "r+b") as torn:
            torn.truncate(end)
            torn.seek(end)
            torn.write(_END)
            torn.flush()
            self._files.disk.sync(torn.fileno())
        self._name_closed(name)

    def _name_closed(self, name: str) -> str:
        """Rename an open segment whose end is written; return its new path."""
        closed = name.removesuffix(_OPEN) + _CLOSED
        self._files.move(name, closed)
        self._files.sync("")
        return self._files.show(closed)


def _whole(content: pa.Buffer) -> int:
    """Return the number of bytes up to the end of the last whole record batch, or 0."""
    end, file = 0, pa.BufferReader(content)
    try:
        reader = pa.ipc.open_stream(file)
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            if int(metadata[_SUM]) != _checksum(batch, metadata[_NOTE]):
                break
            end = file.tell()
    except MemoryError:
        raise
    except (StopIteration, KeyError, TypeError, ValueError, OSError, pa.ArrowException):
        pass
    return end


def _followed(tail: bytes) -> bool:
    """Return whether a whole record batch begins somewhere after the first byte."""
    buffer = pa.py_buffer(tail)
    for begin in _BEGIN.finditer(tail, 1):
        with suppress(EOFError, OSError, pa.ArrowInvalid):
            if pa.ipc.read_message(buffer[begin.start() :]).type == "record batch":
                return True
    return False


def _number(path: str) -> int:
    """Return the number of a segment; 0 for another file."""
    number = os.path.basename(path).partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _checksum(rows: pa.RecordBatch, note: bytes) -> int:
    return zlib.crc32(rows.serialize(), zlib.crc32(note))
