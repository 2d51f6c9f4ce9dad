"""Files with newline-delimited JSON, plain or compressed."""

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from streamrnn.stream.sources.formats.base import FileFormat, Hints, UnparsedError
from streamrnn.stream.sources.formats.text import (
    CUT_OFF,
    FIRST_BLOCKS,
    TEXT_BLOCK,
    TextReader,
    also_compressed,
    infer_time,
)

_EXACT = float(1 << 53)


class NdjsonReader(TextReader):
    """One open NDJSON file, with one JSON object per line, as pyarrow reads it.

    A column of strings that hold times is read as times, unless `hints` has its type. A key that a
    row lacks is null in that row.
    """

    def __init__(self, stream: pa.NativeFile, hints: Hints) -> None:
        super().__init__(stream, hints)
        self._all: pa.RecordBatch | None = None  # rows of a file of one block
        self.schema = self._columns(hints)

    def _count(self) -> int:
        if self._all is not None:
            return int(self._all.num_rows)
        return sum(len(_lines(block)) for block in self._blocks())

    def _columns(self, hints: Hints) -> pa.Schema:
        """Return the columns of the first block, and columns of `hints` that later blocks have.

        Types that are not in `hints` are inferred. Raises ValueError for an integer that would be
        rounded.
        """
        inferred: dict[str, pa.DataType] = {}
        missing = set(hints.types)
        hinted = _as_json(pa.schema(list(hints.types.items())))
        row = 0
        for number, block in enumerate(self._blocks()):
            missing = {name for name in missing if not _mentions(block, name)}
            pending = [name for name, kind in inferred.items() if pa.types.is_null(kind)]
            if number == 0 or (pending and number < FIRST_BLOCKS):
                lines = _lines(block)
                batch = self._first(lines, hinted, row)
                row += len(lines)
                if self._whole is not None:
                    self._all = batch
                inferred |= {
                    name: _inferred(batch.column(name), name)
                    for name in (batch.schema.names if number == 0 else pending)
                    if name not in hints.types
                }
            elif not missing:
                break
        if not row:
            missing = set()
        names = {name: kind for name, kind in hints.types.items() if name not in missing}
        return pa.schema([*inferred.items(), *names.items()])

    def _first(self, lines: list[bytes], hinted: pa.Schema, row: int) -> pa.RecordBatch:
        """Read lines with all columns; times are read as texts, as pyarrow drops their offsets."""
        batch = self._read(lines, hinted, "infer", row)
        times = [
            pa.field(field.name, pa.string())
            for field in batch.schema
            if pa.types.is_timestamp(field.type)
        ]
        return self._read(lines, pa.schema([*hinted, *times]), "infer", row) if times else batch

    def _texts(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns of all rows, block by block, times and binary values as strings."""
        if self._all is not None:
            yield self._all.select(columns)
            return
        wanted, row = _as_json(pa.schema([self.schema.field(name) for name in columns])), 0
        for block in self._blocks():
            lines = _lines(block)
            yield self._read(lines, wanted, "ignore", row)
            row += len(lines)

    def _read(
        self, lines: list[bytes], schema: pa.Schema, unexpected: str, row: int
    ) -> pa.RecordBatch:
        """Read lines, the first of which is row `row`. Raises ValueError for an invalid line."""

        def fails(count: int) -> bool:
            try:
                _read_lines(lines[:count], schema, unexpected)
            except (pa.ArrowException, UnicodeDecodeError):
                return True
            return False

        with suppress(pa.ArrowException, UnicodeDecodeError):
            return _read_lines(lines, schema, unexpected)
        lines = _with_integers(lines, schema)
        if self._hints.unfit is not None:
            lines = self._mended(lines, schema, row)
        with suppress(pa.ArrowException, UnicodeDecodeError):
            return _read_lines(lines, schema, unexpected)
        first = bisect_left(range(1, len(lines)), True, key=fails)
        raise self._invalid(lines[first], schema, row + first, self._line(row + first))

    def _mended(self, lines: list[bytes], schema: pa.Schema, row: int) -> list[bytes]:
        """Return lines with null for values that cannot be read, and note these."""
        with suppress(pa.ArrowException, UnicodeDecodeError):
            _read_lines(lines, schema, "ignore")
            return lines
        if half := len(lines) // 2:
            rest = self._mended(lines[half:], schema, row + half)
            return [*self._mended(lines[:half], schema, row), *rest]
        error = self._invalid(lines[0], schema, row, None)
        if not isinstance(error, UnparsedError):
            return lines
        if not self._hints.note(error):
            raise error
        mended = {**json.loads(lines[0]), error.column: None}
        return self._mended([json.dumps(mended).encode()], schema, row)

    def _invalid(self, line: bytes, schema: pa.Schema, row: int, number: int | None) -> ValueError:
        try:
            row_object = json.loads(line)
        except ValueError as error:
            return ValueError(f"row {row} (from 0), line {number}: invalid JSON: {error}")
        if not isinstance(row_object, dict):
            return ValueError(
                f"row {row} (from 0), line {number}: expected one object a line, received "
                f"{type(row_object).__name__}"
            )
        for field in schema:
            value = row_object.get(field.name)
            alone = json.dumps({field.name: value}).encode()
            try:
                _read_lines([alone], pa.schema([field]), "ignore")
            except pa.ArrowException:
                shown = json.dumps(value)
                return UnparsedError(row, number, field.name, shown, field.type)
        return ValueError(
            f"row {row} (from 0), line {number}: its values differ in type from the values of "
            "earlier rows, or a key is given twice"
        )

    def _blocks(self) -> Iterator[bytes]:
        """Yield blocks of whole lines. Raises ValueError if the file's last line is cut off."""
        text, rest = self._text(), b""
        while data := text.read(TEXT_BLOCK):
            block, newline, after = data.rpartition(b"\n")
            if newline:
                yield rest + block
                rest = after
            else:
                rest += data
        if rest.strip():
            raise ValueError(f"the last line {CUT_OFF}")

    def _line(self, row: int) -> int | None:
        number = 0
        for block in self._blocks():
            for line in block.split(b"\n"):
                number += 1
                if line.strip():
                    row -= 1
                if row < 0:
                    return number
        return None


def _spelled(name: str) -> list[bytes]:
    """Return the ways to write a key."""
    return [json.dumps(name, ensure_ascii=as_ascii).encode() for as_ascii in (False, True)]


def _mentions(block: bytes, name: str) -> bool:
    """Return whether a block may contain a key, even with null."""
    return any(text in block for text in _spelled(name))


def _with_integers(lines: list[bytes], schema: pa.Schema) -> list[bytes]:
    """Return lines with 3 for a number such as 3.0 in columns of integers."""
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    keys = b"|".join(re.escape(key) for name in integers for key in _spelled(name))
    whole = re.compile(rb"((?:%s)\s*:\s*-?[0-9]+)\.0+(?=\s*[,}])" % keys)
    return [whole.sub(rb"\1", line) for line in lines] if integers else lines


def _lines(block: bytes) -> list[bytes]:
    return [line for line in block.split(b"\n") if line and not line.isspace()]


def _read_lines(lines: list[bytes], schema: pa.Schema, unexpected: str) -> pa.RecordBatch:
    """Read one row from each line. Raises pa.ArrowException."""
    if not lines:
        return pa.RecordBatch.from_pylist([], schema=schema)
    data = b"\n".join(lines)
    table = pajson.read_json(
        pa.BufferReader(data),
        read_options=pajson.ReadOptions(block_size=len(data) + 1, use_threads=False),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior=unexpected
        ),
    )
    if table.num_rows != len(lines):
        raise pa.ArrowInvalid("expected one object a line")
    batch = table.combine_chunks().to_batches()[0]
    batch.validate(full=True)
    return batch


def _as_json(schema: pa.Schema) -> pa.Schema:
    """Return the types in which columns are read: JSON has times and binary values as text."""
    types = pa.types
    texts = (types.is_temporal, types.is_large_string, types.is_binary, types.is_large_binary)
    kinds = [pa.string() if any(test(kind) for test in texts) else kind for kind in schema.types]
    return pa.schema(list(zip(schema.names, kinds, strict=True)))


def _inferred(values: pa.Array, name: str) -> pa.DataType:
    """Return the type that pyarrow inferred for values; for texts, the type of their content."""
    kind = values.type
    if pa.types.is_string(kind):
        return infer_time(values)
    if pa.types.is_floating(kind) and pc.max(pc.abs(values)).as_py() is not None:
        whole = pc.equal(values, pc.floor(values))
        large = pc.greater_equal(pc.abs(values), _EXACT)
        if pc.any(pc.and_(whole, large), min_count=0).as_py():
            raise ValueError(
                f"column {name!r} has integers that int64 cannot hold. Set [source] types = "
                f'{{ {name} = "uint64" }}, or "double" to round them'
            )
    return kind


NDJSON = FileFormat("NDJSON", also_compressed(".ndjson", ".jsonl"), NdjsonReader, typed=False)
