"""Pictures of an output: its values, values of single streams, its rows, and its streams.

Of the streams: how many are active and new, how long each was silent, and how many steps it has.
"""

from collections import Counter

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Doubles, Ints
from streamrnn.base.display import count
from streamrnn.jobs.outputs import part_batches
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    Row,
    VerticalRule,
    between,
    brief,
    distinct,
    rows_of_columns,
    short,
    span,
    without_name,
)
from streamrnn.plugins.report.scan import NO_KEY, StreamMeans, Subject

MOST_POINTS = 100
"""Largest number of buckets of one stream: more cannot be told apart in a small panel."""
_MOST_COMMITS = 400
_MOST_RULES = 12
_HOUR, _DAY = 3600, 86400
_UNIT = {"days": "a full day", "hours": "a full hour"}


def outputs_over_time(subject: Subject) -> Picture | Missing:
    """Return the median of each output and the band of 80 % of its rows, by time."""
    title = f"Outputs over time, {subject.timeline.per}"
    names = subject.columns.drawn
    starts, sample = subject.timeline.starts(), subject.sample
    panels = [
        Panel(name, rows_of_columns({**starts, **band, "rows": sample.counts}))
        for name, band in zip(names, sample.bands(), strict=True)
    ]
    if not any(span(panel.rows, "median") for panel in panels):
        return Missing(
            "outputs",
            title,
            "no row has a finite output yet: all are null, as during [output] warmup, or infinite.",
        )
    texts = []
    for panel in panels:
        if ends := span(panel.rows, "median"):
            texts.append(f"median {panel.label} {between(ends)}")
        else:
            texts.append(f"{panel.label} has no finite value")
    sentence = "; ".join(texts)
    return Picture(
        "outputs",
        title,
        f"{sentence[:1].upper()}{sentence[1:]}.",
        "band",
        without_name(panels),
        [Drawn("high", "10 to 90 % of the rows", "low"), Drawn("median", "median")],
        y_title=names[0] if len(names) == 1 else "Each output",
        rules=rules_of(subject, _MOST_RULES),
        notes=_notes(subject),
        **subject.timeline.axis(),
    )


def rules_of(subject: Subject, most: int = 0) -> list[VerticalRule]:
    """Return a vertical rule for each commit by another model than the commit before.

    If there are at most `most` commits, every commit after the first has one. At most the last 12
    rules are returned.
    """
    extent, timeline = subject.extent, subject.timeline
    numbers = sorted(extent.commits)
    rules, before = [], ""
    for number in numbers:
        model, at = extent.models[number], timeline.name(extent.commits[number])
        if before and model != before:
            rules.append(VerticalRule(at, f"model {model[:6]}", model=True))
        elif len(numbers) <= most and number != numbers[0]:
            rules.append(VerticalRule(at, f"commit {number}"))
        before = model
    return rules[-_MOST_RULES:]


def _notes(subject: Subject) -> list[str]:
    notes = []
    commits, outputs = len(subject.extent.commits), len(subject.columns.outputs)
    drawn = len(subject.columns.drawn)
    if commits > _MOST_RULES:
        notes.append(
            f"Of {commits:,} commits, only the first rows after a change of the model are marked, "
            f"and of more than {_MOST_RULES} changes only the last {_MOST_RULES}."
        )
    elif commits > 1:
        notes.append("A dotted line marks the first row of each later commit.")
    if any(rule.model for rule in rules_of(subject)):
        notes.append("A solid line marks the first row of another model.")
    if outputs > drawn:
        notes.append(f"{drawn} of {outputs} outputs are drawn: the first ones.")
    if subject.infinite:
        values = count(subject.infinite, "infinite value")
        notes.append(f"Left out: {values} of the drawn outputs.")
    if subject.sample.sampled:
        notes.append("In buckets of over 4,000 rows, quantiles are of about 2,000 to 4,000 rows.")
    return notes


def streams_one_by_one(
    subject: Subject, slots: Ints, values: StreamMeans | None, index: int, target: str
) -> Picture | Missing:
    """Return the output `index` of some streams, beside the `target` if `values` has both."""
    what = "the streams chosen" if subject.keys else "the streams with the most rows"
    streams = count(len(slots), "stream")
    title = f"{streams[:1].upper()}{streams[1:]}: {what}" if len(slots) > 1 else "One stream"
    if not subject.columns.keys:
        return Missing("each-stream", "Streams one by one", NO_KEY)
    if values is None:
        line = subject.timeline.coarser(MOST_POINTS)
        read = StreamMeans(slots, line, len(subject.columns.drawn))
        subject.add_streams(read)
        means, names = read.means()[:, :, index : index + 1], ["output"]
    else:
        line, means, names = values.timeline, values.means(), ["output", "happened"]
    name = subject.columns.outputs[index]
    labels = [name, target] if values is not None else [name]
    keys = subject.streams.keys(slots)
    panels = []
    for key, mean in zip(keys, means, strict=True):
        rows = rows_of_columns(line.starts() | dict(zip(names, mean.T, strict=True)))
        panels.append(Panel(key, [row for row in rows if {row[n] for n in names} != {None}]))
    if not any(panel.rows for panel in panels):
        return Missing("each-stream", title, f"none of these streams has a finite {name} yet.")
    return Picture(
        "each-stream",
        title,
        _each_sentence(panels, name),
        "lines",
        panels,
        [Drawn(*pair) for pair in zip(names, labels, strict=True)],
        y_title=f"Mean {line.per}",
        shared=True,
        notes=["All panels have the same vertical scale."],
        **line.axis(),
    )


