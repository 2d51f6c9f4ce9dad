"""Values of time: ticks, texts, seconds, clocks, ranges in footers, sines and cosines."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Floats, Ints
from streamrnn.errors import ConfigError, DataError
from streamrnn.stream.sources.files import SourceFile
from streamrnn.stream.sources.formats import Footer

_DATE32 = pa.date32().id
_TEMPORAL = frozenset(
    kind.id for kind in (pa.timestamp("s"), pa.date64(), pa.duration("s"), pa.time64("us"))
)
"""The ids of Arrow's types of times in 64 bits."""


def ticks(array: pa.Array) -> Ints:
    """Convert times to int64 ticks of their unit; null becomes 0."""
    kind = array.type
    if kind.id == _DATE32:
        array = array.view(pa.int32())
    elif kind.id in _TEMPORAL:
        array = array.view(pa.int64())
    if array.null_count:
        array = pc.fill_null(array, 0)
    values: Ints = array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return values


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
    """Return timestamps (N,) with the clock of a time zone ("": as they are), at the same instants.

    Times without a zone are taken as UTC.
    """
    return times.view(pa.timestamp(times.type.unit, zone)) if zone else times


def note_on_offset(time: str, offset: str) -> str:
    """Return the note that times are in UTC although their texts have other offsets."""
    return (
        f"the times in {time!r} are in UTC, but their texts have other offsets, such as {offset}: "
        "hours, days and months (time_features, calendar partitions, --by month) are in "
        'UTC. Set [source] time_zone to their zone, such as "America/New_York", or to "UTC"'
    )


def parse_time(time: str, kind: pa.DataType, owner: str, zone: str = "") -> int:
    """Convert a time, as text, to ticks of `kind`, the column's type.

    Without an offset, it is a time in `zone`, or in UTC if `zone` is "". Raises ConfigError, whose
    message begins with `owner`, unless the text is a time of that type.
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
    return str(time_of(ticks, kind).cast(pa.string()) if pa.types.is_temporal(kind) else ticks)


def time_of(ticks: int, kind: pa.DataType) -> pa.Scalar:
    """Return the time that a number of ticks stands for."""
    return pa.scalar(ticks, pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)


def unix_seconds(time: pa.Scalar) -> float | None:
    """Return a time in seconds from 1970 (UTC if it has no zone); None for null and other types."""
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

    After the path, the message begins with `need`, which names the key that needs the times.
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
    """Return the last file whose range of times includes `moment`."""
    return next((file for file in reversed(times) if file.first <= moment <= file.last), None)


@cache
def _table(period: int) -> Floats:
    """Return sine and cosine (period + 1, 2) of n * (2 pi / period), float64 rounded to float32.

    They are computed by their series, so that no bit depends on the C library: in float64, a
    library that uses fused multiply-add computes other sines than one that does not.
    """
    table = np.empty((period + 1, 2))
    with localcontext(Context(prec=40)):  # a caller's traps would raise
        for n in range(period + 1):
            angle, term, k = Decimal(n * (2 * math.pi / period)), Decimal(1), 0
            sums = [Decimal(0), Decimal(0)]
            while term > Decimal("1e-36"):
                sums[k % 2] += -term if k % 4 > 1 else term
                k += 1
                term *= angle / k
            table[n] = sums[::-1]
    return table.astype(np.float32)


_SECONDS = 9 * 10**11  # 28,500 years: Arrow's calendar ends in the year 32,767
MOST_TICKS = {
    "day": _SECONDS // 86_400,
    "s": _SECONDS,
    "ms": _SECONDS * 10**3,
    "us": _SECONDS * 10**6,
    "ns": 2**63 - 1,
}
"""The largest distance from 1970 of a time that has angles, in ticks, by the unit of its type."""


def _hour(times: pa.Array) -> pa.Array:
    return pc.hour(times) if pa.types.is_timestamp(times.type) else pa.repeat(0, len(times))


_FEATURES: dict[str, tuple[int, Callable[[pa.Array], pa.Array]]] = {
    "hour": (24, _hour),
    "day_of_week": (7, pc.day_of_week),
    "day_of_year": (366, pc.day_of_year),
}


def sine_and_cosine(name: str, times: pa.Array) -> Floats:
    """Return the sine and the cosine of an angle for N timestamps or dates: (N, 2) float32.

    The angle of `hour` is 2 pi hour / 24, with the hour of the day from 0 to 23, without minutes;
    the angle of `day_of_week` is 2 pi day / 7, with Monday as 0; the angle of `day_of_year` is
    2 pi day / 366, with days from 1 to 366. Hours and days are in the time zone of the column,
    which [source] time_zone replaces; a null has the angle 0.
    """
    period, part_of = _FEATURES[name]
    if getattr(times.type, "tz", None) == "UTC":
        # Without this, Arrow would look up the offset of each time.
        times = times.view(pa.timestamp(times.type.unit))
    part = part_of(times)
    if part.null_count:
        part = pc.fill_null(part, 0)
    values: Floats = _table(period).take(part.to_numpy(zero_copy_only=False), axis=0, mode="clip")
    return values
