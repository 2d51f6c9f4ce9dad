"""Formats of parts. To add one, write a `PartFormat` and list it in `PART_FORMATS`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streamrnn.base.storage import Output, canonical
from streamrnn.errors import DTypeError

SAMPLE = 8192
"""Number of rows sampled to estimate whether the values of a column repeat."""

LONG = 64
"""Mean number of bytes per value from which on a column is not sampled: keys are shorter."""


class GroupWriter(ABC):
    """Writes groups of rows to one file, with a `writer` of pyarrow."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """Add a group of rows."""

    def close(self) -> None:
        """Write the end of the file."""
        self.writer.close()

    def abandon(self) -> None:  # noqa: B027 - an Output ignores what is written after its end
        """Prevent further writes, also on garbage collection."""


class PartFormat(Protocol):
    """A file format of parts, whose names end in `suffix`.

    Tables of [publish] can index only files of the `INDEXED_FORMATS` in `config/values.py`.
    """

    suffix: str

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> GroupWriter:
        """Create a writer of a new file; `first` are the rows that will be written first.

        Equal rows in equal groups give equal bytes.
        """

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read all rows of a file made by `create`, in order, at most `rows` at a time.

        With `columns`, only these are read, in the order of the file; unknown ones are left out.
        Raises pa.ArrowException for a damaged file.
        """

    def rows(self, source: pa.NativeFile) -> int:
        """Return the number of rows of a file. Raises pa.ArrowException for a damaged file."""

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        """Return the schema of a file. Raises pa.ArrowException for a damaged file."""


class ArrowFormat(PartFormat):
    """Arrow IPC files, which can be memory-mapped: one record batch per group."""

    suffix = ".arrow"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> GroupWriter:
        return _ArrowGroups(pa.ipc.new_file(output, schema))

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


class _ArrowGroups(GroupWriter):
    def write(self, table: pa.Table) -> None:
        if table.num_rows:
            self.writer.write_table(canonical(table), max_chunksize=table.num_rows)


class ParquetFormat(PartFormat):
    """Parquet files: one row group per group, dictionaries for columns whose values repeat."""

    suffix = ".parquet"

    def create(self, output: Output, schema: pa.Schema, first: pa.Table) -> GroupWriter:
        repeated = [name for name in first.column_names if _repeats(first[name])]
        return _ParquetGroups(pq.ParquetWriter(output, schema, use_dictionary=repeated))

    def batches(
        self, source: pa.NativeFile, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        file = pq.ParquetFile(source, pre_buffer=False)
        batches: Iterator[pa.RecordBatch] = file.iter_batches(
            rows, columns=None if columns is None else list(columns)
        )
        return batches

    def rows(self, source: pa.NativeFile) -> int:
        rows: int = pq.ParquetFile(source, pre_buffer=False).metadata.num_rows
        return rows

    def schema(self, source: pa.NativeFile) -> pa.Schema:
        return pq.ParquetFile(source, pre_buffer=False).schema_arrow


class _ParquetGroups(GroupWriter):
    def write(self, table: pa.Table) -> None:
        self.writer.write_table(table, row_group_size=max(1, table.num_rows))

    def abandon(self) -> None:
        self.writer.is_open = False  # else pyarrow writes the footer on garbage collection


def _repeats(column: pa.ChunkedArray) -> bool:
    """Return whether a dictionary of the values pays off.

    For text, a random sample decides whether values occur twice or more on average. Floats hardly
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
                f"{field.type}: {str(error).rstrip('.')}. Set another format, or list the columns "
                "of the output without it, in [output] columns"
            ) from error
