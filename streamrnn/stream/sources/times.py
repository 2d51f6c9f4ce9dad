"""Values of time: ticks, texts, seconds, the clock of [source] time_zone, and ranges in footers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import ConfigError, DataError
from streamrnn.stream.sources.files import SourceFile
from streamrnn.stream.sources.formats import Footer


def check_zone(zone: str) -> None:
    """Raise ConfigError unless this machine knows the time zone; "" means no zone."""
    try:
        pc.hour(pa.scalar(0, pa.timestamp("s", zone)))
    except pa.ArrowInvalid as error:
        raise ConfigError(
            "[source] time_zone: expected a name in the time zone database of this machine, such "
            f'as "America/New_York", or an offset such as "+05:30", received {zone!r}: {error}'
        ) from error


def with_clock(times: pa.Array, zone: str) -> pa.Array:
    """Return timestamps (N,) with the clock of a time zone; "" leaves them as they are.

    The instants stay the same. Times without a zone are taken as UTC.
    """
    return times.view(pa.timestamp(times.type.unit, zone)) if zone else times


def note_on_offset(time: str, offset: str) -> str:
    """Return the note about times in UTC whose texts have other offsets, such as `offset`."""
    return (
        f"the times in {time!r} are in UTC, and their text has other offsets, such as {offset}: "
        "hours, days and months (time_features, calendar partitions, --by month) are in "
        'UTC. Set [source] time_zone to their zone, such as "America/New_York", or to "UTC"'
    )


def parse_time(time: str, kind: pa.DataType, owner: str, zone: str = "") -> int:
    """Convert the text of a time to ticks of `kind`, the column's type.

    A text without an offset is a time in `zone`, or in UTC if `zone` is "". Raises ConfigError,
    whose message begins with `owner`, unless the text is a time of that type.
    """
    try:
        if pa.types.is_integer(kind):
            return int(time)
        if pa.types.is_timestamp(kind):
            moment = datetime.fromisoformat(time)
            if zone and moment.tzinfo is None:
                # Raises for a time that the clock shows twice or never.
                local = pc.assume_timezone(pa.scalar(moment, pa.timestamp("us")), zone)
                moment = local.cast(pa.timestamp("us", "UTC")).as_py()
            plain = moment.replace(tzinfo=moment.tzinfo or UTC) if kind.tz else moment
            return int(pa.array([plain], kind).cast(pa.int64())[0].as_py())
        value = pa.array([time]).cast(kind)
        width = pa.int32() if pa.types.is_date32(kind) else pa.int64()
        return int(value.cast(width).cast(pa.int64())[0].as_py())
    except (pa.ArrowException, ValueError) as error:
        raise ConfigError(
            f"{owner}: expected a value of type {kind}, received {time!r}: {error}"
        ) from error


def shown_time(ticks: int, kind: pa.DataType) -> str:
    """Format a time in ticks of its type, for a message."""
    if not pa.types.is_temporal(kind):
        return str(ticks)
    return str(time_of(ticks, kind).cast(pa.string()))


def time_of(ticks: int, kind: pa.DataType) -> pa.Scalar:
    """Return the time that a number of ticks stands for."""
    return pa.scalar(ticks, pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)


def unix_seconds(time: pa.Scalar) -> float | None:
    """Return the seconds from 1970 to a time; a time without a zone is read as UTC.

    Returns None for null, and for a type that is neither timestamp nor date.
    """
    if not time.is_valid or not (pa.types.is_timestamp(time.type) or pa.types.is_date(time.type)):
        return None
    zone = getattr(time.type, "tz", None)
    in_array = pa.array([time], time.type)  # without the type, Arrow would look for dateutil
    microseconds: int = in_array.cast(pa.timestamp("us", zone), safe=False)[0].value
    return microseconds / 1e6


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


def require_times(footer: Footer, file: SourceFile, time: str | None, need: str) -> tuple[int, int]:
    """Return the first and last time of a file. Raises DataError if its footer lacks them.

    `need` begins the message, after the path: it names the key that needs the times.
    """
    if footer.times is not None:
        return footer.times
    if not footer.stored_as:
        why = (
            "it is a partition, whose value is null for this file. Move the file to the "
            "partition of its time"
        )
    elif footer.stored_as == "INT96":
        why = (
            "it is stored as INT96, which has no usable statistics. Write timestamps "
            "(in Spark: spark.sql.parquet.outputTimestampType = TIMESTAMP_MICROS)"
        )
    else:
        why = (
            "the file does not record it, or not for all rows. Write it as Parquet, with "
            "statistics of that column and without nulls in it"
        )
    raise DataError(f"{file.path}: {need} of column {time!r}: {why}.")


def steps_back(times: Sequence[FileTimes]) -> list[tuple[FileTimes, FileTimes]]:
    """Return the pairs of consecutive files whose second file starts before the first."""
    return [(before, after) for before, after in pairwise(times) if after.first < before.first]


def last_with(times: Sequence[FileTimes], moment: int) -> FileTimes | None:
    """Return the last file whose range of times includes `moment`; None if there is none."""
    return next((file for file in reversed(times) if file.first <= moment <= file.last), None)
