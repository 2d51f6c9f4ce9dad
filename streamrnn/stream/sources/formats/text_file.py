"""Files of text, which may be compressed with gzip or zstd: their bytes, and reading their rows."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property

import pyarrow as pa

from streamrnn.stream.sources.formats.base import FileReader, Footer, Hints, UnparsedError
from streamrnn.stream.sources.formats.text_values import UnfitTextError, note_offset, parse_texts

# A file name ends in the key; a file starts with the bytes.
_CODECS = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
TEXT_BLOCK = 1 << 20
_HEAD = 4096
NEWLINES = (b"\n", b"\r")
CUT_OFF = (
    "does not end with a newline: it may be cut off, or the file still being written. If it is "
    "complete, append a newline"
)


def also_compressed(*suffixes: str) -> tuple[str, ...]:
    """Return suffixes of file names, each also with the ending of each compression.

    >>> also_compressed(".csv")
    ('.csv', '.csv.gz', '.csv.zst')
    """
    return tuple(f"{suffix}{ending}" for suffix in suffixes for ending in ("", *_CODECS))


def decompressed(stream: pa.NativeFile) -> pa.NativeFile:
    """Return the text of an open file from its beginning, at a position of its own.

    The beginning of a file tells whether it is compressed. Reading raises OSError if it is torn.
    Arrow's readers read ahead in threads that nothing waits for: these must run no Python code, or
    the process aborts if it ends meanwhile.
    """
    codec = _codec(stream)
    raw = stream.get_stream(0, stream.size())
    return pa.CompressedInputStream(raw, codec) if codec else raw


def _codec(stream: pa.NativeFile) -> str:
    start = stream.read_at(4, 0)
    return next((codec for codec, magic in _CODECS.values() if start.startswith(magic)), "")


class TextFile:
    """The text of an open file, which is read once if a block holds it.

    `whole` is then the whole text, else None; `head` its first bytes. Raises ValueError if one of
    these is 0, as in UTF-16, or the file is empty; OSError if a compressed file is torn.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        text = decompressed(stream)
        block = text.read(TEXT_BLOCK)
        self.head: bytes = block[:_HEAD]
        self.whole: bytes | None = None if text.read(1) else block
        if not self.head:
            raise ValueError("it is empty: is it still being written?")
        if b"\0" in self.head:
            raise ValueError("expected text in UTF-8, received bytes of value 0 (UTF-16, binary?)")

    def open(self) -> pa.NativeFile:
        """Return the text from its beginning, at a position of its own."""
        if self.whole is not None:
            return pa.BufferReader(self.whole)
        return decompressed(self._stream)

    def ending(self, size: int) -> bytes:
        """Return the last `size` bytes. A large compressed file is read to its end."""
        if self.whole is not None:
            return self.whole[-size:]
        if not _codec(self._stream):
            start = max(self._stream.size() - size, 0)
            return bytes(self._stream.read_at(size, start))
        text, tail = self.open(), b""
        while data := text.read(TEXT_BLOCK):
            tail = (tail + data)[-size:]
        return tail


class TextReader(FileReader):
    """One open file of text. Its rows are one group, as a row may begin at any byte."""

    def __init__(self, stream: pa.NativeFile, hints: Hints) -> None:
        self._text = TextFile(stream)
        self._declared = hints.declared
        self._counted = hints.rows
        self._offsets: dict[str, str] = {}

    @abstractmethod
    def _texts(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns of all rows, block by block, as text or in their types."""

    @abstractmethod
    def _count(self) -> int:
        """Count the rows. Raises ValueError if the last is cut off."""

    @abstractmethod
    def _line(self, row: int) -> int | None:
        """Return the number of the line at which a row ends, from 1; None if there is none."""

    @cached_property
    def _rows(self) -> int:
        return self._count() if self._counted is None else self._counted

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        return Footer([self._rows] if self._rows else [], None, "text")

    def offset(self, column: str) -> str:
        return self._offsets.get(column, "")

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        row, end = 0, self._rows if group == 0 else 0
        for texts in self._texts(columns):
            # What is appended meanwhile is read by another run.
            batch = self._parsed(texts.slice(0, end - row), row)
            row += batch.num_rows
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)
            if row >= end:
                return
        if row < end:
            raise ValueError(f"{end} rows were counted, {row} are there now")

    def _parsed(self, texts: pa.RecordBatch, row: int) -> pa.RecordBatch:
        """Return texts, the first of which is `row`, in the types of their columns."""
        arrays, fields = [], [self.schema.field(name) for name in texts.schema.names]
        for field, values in zip(fields, texts.columns, strict=True):
            try:
                if pa.types.is_string(values.type):
                    padded, text = field.name in self._declared, values
                    values = parse_texts(text, field.type, padded=padded)
                    note_offset(self._offsets, field, text)
            except UnfitTextError as error:
                place = row + error.row
                raise UnparsedError(
                    place, self._line(place), field.name, repr(error.value), str(field.type)
                ) from None
            arrays.append(values)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def shows_rows(stream: pa.NativeFile, header: int) -> bool:
    """Return whether the beginning of a file has lines after its header.

    If so, it has rows, or is damaged. False if the beginning does not tell.
    """
    try:
        text = decompressed(stream).read(_HEAD)
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    # In quotes a line may go on in the next one.
    return len(lines) > header and b"".join(lines[:header]).count(b'"') % 2 == 0
