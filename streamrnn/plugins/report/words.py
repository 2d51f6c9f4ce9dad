"""Rows and words that pictures share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamrnn.plugins.report.numbers.timeline import Timeline

Row = dict[str, Any]
_MOST_DIGITS = 17
_LONGEST = 40


def rows_of_columns(columns: Mapping[str, Iterable[Any]]) -> list[Row]:
    """Return rows from columns of equal length: NaN is None, other floats have six digits."""
    return [
        dict(zip(columns, map(_plain, row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def short(value: float | None) -> str:
    """Return a number as people read it.

    >>> short(0.123456), short(26115), short(None)
    ('0.123', '26,115', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def distinct(values: Sequence[float]) -> list[str]:
    """Return numbers that differ as texts that differ, with three digits or as many as it takes.

    >>> distinct([1.5, 1.5103, 1.5108]), distinct([1, 1023])
    (['1.500', '1.510', '1.511'], ['1', '1,023'])
    """
    texts = [short(value) for value in values]
    digits = 3
    while len(set(texts)) < len(values) and digits < _MOST_DIGITS:
        digits += 1
        texts = [f"{value:#,.{digits}g}".rstrip(".") for value in values]
    return texts


def span(rows: Sequence[Row], field: str) -> tuple[float, float] | None:
    """Return the least and the greatest value of a field; None if there is none."""
    values = [row[field] for row in rows if row[field] is not None]
    return (min(values), max(values)) if values else None


def between(ends: tuple[float, float] | None) -> str:
    """Return the least and the greatest value in words.

    >>> between((1, 2)), between((0.19, 0.19)), between(None)
    ('between 1 and 2', '0.19 throughout', 'never finite')
    """
    if ends is None:
        return "never finite"
    if ends[0] == ends[1]:
        return f"{short(ends[0])} throughout"
    return "between {} and {}".format(*distinct(ends))


def brief(name: str) -> str:
    """Return a name as it stands in a sentence: of a long one the start and the end.

    >>> brief("JFK"), brief("abcdefghij" * 20)
    ('JFK', 'abcdefghijabcdefghijabcd…ijabcdefghij')
    """
    return name if len(name) <= _LONGEST else f"{name[:24]}…{name[-12:]}"


def x_title(timeline: Timeline, timed: bool) -> str:
    """Return the title of the axis of a timeline: what one bucket is."""
    if timeline.clock:
        return timeline.unit
    return "time" if timed else "row"


def per(timeline: Timeline, timed: bool) -> str:
    """Return what a value is of: "by day", "by 100 rows"."""
    if timeline.clock:
        return f"by {timeline.unit}"
    return f"by {timeline.unit} {'units of time' if timed else 'rows'}"


def buckets_of(timeline: Timeline, timed: bool) -> dict[str, Any]:
    """Return the column of a table that has the starts of the buckets."""
    return {"time" if timed else "row_number": timeline.names()}


def axis(timeline: Timeline, timed: bool) -> dict[str, Any]:
    """Return what a picture needs to know of its horizontal axis."""
    return {
        "x_field": "time" if timed else "row_number",
        "x_title": x_title(timeline, timed),
        "clock": timeline.clock,
        "step": timeline.width,
    }
