"""The interface of a format of source files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""The ticks of a second, by the unit of a timestamp."""


@dataclass(frozen=True)
class Footer:
    """Number of rows of each row group, and first and last time in ticks (None if not recorded).

    `stored_as` is how the file stores the time column: the physical type in Parquet, else "text" or
    "record batches"; "" if there is no such column.
    """

    groups: list[int]
    times: tuple[int, int] | None
    stored_as: str = ""

    @property
    def rows(self) -> int:
        """Number of rows of the file."""
        return sum(self.groups)


@dataclass(frozen=True)
class ColumnStatistics:
    """What footers record about a column: nulls, and minimum and maximum of its numbers.

    `unrecorded` is the number of rows without such a record; of the other fields, `rows` alone
    counts them. Minimum and maximum are None for a column of text or times, or without a value.
    """

    rows: int = 0
    nulls: int = 0
    minimum: float | None = None
    maximum: float | None = None
    unrecorded: int = 0

    @classmethod
    def of_constant(cls, value: pa.Scalar, rows: int) -> ColumnStatistics:
        """Return the statistics of a column with one value in all rows, such as a partition."""
        if not value.is_valid:
            return cls(rows, rows)
        number = value.as_py() if pa.types.is_integer(value.type) else None
        return cls(rows, 0, number, number)

    def __add__(self, other: ColumnStatistics) -> ColumnStatistics:
        """Return the statistics of all rows of `self` and `other`."""
        return ColumnStatistics(
            self.rows + other.rows,
            self.nulls + other.nulls,
            min((x for x in (self.minimum, other.minimum) if x is not None), default=None),
            max((x for x in (self.maximum, other.maximum) if x is not None), default=None),
            self.unrecorded + other.unrecorded,
        )


@dataclass(frozen=True)
class Hints:
    """What a text format needs to open a file, besides the file.

    `types`: types of columns, which the pipeline file states for the `declared` ones; others are
    inferred from the first rows. `delimiter`: the character between the values of a row; "": the
    suffix of `path` decides. `nulls`: texts that are null; (): an empty one is. `rows`: the number
    of rows, if they were counted before. `floats`: columns that may be read as double: a value that
    an integer cannot hold raises UnparsedError. `unfit`: where to put why other values are null, by
    row, because they cannot be read; None: such a value raises UnparsedError, too.
    """

    path: str = ""
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    declared: Collection[str] = ()
    delimiter: str = ""
    nulls: Sequence[str] = ()
    rows: int | None = None
    floats: Collection[str] = ()
    unfit: dict[int, str] | None = None

    def note(self, error: UnparsedError) -> bool:
        """Note why a value is null, and return True; False if its error is to be raised."""
        if self.unfit is None or (error.widens and error.column in self.floats):
            return False
        self.unfit.setdefault(error.row, error.reason)
        return True


class UnparsedError(ValueError):
    """A text that is not a value of its column's type; `row` counts from 0.

    `column` is the column's name, `other` a type that can hold the value, `reason` the message
    without the row; `widens`: the column has integers, and floats could hold the value.
    """

    def __init__(
        self, row: int, line: int | None, column: str, value: str, kind: pa.DataType
    ) -> None:
        place = f"row {row} (from 0)" + ("" if line is None else f", line {line}")
        self.reason = f"column {column!r}: expected {kind}, received {value}"
        super().__init__(f"{place}: {self.reason}")
        self.row = row
        self.column = column
        self.kind = kind
        self.text = text = value.strip("'\"")
        self.other = "string"
        if not text.lstrip("-").isdigit():  # digits: too long for int64, or with a leading zero
            with suppress(ValueError):
                float(text)
                self.other = "double"
        self.widens = self.other == "double" and pa.types.is_integer(kind)


class FileReader(Protocol):
    """One open file. Its rows are in groups; reading can start at any group.

    `unfit` is as in `Hints`.
    """

    schema: pa.Schema
    unfit: dict[int, str] | None = None

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the sizes of groups and, if known, the range of the column `time` as `kind`."""

    def statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        """Return what the footer records about columns; {} for a format without statistics."""
        return {}

    def offset(self, column: str) -> str:
        """Return an offset other than UTC in the texts read from a UTC column; "" for none."""
        return ""

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns of all rows from a group on, in order, at most `rows` at a time.

        Raises pa.ArrowException, OSError or UnparsedError.
        """


@dataclass(frozen=True)
class FileFormat:
    """A format of files. In a directory, files with one of `suffixes` are read.

    `open` raises pa.ArrowException, OSError or ValueError for a file that is damaged or not of this
    format. `typed`: its files state the types of their columns; other files are text, with `header`
    lines before their rows.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[pa.NativeFile, Hints], FileReader]
    typed: bool = True
    header: int = 0
