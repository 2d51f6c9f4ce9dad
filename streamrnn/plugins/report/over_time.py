"""Pictures of an output over time: its values, also of some streams one by one, and its rows."""

from collections import Counter

import numpy as np

from streamrnn.base.arrays import Ints
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
    rows_of_columns,
    span,
    without_name,
)
from streamrnn.plugins.report.scan import NO_KEY, StreamMeans, Subject

MOST_POINTS = 100
"""Largest number of buckets of one stream: more cannot be told apart in a small panel."""
_MOST_COMMITS = 400
_MOST_RULES = 12


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
    """Return where each commit begins; with more than `most`, only where the model changes."""
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
