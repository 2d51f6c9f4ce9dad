"""The times of files, from their footers: in which order to read them, and where they go back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa

from streamrnn.errors import DataError
from streamrnn.sources.files import SourceFile
from streamrnn.sources.formats import Footer


class FileTimes(NamedTuple):
    """The first and the last time of a file, in ticks."""

    path: str
    first: int
    last: int

    def shown(self, kind: pa.DataType) -> str:
        """For a message: path and times, which are of type `kind`."""
        if self.first == self.last:
            return f"{self.path} ({shown_time(self.first, kind)})"
        first, last = shown_time(self.first, kind), shown_time(self.last, kind)
        return f"{self.path} ({first} to {last})"


def shown_time(ticks: int, kind: pa.DataType) -> str:
    """A time in ticks of its type, for a message."""
    if not pa.types.is_temporal(kind):
        return str(ticks)
    integers = pa.array([ticks], pa.int32() if pa.types.is_date32(kind) else pa.int64())
    return str(integers.cast(kind).cast(pa.string())[0])


def by_time(
    files: Sequence[SourceFile], footer: Callable[[SourceFile], Footer], time: str | None
) -> list[SourceFile]:
    """Files in the order of their earliest times; equal ones, and empty ones, as they came.

    `footer` gives the footer of a file, `time` names the column. Raises DataError for a file with
    rows whose footer does not say its times.
    """
    for file in files:
        found = footer(file)
        if found.rows and found.times is None:
            raise DataError(
                f'{file.path}: [source] order = "time" needs the least value of column '
                f'{time!r}: {_why_unknown(found)}, or set order = "path".'
            )
    return sorted(files, key=lambda file: (footer(file).times or (0, 0))[0])


def _why_unknown(footer: Footer) -> str:
    """Why a footer does not say the times, and what to do."""
    if not footer.stored:
        return (
            "it is a partition, whose value is null for this file. Put the file into the "
            "partition of its time"
        )
    if footer.stored == "INT96":
        return (
            "it is stored as INT96, which has no statistics that can be used. Write timestamps "
            "(in Spark: spark.sql.parquet.outputTimestampType = TIMESTAMP_MICROS)"
        )
    return (
        "the file's footer does not say it for all row groups. Write the file with statistics of "
        "that column, and without nulls in it"
    )


def steps_back(times: Sequence[FileTimes]) -> list[tuple[FileTimes, FileTimes]]:
    """Neighbours of which the later one begins before the earlier one does."""
    return [(before, after) for before, after in pairwise(times) if after.first < before.first]


def last_with(times: Sequence[FileTimes], moment: int) -> FileTimes | None:
    """The last of some files that has a time up to `moment` and one from it on."""
    return next((each for each in reversed(times) if each.first <= moment <= each.last), None)
