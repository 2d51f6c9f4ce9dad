"""The interface of a format of source files."""

from __future__ import annotations

from collections.abc import Iterator
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

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns of all rows from a group on, in order, at most `rows` at a time."""
