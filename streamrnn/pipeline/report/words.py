"""Rows and words that pictures share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamrnn.outputs.reporting import Timeline

Row = dict[str, Any]


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


def span(rows: Sequence[Row], field: str) -> tuple[float, float] | None:
    """Return the least and the greatest value of a field; None if there is none."""
    values = [row[field] for row in rows if row[field] is not None]
    return (min(values), max(values)) if values else None


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
