"""Text files, plain or compressed with gzip or zstd, and the types of their values."""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.stream.sources.casts import in_halves
from streamrnn.stream.sources.formats.base import FileReader, Footer, Hints, UnparsedError

# Ending of file names -> codec, and the bytes with which such files start.
_CODECS = {".gz": ("gzip", b"\x1f\x8b"), ".zst": ("zstd", b"\x28\xb5\x2f\xfd")}
TEXT_BLOCK = 1 << 20
# Largest number of blocks from which types are inferred: the first (a row must fit into one block)
# and, for columns without values there, the next ones.
FIRST_BLOCKS = 16
_HEAD = 4096
NEWLINES = (b"\n", b"\r")
CUT_OFF = (
    "does not end with a newline: it may be cut off, or the file is still being written. If the "
    "line is complete, append a newline"
)


def also_compressed(*suffixes: str) -> tuple[str, ...]:
    """Return each suffix of file names alone, and with the ending of each compression.

    >>> also_compressed(".csv")
    ('.csv', '.csv.gz', '.csv.zst')
    """
    return tuple(f"{suffix}{ending}" for suffix in suffixes for ending in ("", *_CODECS))


def decompressed(stream: pa.NativeFile) -> pa.NativeFile:
    """Return the text of an open file from its beginning, at a position of its own.

    Reading a torn file raises OSError. Arrow's readers read ahead in threads that nothing waits
    for: these must run no Python code, or the process aborts if it ends meanwhile.
    """
    codec = _codec(stream)
    raw = stream.get_stream(0, stream.size())
    return pa.CompressedInputStream(raw, codec) if codec else raw


def _codec(stream: pa.NativeFile) -> str:
    start = stream.read_at(4, 0)
    return next((codec for codec, magic in _CODECS.values() if start.startswith(magic)), "")


