"""Parts of an output: files of rows, written in staging, and their formats."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn.base.storage import Files, Output, canonical, sink_errors
from streamrnn.errors import DTypeError

SAMPLE = 8192
"""Number of rows sampled to estimate whether the values of a column repeat."""

LONG = 64
"""Mean number of bytes per value from which on a column is not sampled: keys are shorter."""


class PartFormat(Protocol):
    """A file format of parts, whose names end in `suffix`.

    Tables of [publish] can index only files of the `INDEXED_FORMATS` in `config/values.py`. Reading
    raises pa.ArrowException for a damaged file.
    """

    suffix: str

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> Any:
        """Create a pyarrow writer; `first` are the rows that will be written first."""

    def write(self, writer: Any, table: pa.Table) -> None:
        """Add a group of rows. Equal rows in equal groups give equal bytes."""

    def abandon(self, writer: Any) -> None:
        """Prevent further writes, including those on garbage collection."""

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read all rows of a file made by `create`, in order, at most `rows` at a time.

        With `columns`, only these are read, in the order of the file; unknown ones are left out.
        """

    def rows(self, source: pa.NativeFile) -> int:
        """Return the number of rows of a file."""

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        """Return the schema of a file."""


class ArrowFormat(PartFormat):
    """Arrow IPC files, which can be memory-mapped: one record batch per group."""

    suffix = ".arrow"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> Any:
        return pa.ipc.new_file(output, schema)

    def write(self, writer: Any, table: pa.Table) -> None:
        if table.num_rows:
            writer.write_table(canonical(table), max_chunksize=table.num_rows)

    def abandon(self, writer: Any) -> None:
        """Do nothing: an Output ignores what is written after its end."""

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            if columns is not None:
                batch = batch.select([n for n in batch.schema.names if n in columns])
            batch.validate(full=True)
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)

    def rows(self, source: pa.NativeFile) -> int:
        reader = pa.ipc.open_file(source)
        return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        return pa.ipc.open_file(source).schema


class ParquetFormat(PartFormat):
    """Parquet files: one row group per group, dictionaries for columns whose values repeat."""

    suffix = ".parquet"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> Any:
        repeated = [name for name in first.column_names if _repeats(first[name])]
        return pq.ParquetWriter(output, schema, use_dictionary=repeated)

    def write(self, writer: Any, table: pa.Table) -> None:
        writer.write_table(table, row_group_size=max(1, table.num_rows))

    def abandon(self, writer: Any) -> None:
        writer.is_open = False  # else pyarrow writes the footer on garbage collection

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        file = pq.ParquetFile(source, pre_buffer=False)
        batches: Iterator[pa.RecordBatch] = file.iter_batches(
            rows, columns=None if columns is None else list(columns)
        )
        return batches

    def rows(self, source: pa.NativeFile) -> int:
        return int(pq.ParquetFile(source, pre_buffer=False).metadata.num_rows)

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        return pq.ParquetFile(source, pre_buffer=False).schema_arrow


def _repeats(column: pa.ChunkedArray) -> bool:
    """Return whether a dictionary of the values pays off.

    For text, a random sample decides whether values occur twice or more on average; floats hardly
    ever repeat. With 2,000,000 rows, 100,000 keys per row group took 158 ms and 11.6 MB with a
    dictionary, 57 ms and 9.9 MB without; 10,000 keys took equal time, and 4.1 MB instead of 10.1.
    """
    kind = column.type
    if pa.types.is_floating(kind):
        return False
    short = column.nbytes < min(LONG * len(column), 1 << 30)  # else a sample would cost too much
    if not short or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return True
    rows = np.random.default_rng(0).integers(0, len(column), SAMPLE)
    distinct: int = pc.count_distinct(column.take(pa.array(rows))).as_py()
    return distinct < SAMPLE * 15 // 16  # 94 % are distinct if each occurs twice in 131,072 rows


PART_FORMATS: dict[str, PartFormat] = {"parquet": ParquetFormat(), "arrow": ArrowFormat()}
"""Formats by their names in [sink] format."""


def refuse_unwritable(schema: pa.Schema, format: str) -> None:
    """Raise DTypeError for a column whose type a format of parts cannot hold."""
    for field in schema:
        alone = pa.schema([field])
        try:
            PART_FORMATS[format].create(pa.BufferOutputStream(), alone, alone.empty_table()).close()
        except pa.ArrowException as error:
            raise DTypeError(
                f"[sink] format: column {field.name!r}: {format} cannot hold its type, "
                f"{field.type}: {str(error).rstrip('.')}. Set another format, or set [output] "
                "columns to a list without this column"
            ) from error


NULL = "__HIVE_DEFAULT_PARTITION__"
# Readers skip and parallelize by groups: many tiny ones cost more than holding this many rows.
GROUP_ROWS = 131072
# How many digits part numbers may have. All parts of an output have the same width, the smallest
# that suffices: with mixed widths, names would not sort by number.
WIDTHS = (5, 8)
_NAME = re.compile(rf"part-(\d+)(?:{'|'.join(re.escape(f.suffix) for f in PART_FORMATS.values())})")


