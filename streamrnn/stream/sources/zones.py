"""The time zone that [source] time_zone names: its clock says hours, days and months."""

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import ConfigError


def check_zone(zone: str) -> None:
    """Raise ConfigError unless this machine knows the time zone; "" is none."""
    try:
        pc.hour(pa.scalar(0, pa.timestamp("s", zone)))
    except pa.ArrowInvalid as error:
        raise ConfigError(
            "[source] time_zone: expected a name in the time zone database of this machine, such "
            f'as "America/New_York", or an offset such as "+05:30", received {zone!r}: {error}'
        ) from error


def with_clock(times: pa.Array, zone: str) -> pa.Array:
    """Return timestamps (N,) with the clock of a time zone; "" leaves them as they are.

    The instants stay. Times without a zone are taken as UTC.
    """
    return times.view(pa.timestamp(times.type.unit, zone)) if zone else times


def instant(local: datetime, zone: str) -> datetime:
    """Return the instant, in UTC, of a time by the clock of a zone.

    Raises pa.ArrowInvalid for a time that the clock shows twice, or never.
    """
    time = pc.assume_timezone(pa.scalar(local, pa.timestamp("us")), zone)
    found: datetime = time.cast(pa.timestamp("us", "UTC")).as_py()
    return found


def note_on_offset(time: str, offset: str) -> str:
    """Return the note about times in UTC whose texts have other offsets, `offset` for one."""
    return (
        f"the times in {time!r} are in UTC, and their text has other offsets, such as {offset}: "
        "hours, days and months (time_features, calendar partitions, --by month) are those of "
        'UTC. Set [source] time_zone to their zone, such as "America/New_York", or to "UTC"'
    )