class TextReader(FileReader):
    """One open text file, whose rows are one group, as a row may begin at any byte.

    `_whole` is the text if one block holds it, else None; `_head` has the first bytes of the text.
    Raises ValueError if the file is empty, or if a byte of `_head` is 0, as in UTF-16; OSError if a
    compressed file is torn.
    """

    def __init__(self, stream: pa.NativeFile, hints: Hints) -> None:
        self._stream = stream
        self._hints = hints
        self._counted = hints.rows
        self._offsets: dict[str, str] = {}
        text = decompressed(stream)
        block = text.read(TEXT_BLOCK)
        self._head: bytes = block[:_HEAD]
        self._whole: bytes | None = None if text.read(1) else block
        if not self._head:
            raise ValueError("it is empty: is it still being written?")
        if b"\0" in self._head:
            raise ValueError("expected text in UTF-8, received bytes of value 0 (UTF-16, binary?)")

    def _text(self) -> pa.NativeFile:
        """Return the text from its beginning, at a position of its own."""
        if self._whole is not None:
            return pa.BufferReader(self._whole)
        return decompressed(self._stream)

    def _ending(self, size: int) -> bytes:
        """Return the last `size` bytes. A large compressed file is read to its end."""
        if self._whole is not None:
            return self._whole[-size:]
        if not _codec(self._stream):
            return bytes(self._stream.read_at(size, max(self._stream.size() - size, 0)))
        text, tail = self._text(), b""
        while data := text.read(TEXT_BLOCK):
            tail = (tail + data)[-size:]
        return tail

    @abstractmethod
    def _texts(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns of all rows, block by block, as text or in their types."""

    @abstractmethod
    def _count(self) -> int:
        """Count the rows. Raises ValueError if the last row is cut off."""

    @abstractmethod
    def _line(self, row: int) -> int | None:
        """Return the number, from 1, of the line at which a row ends; None without such a row."""

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
            # Rows that are appended meanwhile are read by a later run.
            batch = self._parsed(texts.slice(0, end - row), row)
            row += batch.num_rows
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)
            if row >= end:
                return
        if row < end:
            raise ValueError(f"{end} rows were counted, {row} are there now")

    def _parsed(self, texts: pa.RecordBatch, row: int) -> pa.RecordBatch:
        """Return texts in the types of their columns; their first row is number `row`."""
        arrays, fields = [], [self.schema.field(name) for name in texts.schema.names]
        for field, values in zip(fields, texts.columns, strict=True):
            if pa.types.is_string(values.type):
                if getattr(field.type, "tz", None) == "UTC" and not self.offset(field.name):
                    self._offsets[field.name] = _offset_in(values)
                values = self._parse(values, field, row)
            arrays.append(values)
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _parse(self, texts: pa.StringArray, field: pa.Field, first: int) -> pa.Array:
        """Return texts, the first of which is in row `first`, as values of a column."""
        padded, name, kind = field.name in self._hints.declared, field.name, field.type

        def parsed(values: pa.StringArray) -> pa.Array | None:
            try:
                return parse_texts(values, kind, padded=padded)
            except UnfitTextError as error:
                unfit[:] = [error.row]
                return None

        unfit: list[int] = []
        if (values := parsed(texts)) is None and self._hints.unfit is not None:
            each = texts.dictionary_encode()  # if all texts are unfit, few are distinct
            values, wrong = in_halves(each.dictionary, parsed, kind)
            values, wrong = values.take(each.indices), pa.array(wrong, pa.int32())
            unfit = pc.indices_nonzero(pc.is_in(each.indices, wrong)).to_pylist()
        for row in unfit:
            place, text = first + row, repr(texts[row].as_py())
            if not self._hints.note(UnparsedError(place, None, name, text, kind)):
                raise UnparsedError(place, self._line(place), name, text, kind)
        return values


def shows_rows(stream: pa.NativeFile, header: int) -> bool:
    """Return whether the beginning of a file has lines after its header: rows, or damage."""
    try:
        text = decompressed(stream).read(_HEAD)
    except OSError:
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    # A header with an open quote continues in the next line.
    return len(lines) > header and b"".join(lines[:header]).count(b'"') % 2 == 0


NULLS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
    *("1.#QNAN", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
"""What pyarrow reads as null in columns of numbers or times; in columns of text, only ""."""

_TIMES = (
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
)
_KINDS = (pa.int64(), pa.bool_(), *_TIMES, pa.float64())
# A time's offset other than UTC.
_OFFSET = "[+-](?:(?:0[1-9]|1[0-9])(?::?[0-9]{2})?|00:?(?:0[1-9]|[1-5][0-9]))$"
# Integers that float64 may not hold exactly.
_LONG_INTEGER = r"^-?[0-9]{17,}$"


class UnfitTextError(ValueError):
    """A text, in a row (from 0), that is not a value of a type."""

    def __init__(self, row: int, value: str) -> None:
        super().__init__(value)
        self.row = row
        self.value = value


def infer(texts: pa.StringArray) -> pa.DataType:
    """Return the type of texts: int64, bool, date, timestamp, double, or else string.

    It is null if no text is a value (see `NULLS`). A timestamp has microseconds, or nanoseconds if
    texts have these, and is in UTC if the texts have offsets. The type is string if a text is an
    integer with a leading zero ("007"), in hexadecimal ("0x1f"), or too large for int64 (if other
    texts have fractions: of 17 digits or more).

    >>> infer(pa.array(["007", "12"])), infer(pa.array(["7", "12"]))
    (DataType(string), DataType(int64))
    """
    values = _without_nulls(texts).drop_null()
    if not len(values):
        return pa.null()
    for kind in _KINDS:
        if _cast(values, kind) is not None:
            exact = kind != pa.float64() or not _any(
                pc.match_substring_regex(values, _LONG_INTEGER)
            )
            return kind if exact and not _any(_padded(values, kind)) else pa.string()
    return pa.string()


def infer_time(texts: pa.StringArray) -> pa.DataType:
    """Return the type of texts that are dates or timestamps; string for others, null for nulls."""
    values = texts.drop_null()
    if not len(values):
        return pa.null()
    return next((kind for kind in _TIMES if _cast(values, kind) is not None), pa.string())


def parse_texts(texts: pa.StringArray, kind: pa.DataType, *, padded: bool = False) -> pa.Array:
    """Return texts as values of a type.

    Raises UnfitTextError for the first invalid text. Unless `padded`, a text with a leading zero is
    not an integer, because "007" would become 7. Among integers, "3.0" is 3, as pandas writes the
    integers of a column in which a value is missing.
    """
    received = texts
    if pa.types.is_string(kind):
        return texts
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) or kind == pa.binary():
        return texts.cast(kind)
    values = _cast(texts, kind)
    if values is None or (pa.types.is_floating(kind) and _any(pc.is_nan(values))):
        texts = _without_nulls(texts)
        values = _cast(texts, kind)
    if values is None and pa.types.is_integer(kind):
        texts = pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0+$", r"\1")
        values = _cast(texts, kind)
    zeros = pc.index(pa.array([], pa.bool_()) if padded else _padded(texts, kind), True).as_py()
    if values is None or zeros >= 0:
        # The first invalid text is the first with a leading zero, or one before it.
        sizes = range(1, len(texts) if zeros < 0 else zeros + 1)
        row = bisect_left(sizes, True, key=lambda rows: _cast(texts.slice(0, rows), kind) is None)
        raise UnfitTextError(row, received[row].as_py())
    return values


def _offset_in(texts: pa.StringArray) -> str:
    """Return the first offset other than UTC in texts of times, such as "-04:00"; "" for none."""
    row = pc.index(pc.match_substring_regex(texts, _OFFSET), True).as_py()
    return "" if row < 0 else str(pc.extract_regex(texts[row], f"(?P<offset>{_OFFSET})")["offset"])


def _cast(texts: pa.StringArray, kind: pa.DataType) -> pa.Array | None:
    if pa.types.is_null(kind):
        return pa.nulls(len(texts)) if texts.null_count == len(texts) else None
    try:
        return texts.cast(kind)
    except pa.ArrowException:
        return None


def _padded(texts: pa.StringArray, kind: pa.DataType) -> pa.BooleanArray:
    """Return which texts of integers have a leading zero; an empty array for other types."""
    if not pa.types.is_integer(kind):
        return pa.array([], pa.bool_())
    zero = pc.or_(pc.starts_with(texts, "0"), pc.starts_with(texts, "-0"))
    if not _any(zero):
        return zero
    return pc.and_(zero, pc.match_substring_regex(texts, "^-?0[0-9xX]"))


def _without_nulls(texts: pa.StringArray) -> pa.StringArray:
    null = pc.is_in(texts, pa.array(NULLS))
    return pc.if_else(null, pa.scalar(None, texts.type), texts) if _any(null) else texts


def _any(mask: pa.BooleanArray) -> bool:
    return bool(pc.any(mask, min_count=0).as_py())
