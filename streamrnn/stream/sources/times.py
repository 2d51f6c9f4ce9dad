"""Values of time: ticks, texts, seconds, and the clock of [source] time_zone."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import ConfigError

TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""The ticks of a second, by the unit of a timestamp."""


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

    A text without an offset is a time in `zone`, or in UTC if that is "". Raises ConfigError, whose
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
    if not pa.types.is_temporal(kind):
        return str(ticks)
    return str(_array_of(ticks, kind).cast(pa.string())[0])


def time_of(ticks: int, kind: pa.DataType) -> pa.Scalar:
    """Return the time that a number of ticks stands for."""
    return _array_of(ticks, kind)[0]


def _array_of(ticks: int, kind: pa.DataType) -> pa.Array:
    return pa.array([ticks], pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)


def unix_seconds(time: pa.Scalar) -> float | None:
    """Return the seconds from 1970 to a time; a time without a zone is read as UTC.

    None for null, and for a type that is neither timestamp nor date.
    """
    if not time.is_valid or not (pa.types.is_timestamp(time.type) or pa.types.is_date(time.type)):
        return None
    zone = getattr(time.type, "tz", None)
    in_array = pa.array([time], time.type)  # without the type, Arrow would look for dateutil
    microseconds: int = in_array.cast(pa.timestamp("us", zone), safe=False)[0].value
    return microseconds / 1e6
