"""Durations as text: "6h", "90s", "1d", "1h30m"."""

import re
from datetime import timedelta

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_PART = r"(\d{1,15})(ms|us|[wdhms])"
PATTERN = rf"^({_PART})+$"


def parse_duration(text: str) -> timedelta:
    """Parse a duration.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)

    Raises ValueError for any other text, for zero and for more than a timedelta can hold.
    """
    compact = "".join(text.split())
    if not re.fullmatch(PATTERN, compact):
        raise ValueError(
            f'expected a duration such as "6h", "90s", "1d" or "1h30m" '
            f'(units w, d, h, m, s, ms, us), received "{text}"'
        )
    try:
        length = sum(
            (int(count) * _UNITS[unit] for count, unit in re.findall(_PART, compact)), timedelta()
        )
    except OverflowError:
        raise ValueError(f'"{text}" is longer than 999999999 days') from None
    if not length:
        raise ValueError(f'expected a duration above zero, received "{text}"')
    return length


def format_duration(length: timedelta) -> str:
    """Return a duration as text, in days down to microseconds; "" for zero.

    Unless it is "", `parse_duration` reads it back as `length`.

    >>> format_duration(timedelta(hours=30))
    '1d6h'
    """
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count, length = divmod(length, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