def _each_sentence(panels: list[Panel], name: str) -> str:
    means = {}
    for panel in panels:
        if values := [row["output"] for row in panel.rows if row["output"] is not None]:
            means[panel.label] = np.mean(values)
    text = f"{name} {between(span([row for panel in panels for row in panel.rows], 'output'))}"
    if len(means) > 1:
        highest, lowest = (brief(one(means, key=means.__getitem__)) for one in (max, min))
        text += f", on average highest for {highest} and lowest for {lowest}"
    return f"{text}."


def _rejected_by_time(subject: Subject) -> Ints | None:
    """Return the number of rejected rows in each bucket; None if they have no times.

    Rows without a time, or with one beyond the ends, are left out. Raises CheckpointError.
    """
    columns, timeline = subject.columns, subject.timeline
    total = np.zeros(timeline.buckets, np.int64)
    parts = subject.manifest.named("rejects").parts
    if not parts:
        return total
    if columns.time is None:
        return None
    where = subject.manifest.place_of("rejects", subject.path)
    end = timeline.first + timeline.width * timeline.buckets
    for _, batch in part_batches(where, subject.manifest, [columns.time.name], parts):
        if not batch.num_columns:
            return None
        batch = columns.limited(batch.filter(batch.column(0).is_valid()))
        place = columns.places(batch, 0)
        place = place[(place >= timeline.first) & (place < end)]
        total += np.bincount(timeline.bucket(place), minlength=timeline.buckets)
    return total


def rows_over_time(subject: Subject) -> Picture:
    """Return rows by time: with a score, without one, and rejected."""
    rejected = _rejected_by_time(subject)
    unscored = subject.sample.counts - subject.scored
    columns = {**subject.timeline.starts(), "scored": subject.scored, "unscored": unscored}
    series = [Drawn("scored", "with a score"), Drawn("unscored", "without a score")]
    rejects = subject.manifest.named("rejects")
    if rejects.parts and rejected is not None:
        columns["rejected"] = rejected
        series.append(Drawn("rejected", "rejected"))
    total, scored = int(subject.sample.counts.sum()), int(subject.scored.sum())
    sentence = f"{count(total, 'row')}, {total - scored:,} of them without a score"
    if rejects.parts:
        sentence += f"; in addition, {count(rejects.rows, 'row')} rejected"
    notes = ["A row has no score during [output] warmup, and where [source] nulls skips it."]
    if rejected is None:
        notes.append("Rejected rows are known by commit only, as they have no times.")
    return Picture(
        "rows",
        f"Rows {subject.timeline.per}",
        f"{sentence}.",
        "stack",
        [Panel("", rows_of_columns(columns))],
        series,
        y_title="Rows",
        notes=notes,
        from_zero=True,
        **subject.timeline.axis(),
    )


def rows_by_commit(subject: Subject) -> Picture | Missing:
    """Return rows and rejects of each commit."""
    title = "Rows by commit"
    manifest = subject.manifest
    rows, rejects = Counter[int](), Counter[int]()
    for part in manifest.parts:
        rows[part.commit] += part.rows
    for part in manifest.named("rejects").parts:
        rejects[part.commit] += part.rows
    numbers = sorted({*rows, *rejects})
    if len(numbers) < 2:
        return Missing(
            "commits", title, "there is one commit; each further run that finds rows adds one."
        )
    last = numbers[-_MOST_COMMITS:]
    table: list[Row] = [{"commit": n, "rows": rows[n], "rejected": rejects[n]} for n in last]
    most = max(table, key=lambda row: row["rows"])
    notes = ["Parts that were merged count for the commit that merged them."]
    if len(numbers) > len(last):
        notes.append(f"Only the last {len(last)} of {len(numbers):,} commits are drawn.")
    return Picture(
        "commits",
        title,
        f"{count(len(numbers), 'commit')}; the largest, commit {most['commit']}, has "
        f"{count(most['rows'], 'row')}.",
        "bars",
        [Panel("", table)],
        [Drawn("rows", "rows")],
        x_field="commit",
        x_title="commit",
        y_title="Rows",
        notes=notes,
        from_zero=True,
    )


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
    """Return for how long each stream had had no row at the time of the last row."""
    title = "Silent streams"
    if not subject.columns.keys:
        return Missing("silence", title, NO_KEY)
    if subject.columns.time is None:
        return Missing(
            "silence",
            title,
            "it is measured in timestamps or dates: add [source] time to [output] columns, and "
            "score again with --full-refresh.",
        )
    if not subject.columns.clock:
        return Missing("silence", title, "the times of the rows are integers.")
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
        f"{count(silent, 'stream')} of {len(last):,} had no row for {_UNIT[unit]} or more; the "
        f"longest silence is {short(int(since.max()))} {unit}.",
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
    """Return steps per stream, from the state; without one, from the rows of the output."""
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
