"""The times of files, from their footers: the order to read files in, and where times go back."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa

from streamrnn.errors import DataError
from streamrnn.stream.sources.files import SourceFile
from streamrnn.stream.sources.formats import Footer
from streamrnn.stream.sources.times import shown_time


class FileTimes(NamedTuple):
    """The first and the last time of a file, in ticks."""

    path: str
    first: int
    last: int

    def shown(self, kind: pa.DataType) -> str:
        """Format path and times, of type `kind`, for a message."""
        if self.first == self.last:
            return f"{self.path} ({shown_time(self.first, kind)})"
        first, last = shown_time(self.first, kind), shown_time(self.last, kind)
        return f"{self.path} ({first} to {last})"


def by_time(
    files: Sequence[SourceFile], footer: Callable[[SourceFile], Footer], time: str | None
) -> list[SourceFile]:
    """Sort files by their earliest times (an empty file: time 0); equal ones keep their order.

    `footer` returns the footer of a file, `time` names the column. Raises DataError if a file has
    rows but its footer does not record their times.
    """
    for file in files:
        current = footer(file)
        if current.rows:
            require_times(current, file, time, '[source] order = "time" requires the minimum')
    return sorted(files, key=lambda file: (footer(file).times or (0, 0))[0])


def require_times(footer: Footer, file: SourceFile, time: str | None, need: str) -> tuple[int, int]:
    """Return the first and last time of a file. Raises DataError if its footer has none.

    `need` begins the message, after the path: it names the key that needs the times.
    """
    if footer.times is None:
        raise DataError(f"{file.path}: {need} of column {time!r}: {_why_unknown(footer)}.")
    return footer.times


def _why_unknown(footer: Footer) -> str:
    """Explain why a footer does not record the times, and how to fix it."""
    if not footer.stored_as:
        return (
            "it is a partition, whose value is null for this file. Move the file to the "
            "partition of its time"
        )
    if footer.stored_as == "INT96":
        return (
            "it is stored as INT96, which has no usable statistics. Write timestamps "
            "(in Spark: spark.sql.parquet.outputTimestampType = TIMESTAMP_MICROS)"
        )
    return (
        "the footer does not record it for all row groups. Write the file with statistics of "
        "that column, and without nulls in it"
    )


def steps_back(times: Sequence[FileTimes]) -> list[tuple[FileTimes, FileTimes]]:
    """Return the pairs of consecutive files whose second file starts before the first."""
    return [(before, after) for before, after in pairwise(times) if after.first < before.first]


def last_with(times: Sequence[FileTimes], moment: int) -> FileTimes | None:
    """Return the last file whose range of times includes `moment`; None if there is none."""
    return next((file for file in reversed(times) if file.first <= moment <= file.last), None)
