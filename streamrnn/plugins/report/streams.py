"""Streams: the active and the new ones, how long each was silent, and how many steps it has."""

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Doubles, Ints
from streamrnn.base.display import count
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    Row,
    between,
    distinct,
    rows_of_columns,
    short,
)
from streamrnn.plugins.report.scan import NO_KEY, Subject


def log_histogram(value_N: Ints) -> pa.Table:
    """Count positive integers in classes of doubling width, `from` to `to`: 1, 2-3, 4-7, ….

    `to` is inclusive; `count` is the number of values in a class. Classes before the first and
    after the last that has a value are left out.

    >>> log_histogram(np.array([1, 5, 6])).to_pylist()[-1]
    {'from': 4, 'to': 7, 'count': 2}
    """
    value = value_N[value_N > 0]
    edges = 2 ** np.arange(63, dtype=np.int64)
    level = np.searchsorted(edges, value, side="right") - 1
    count = np.bincount(level, minlength=1)
    first = int(level.min(initial=len(count)))
    start = edges[first : len(count)]
    return pa.table({"from": start, "to": 2 * (start - 1) + 1, "count": count[first:]})


def even_histogram(value_N: Doubles, classes: int = 30) -> pa.Table:
    """Count numbers in up to `classes` classes of equal width from the least to the greatest."""
    value = value_N[np.isfinite(value_N)]
    if not len(value):
        return pa.table({"from": np.zeros(0), "to": np.zeros(0), "count": np.zeros(0, np.int64)})
    low, high = float(value.min()), float(value.max())
    if low == high:
        return pa.table({"from": [low], "to": [high], "count": [len(value)]})
    edges = low + (high - low) * np.arange(classes + 1) / classes
    edges = np.unique(edges)  # fewer if there are not enough numbers in between
    classes = len(edges) - 1
    at = np.searchsorted(edges, value, side="right") - 1
    count = np.bincount(at.clip(0, classes - 1), minlength=classes)
    return pa.table({"from": edges[:-1], "to": edges[1:], "count": count})


_HOUR, _DAY = 3600, 86400
_UNIT = {"days": "a full day", "hours": "a full hour"}


def streams_over_time(subject: Subject) -> Picture | Missing:
    """Return active and new streams by time."""
    title = f"Streams {subject.timeline.per}"
    if not subject.columns.keys:
        return Missing("streams", title, NO_KEY)
    streams = subject.streams
    active, new = streams.active(), streams.new()
    columns = {**subject.timeline.starts(), "active": active, "new": new}
    some = active[active > 0]
    return Picture(
        "streams",
        title,
        f"{count(len(streams), 'stream')}; active: {between((int(some.min()), int(some.max())))}.",
        "lines",
        [Panel("", rows_of_columns(columns))],
        [Drawn("active", "active, with a row"), Drawn("new", "new, with their first row")],
        y_title="Streams",
        from_zero=True,
        **subject.timeline.axis(),
    )


def silence(subject: Subject) -> Picture | Missing:
    """Return for how long each stream had no row, as of the last row of all."""
    title = "Silent streams"
    if not subject.columns.keys:
        return Missing("silence", title, NO_KEY)
    if not subject.columns.clock:
        return Missing(
            "silence",
            title,
            "it is measured in timestamps or dates: add [source] time to [output] columns, and "
            "score again with --full-refresh.",
        )
    last = subject.streams.last
    days = int(last.max() - subject.extent.first) >= 14 * _DAY
    unit, seconds = ("days", _DAY) if days else ("hours", _HOUR)
    since = (last.max() - last) // seconds
    silent = int((since > 0).sum())
    if not silent:
        return Missing("silence", title, f"no stream was silent for {_UNIT[unit]} at the last row.")
    table = histogram_rows(log_histogram(since), unit, "streams")
    return Picture(
        "silence",
        title,
        f"{count(silent, 'stream')} of {len(last):,} silent for {_UNIT[unit]} or more; the "
        f"longest for {short(int(since.max()))} {unit}.",
        "bars",
        [Panel("", [{unit: "0", "streams": len(since) - silent}, *table])],
        [Drawn("streams", "streams")],
        x_field=unit,
        x_title=f"full {unit} without a row, at the last row of all",
        y_title="Streams",
        notes=[
            "`streamrnn state compact OUT --idle 90d` drops streams that are silent for longer."
        ],
        from_zero=True,
    )


def steps(subject: Subject, state: pa.Table | None) -> Picture | Missing:
    """Return steps per stream, from the state, else from the rows of the output."""
    title = "Steps per stream"
    if state is not None and "steps" in state.column_names:
        value = state.column("steps").to_numpy()
        note = "From the state of the last commit: steps since a stream began."
    elif subject.columns.keys:
        value = subject.streams.rows
        note = "Rows in the output, which has no state."
    else:
        return Missing("steps", title, NO_KEY)
    rows = histogram_rows(log_histogram(value), "steps", "streams")
    middle = int(np.sort(value)[len(value) // 2]) if len(value) else 0
    return Picture(
        "steps",
        title,
        f"{count(len(value), 'stream')} of {count(int(value.max(initial=0)), 'step')} at most; "
        f"the median has {middle:,}.",
        "bars",
        [Panel("", rows)],
        [Drawn("streams", "streams")],
        x_field="steps",
        x_title="steps (each class is twice as wide as the last)",
        y_title="Streams",
        notes=[note],
        from_zero=True,
    )


def histogram_rows(table: pa.Table, name: str, counted: str) -> list[Row]:
    """Return the classes of a histogram with their limits as text, no two alike."""
    rows = table.to_pylist()
    limits = sorted({limit for row in rows for limit in (row["from"], row["to"])})
    text = dict(zip(limits, distinct(limits), strict=True))
    return [
        {
            name: text[row["from"]]
            if row["from"] == row["to"]
            else f"{text[row['from']]}–{text[row['to']]}",
            counted: row["count"],
        }
        for row in rows
    ]
