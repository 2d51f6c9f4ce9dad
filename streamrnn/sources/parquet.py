"""Record batches of Parquet files, one after another, from any position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.errors import DataError
from streamrnn.sources.files import SourceFile
from streamrnn.sources.position import Position
from streamrnn.sources.schema import check_same, select, used_schema


@dataclass(frozen=True)
class SourceBatch:
    """One record batch, the place of its first row, and the position behind its last."""

    batch: pa.RecordBatch
    file: str
    first_row: int
    position: Position


class ParquetSource:
    """The record batches of a list of files: `rows` at most in each, none across two files.

    `columns` are the columns in use (None: all of the first file). The schema of the first file
    holds for all (see `schema`); give `schema` to hold the files to an earlier run's.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        columns: Sequence[str] | None,
        rows: int,
        schema: pa.Schema | None = None,
    ) -> None:
        self.files = list(files)
        self.columns = columns
        self.rows = rows
        self._first = "the run before" if schema is not None else ""
        self._schema = schema

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns in use, dictionaries decoded."""
        if self._schema is None:
            self._schema = self._used(self.files[0], self._open(self.files[0]))
            self._first = self.files[0].path
        return self._schema

    def rows_of_files(self) -> list[int]:
        """Rows of each file, from its footer."""
        return [self._open(file).metadata.num_rows for file in self.files]

    def largest_group(self) -> int:
        """Rows of the largest row group."""
        sizes = [n for file in self.files for n in _group_sizes(self._open(file))]
        return max(sizes, default=0)

    def check_schemas(self) -> None:
        """Raise DataError if a file lacks a column in use or has it with another type."""
        for file in self.files:
            check_same(self.schema, self._used(file, self._open(file)), file.path, self._first)

    def batches(self, start: Position | None = None) -> Iterator[SourceBatch]:
        """All record batches from `start` (a position in the first of the files), in order.

        A file without rows gives one batch of none, so that its end is a position too.
        Raises DataError, with the file named, for a file that cannot be read to its end.
        """
        for file in self.files:
            here = start if start is not None and start.file == file.path else None
            if here is not None and here.done:
                continue
            yield from self._batches_of(file, here)

    def _batches_of(self, file: SourceFile, start: Position | None) -> Iterator[SourceBatch]:
        parquet = self._open(file)
        found = self._used(file, parquet)
        check_same(self.schema, found, file.path, self._first)
        sizes = _group_sizes(parquet)
        group, skip, row = (start.row_group, start.row, start.file_row) if start else (0, 0, 0)
        place = _Place(file.path, sizes, group, skip, row).after(0)
        if row >= sum(sizes):
            batch = pa.RecordBatch.from_pylist([], schema=self.schema)
            yield SourceBatch(batch, file.path, row, place.position())
            return
        try:
            for batch in self._read(file, parquet, range(group, len(sizes)), skip):
                first = place.file_row
                place = place.after(batch.num_rows)
                yield SourceBatch(batch, file.path, first, place.position())
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{file.path}: cannot be read after row {place.file_row}: {_one_line(error)}. "
                "The file is damaged or was changed while it was read; write it again."
            ) from error

    def _read(
        self, file: SourceFile, parquet: pq.ParquetFile, groups: range, skip: int
    ) -> Iterator[pa.RecordBatch]:
        # A column of the file itself goes before a partition of that name.
        wanted = [n for n in self.schema.names if n in parquet.schema_arrow.names]
        rows = parquet.iter_batches(self.rows, row_groups=list(groups), columns=wanted)
        for batch in rows:
            left = batch.slice(min(skip, batch.num_rows))
            skip -= batch.num_rows - left.num_rows
            if left.num_rows:
                yield select(left, self.schema, dict(file.partitions))

    def _open(self, file: SourceFile) -> pq.ParquetFile:
        # pre_buffer=False: it alone bounds memory (20 MB against 319 MB for a 321 MB file).
        try:
            return pq.ParquetFile(file.location, filesystem=file.filesystem, pre_buffer=False)
        except FileNotFoundError as error:
            raise DataError(f"{file.path}: vanished before it could be read") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{file.path}: not a readable Parquet file ({file.size} bytes): {_one_line(error)}"
            ) from error

    def _used(self, file: SourceFile, parquet: pq.ParquetFile) -> pa.Schema:
        schema = parquet.schema_arrow
        for name, value in file.partitions:
            if name not in schema.names:
                schema = schema.append(pa.field(name, value.type))
        return used_schema(schema, self.columns, file.path)


@dataclass(frozen=True)
class _Place:
    """Where reading stands in one file."""

    path: str
    sizes: list[int]
    row_group: int
    row: int
    file_row: int

    def after(self, rows: int) -> _Place:
        group, row = self.row_group, self.row + rows
        while group < len(self.sizes) and row >= self.sizes[group]:
            row -= self.sizes[group]
            group += 1
        return _Place(self.path, self.sizes, group, row, self.file_row + rows)

    def position(self) -> Position:
        done = self.row_group >= len(self.sizes)
        return Position(self.path, self.row_group, self.row, self.file_row, done)


def _group_sizes(parquet: pq.ParquetFile) -> list[int]:
    return [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