def partition_values(name: str) -> dict[str, str | None]:
    """Return the values in the folders of a part's name: column -> text, None for null.

    >>> partition_values("date=2013-01-05/carrier=A%2FB/part-00007.parquet")
    {'date': '2013-01-05', 'carrier': 'A/B'}
    """
    folders = [folder.partition("=") for folder in name.split("/")[:-1]]
    return {key: None if text == NULL else unquote(text) for key, _, text in folders}


def layout_of(name: str) -> tuple[str, ...] | None:
    """Return the columns of the folders in a name; None if a folder is not `column=value`.

    >>> layout_of("date=2013-01-05/part-00007.parquet")
    ('date',)
    """
    folders = name.split("/")[:-1]
    return tuple(f.partition("=")[0] for f in folders) if all("=" in f for f in folders) else None


@dataclass(frozen=True)
class StagedPart:
    """A finished part in staging, under the name `staged`, without a number yet.

    `folder` is the folder of its partition, `date=2013-01-05/origin=JFK`; "" without partitions.
    """

    staged: str
    rows: int
    bytes: int
    sha256: str
    folder: str = ""

    @property
    def format(self) -> PartFormat:
        """The format of the file."""
        return _format_of(self.staged.removesuffix(".tmp"))

    def placed(self, name: str, commit: int, model: str = "") -> "Part":
        """Return the part under the name that commit `commit` gives it, in its folder."""
        name = f"{self.folder}/{name}" if self.folder else name
        return Part(name, self.rows, self.bytes, self.sha256, commit, self.staged, model)


@dataclass(frozen=True, slots=True)
class Part:
    """A part that commit number `commit` wrote.

    `name` begins with the folders of its partition: `date=2013-01-05/part-00007.parquet`. Numbers
    run through the output, whatever the partition. `staged`, its name in staging, is unique, so
    that a leftover is never mistaken for a part. `model` is the fingerprint of the model that
    computed its rows ("" for side outputs).
    """

    name: str
    rows: int
    bytes: int
    sha256: str
    commit: int
    staged: str
    model: str = ""

    @property
    def number(self) -> int:
        """The number of the part in its output."""
        return number_of(self._file) or 0

    @property
    def width(self) -> int:
        """How many digits the number in the name has."""
        return len(self._file) - len("part-") - len(self.format.suffix)

    def renamed(self, width: int) -> "Part":
        """Return the part with its number in `width` digits."""
        file = name_of(self.number, self.format.suffix, width)
        return replace(self, name=f"{self.folder}/{file}" if self.folder else file)

    @property
    def folder(self) -> str:
        """The folders of its partition; "" if there are none."""
        return self.name.rpartition("/")[0]

    @property
    def partition(self) -> dict[str, str | None]:
        """The values of its partition: column -> text, None for null, in the order of folders."""
        return partition_values(self.name)

    @property
    def _file(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def format(self) -> PartFormat:
        """The format of the file."""
        return _format_of(self.name)


def _format_of(name: str) -> PartFormat:
    return next(format for format in PART_FORMATS.values() if name.endswith(format.suffix))


def name_of(number: int, suffix: str, width: int) -> str:
    """Return the name of a part, with `width` digits; names of one width sort by number."""
    return f"part-{number:0{width}d}{suffix}"


def width_for(number: int, least: int = 0) -> int | None:
    """Return how many digits a name needs for a number, at least `least`; None if too many."""
    return next((width for width in WIDTHS if width >= max(least, len(str(number)))), None)


def number_of(name: str) -> int | None:
    """Parse the number in the name of a part; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match and len(match[1]) in WIDTHS else None


class PartWriter:
    """Writes batches of one schema to the new file `name` in staging, for a part in `folder`.

    Batches are gathered into groups of at least `GROUP_ROWS` rows, except for the last group.
    Raises SinkError.
    """

    def __init__(
        self, files: Files, name: str, schema: pa.Schema, format: PartFormat, folder: str = ""
    ) -> None:
        self.schema = schema
        self._folder = folder
        self.rows = 0
        self._format = format
        self._staged = name.rpartition("/")[2]
        self._path = files.show(name)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._output = files.create(name)
        self._writer: Any = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch, which must have the schema of the part."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting_rows >= GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        with sink_errors("write", self._path):
            table = pa.Table.from_batches(self._waiting, self.schema)
            self._waiting, self._waiting_rows = [], 0
            if self._writer is None:
                self._writer = self._format.create(self._output, self.schema, table)
            self._format.write(self._writer, table)

    def finish(self) -> StagedPart:
        """Write the buffered rows, sync and close; the part is then complete and durable."""
        try:
            if self._waiting_rows or not self.rows:
                self._write_group()
            with sink_errors("write", self._path):
                self._writer.close()
            self._output.finish()
        finally:
            self.abandon()
        size, sha256 = self._output.bytes, self._output.sha256
        return StagedPart(self._staged, self.rows, size, sha256, self._folder)

    def abandon(self) -> None:
        """Close; an unfinished file stays in staging until the next start removes it."""
        if self._writer is not None:
            self._format.abandon(self._writer)
        self._output.close()
