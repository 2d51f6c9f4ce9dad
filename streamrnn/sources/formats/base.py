"""What a format of source files has to say and do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Footer:
    """Rows of each row group, and the first and last time in ticks (None if it does not say).

    `stored` is Parquet's type of the column of times; "" if the file has no such column.
    """

    groups: list[int]
    times: tuple[int, int] | None
    stored: str = ""

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return sum(self.groups)


class FileFormat(Protocol):
    """Files that record batches are read from. `suffixes` end their names in a directory."""

    name: str
    suffixes: tuple[str, ...]

    def open(self, stream: pa.NativeFile) -> FileReader:
        """One file. Raises pa.ArrowException or OSError for one of another format or damaged."""


class FileReader(Protocol):
    """One file, open. Its rows stand in groups, which can be read from any one on."""

    schema: pa.Schema

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Rows of each group; the range of the column `time`, which is read as `kind`, if known."""

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """All rows from a group on, in order, `rows` at most at a time, of these columns."""
