"""CSV and TSV files, plain or compressed."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice

import pyarrow as pa
import pyarrow.csv as pacsv

from streamrnn.stream.sources.formats.base import FileFormat, Hints
from streamrnn.stream.sources.formats.text import (
    CUT_OFF,
    FIRST_BLOCKS,
    NEWLINES,
    TEXT_BLOCK,
    TextReader,
    also_compressed,
    infer,
)

_MARK = b"\xef\xbb\xbf"
_BLANK = b"\r\n" + _MARK
# Largest number of bytes of blank lines that may follow the last row when its end is checked.
_BLANK_END = 1 << 12
# What may separate columns if a comma or, in a file whose name says so, a tab does not.
OTHER_DELIMITERS = ";\t|"
_TABS = also_compressed(".tsv")


class CsvReader(TextReader):
    """One open CSV file: pyarrow finds the values, which are read as text and then converted."""

    def __init__(self, stream: pa.NativeFile, hints: Hints) -> None:
        super().__init__(stream, hints)
        self._delimiter = hints.delimiter or ("\t" if hints.path.lower().endswith(_TABS) else ",")
        names = self._names()
        other = next((mark for mark in OTHER_DELIMITERS if mark in names[0]), "")
        if len(names) == 1 and other and not hints.delimiter:
            raise ValueError(
                f"its header is one column, {names[0][:80]!r}. Set [source] delimiter = "
                f"{json.dumps(other)} if that separates columns, else "
                f"{json.dumps(self._delimiter)}"
            )
        self._columns = list(dict.fromkeys(names))
        kinds = {name: hints.types[name] for name in names if name in hints.types}
        kinds |= self._inferred([name for name in self._columns if name not in kinds])
        self.schema = pa.schema([pa.field(name, kinds[name]) for name in names])

    def _count(self) -> int:
        """Count the rows in a pass that parses all columns and keeps the values of the last."""
        rows, last = 0, ""
        for batch in self._texts([self.schema.names[-1]]):
            rows += batch.num_rows
            if batch.num_rows:
                last = batch.column(0)[-1].as_py() or ""
        quoted = '"{}"'.format(last.replace('"', '""')).encode()
        text = self._ending(len(quoted) + _BLANK_END)
        if not text.endswith(NEWLINES):
            raise ValueError(f"the last line {CUT_OFF}")
        if last.endswith(("\n", "\r")) and not text.rstrip(b"\r\n").endswith(quoted):
            raise ValueError("the last row is cut off: a quote is not closed")
        return rows

    def _names(self) -> list[str]:
        """Return the names in the header. Raises ValueError if it is missing or cut off."""
        lines = self._head.removeprefix(_MARK).lstrip(b"\r\n").splitlines(keepends=True)
        if lines and lines[0].endswith(NEWLINES):
            line = lines[0].rstrip(b"\r\n").decode()
            with suppress(csv.Error):  # such as a quote that is not closed in the line
                return next(csv.reader([line], delimiter=self._delimiter, strict=True))
        try:
            with self._located():
                names: list[str] = self._open(None).schema.names
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                raise ValueError(self._no_header()) from error
            raise
        return names

    def _no_header(self) -> str:
        """Return what is wrong with the header of a file that was read to its end."""
        if not self._ending(1).endswith(NEWLINES):
            return f"the header {CUT_OFF}"
        if self._text().read(TEXT_BLOCK).strip(_BLANK):
            return "the header is cut off: a quote is not closed. Write the file again"
        return "it has no header: write the names of the columns into its first line"

    def _inferred(self, names: list[str]) -> dict[str, pa.DataType]:
        """Infer types from the first block; for columns without values in it, from later ones."""
        kinds: dict[str, pa.DataType] = dict.fromkeys(names, pa.null())
        left = names
        for batch in islice(self._texts(names) if names else (), FIRST_BLOCKS):
            kinds |= {name: infer(batch.column(name)) for name in left}
            left = [name for name in left if pa.types.is_null(kinds[name])]
            if not left:
                break
        return kinds

    def _texts(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns as text, block by block; what the hints call null is null."""
        if self._whole is not None:
            yield from self._table.select(columns).to_batches()
            return
        with self._located():
            yield from self._open(self._as_text(columns))

    @cached_property
    def _table(self) -> pa.Table:
        """All columns, as text, of a file that is one block."""
        text = self._text()
        with self._located():
            table: pa.Table = pacsv.read_csv(
                text,
                read_options=pacsv.ReadOptions(block_size=text.size() + 1, use_threads=False),
                parse_options=self._parsing,
                convert_options=self._as_text(self._columns),
            )
        return table

    def _open(self, convert: pacsv.ConvertOptions | None) -> pacsv.CSVStreamingReader:
        return pacsv.open_csv(
            self._text(),
            read_options=pacsv.ReadOptions(block_size=TEXT_BLOCK),
            parse_options=self._parsing,
            convert_options=convert,
        )

    @property
    def _parsing(self) -> pacsv.ParseOptions:
        return pacsv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)

    @contextmanager
    def _located(self) -> Iterator[None]:
        """Name the line of a row with too few or too many values, as pyarrow does not name it."""
        try:
            yield
        except pa.ArrowInvalid as error:
            if "straddl" in str(error):
                raise ValueError(f"a row is longer than {TEXT_BLOCK:,} bytes: {error}") from error
            rows = self._lines()
            _, header = next(rows, (0, []))
            for line, values in rows:
                if len(values) != len(header):
                    raise ValueError(
                        f"line {line}: expected {len(header)} values, as in the header, received "
                        f"{len(values)}: {self._delimiter.join(values)[:80]}"
                    ) from error
            raise

    def _line(self, row: int) -> int | None:
        lines = (line for line, _ in self._lines())
        return next(islice(lines, row + 1, None), None)  # the first is the header

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the last line and the values of the header, then of each row."""
        text = io.TextIOWrapper(self._text(), encoding="utf-8-sig", errors="replace", newline="")
        lines = csv.reader(text, delimiter=self._delimiter)
        with suppress(csv.Error):
            yield from ((lines.line_num, values) for values in lines if values)

    def _as_text(self, columns: list[str]) -> pacsv.ConvertOptions:
        return pacsv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=columns,
            null_values=list(self._hints.nulls or [""]),
            strings_can_be_null=True,
            quoted_strings_can_be_null=bool(self._hints.nulls),
        )


CSV = FileFormat("CSV", (*also_compressed(".csv"), *_TABS), CsvReader, typed=False, header=1)
