"""The interface of a format of source files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Footer:
    """Rows of each row group, and the first and last time in ticks (None if not recorded).

    `stored` is the Parquet type of the time column; "" if the file has no such column.
    """

    groups: list[int]
    times: tuple[int, int] | None
    stored: str = ""

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.groups)


@dataclass(frozen=True)
class ColumnStatistics:
    """What footers record of a column: nulls, and minimum and maximum of its numbers.

    `unrecorded` is the number of rows without such a record, which the other fields leave out.
    Minimum and maximum are None for a column of text, or without a value.
    """

    rows: int = 0
    nulls: int = 0
    minimum: float | None = None
    maximum: float | None = None
    unrecorded: int = 0

    def __add__(self, other: ColumnStatistics) -> ColumnStatistics:
        """Return the statistics of the rows of both."""
        return ColumnStatistics(
            self.rows + other.rows,
            self.nulls + other.nulls,
            min((x for x in (self.minimum, other.minimum) if x is not None), default=None),
            max((x for x in (self.maximum, other.maximum) if x is not None), default=None),
            self.unrecorded + other.unrecorded,
        )


class FileFormat(Protocol):
    """A format of files. In a directory, files with one of `suffixes` are read."""

    name: str
    suffixes: tuple[str, ...]

    def open(self, stream: pa.NativeFile) -> FileReader:
        """Open a file. Raises pa.ArrowException or OSError if it is damaged or not this format."""


class FileReader(Protocol):
    """One open file. Its rows are in groups; reading can start at any group."""

    schema: pa.Schema

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the rows of each group and, if known, the range of `time`, read as `kind`."""

    def statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        """Return what the footer records of these columns; {} for a format without statistics."""

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns of all rows from a group on, in order, at most `rows` at a time."""
