"""Pictures of the outputs over time: of all streams, and of some streams one by one."""

from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Ints
from streamrnn.base.display import count
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    Row,
    VerticalRule,
    axis,
    between,
    brief,
    buckets_of,
    per,
    rows_of_columns,
    span,
)
from streamrnn.plugins.report.scan import StreamMeans, Subject, stream_means

MOST_POINTS = 100
"""Buckets of a stream by itself: more cannot be told apart in a small panel."""
_MOST_RULES = 12
_SHARES = (0.1, 0.5, 0.9)


def outputs_over_time(subject: Subject) -> Picture | Missing:
    """Return the median of each output and the band of 80 % of its rows, by time."""
    title = f"Outputs over time, {per(subject.timeline, subject.timed)}"
    names = subject.columns.drawn
    quantiles = subject.scanned.sample.quantiles(_SHARES)
    at = axis(subject.timeline, subject.timed)
    panels = [
        Panel(
            name,
            rows_of_columns(
                {
                    **buckets_of(subject.timeline, subject.timed),
                    "low": quantiles[:, index, 0],
                    "median": quantiles[:, index, 1],
                    "high": quantiles[:, index, 2],
                    "rows": subject.scanned.sample.counts,
                }
            ),
        )
        for index, name in enumerate(names)
    ]
    if not any(span(panel.rows, "median") for panel in panels):  # type: ignore[arg-type]
        return Missing(
            "outputs",
            title,
            "no row has a finite output yet: all are null, as during [output] warmup, or infinite.",
        )
    several = [] if len(panels) == 1 else panels
    return Picture(
        "outputs",
        title,
        _sentence(panels),
        "band",
        several or [Panel("", panels[0].rows)],
        [Drawn("high", "10 to 90 % of the rows", "low"), Drawn("median", "median")],
        y_title=names[0] if len(names) == 1 else "Each output",
        rules=rules_of(subject, _MOST_RULES),
        notes=_notes(subject),
        **at,
    )


def _sentence(panels: list[Panel]) -> str:
    texts = []
    for panel in panels:
        ends = span(panel.rows, "median")  # type: ignore[arg-type]
        if ends is None:
            texts.append(f"{panel.label} has no finite value")
        else:
            texts.append(f"median {panel.label} {between(ends)}")
    text = "; ".join(texts)
    return f"{text[:1].upper()}{text[1:]}."


def rules_of(subject: Subject, most: int = 0) -> list[VerticalRule]:
    """Return where each commit begins; of more than `most`, only where the model is another one."""
    extent, timeline = subject.extent, subject.timeline
    numbers = sorted(extent.commits)
    found, before = [], ""
    for number in numbers:
        model, at = extent.models[number], timeline.name(extent.commits[number])
        if before and model != before:
            found.append(VerticalRule(at, f"model {model[:6]}", model=True))
        elif len(numbers) <= most and number != numbers[0]:
            found.append(VerticalRule(at, f"commit {number}"))
        before = model
    return found[-_MOST_RULES:]


def _notes(subject: Subject) -> list[str]:
    notes = []
    commits, outputs = len(subject.extent.commits), len(subject.columns.outputs)
    if commits > _MOST_RULES:
        notes.append(
            f"The first rows of {commits:,} commits are not marked, only where the model changed."
        )
    elif commits > 1:
        notes.append("A dotted line marks the first row of each later commit.")
    if any(rule.model for rule in rules_of(subject)):
        notes.append("A solid line marks the first row of another model.")
    if outputs > len(subject.columns.drawn):
        drawn = len(subject.columns.drawn)
        notes.append(f"{drawn} of {outputs} outputs are drawn, the first ones.")
    if subject.scanned.infinite:
        values = count(subject.scanned.infinite, "infinite value")
        notes.append(f"{values} of the drawn outputs left out.")
    if subject.scanned.sample.sampled:
        notes.append(
            "Quantiles of buckets with more than 4,000 rows are those of at least 2,000 of them."
        )
    return notes


def streams_one_by_one(
    subject: Subject, slots: Ints, values: StreamMeans | None, index: int, target: str
) -> Picture | Missing:
    """Return the output `index` of some streams, beside the `target` if `values` has both."""
    what = "the streams chosen" if subject.keys else "the streams with most rows"
    streams = count(len(slots), "stream")
    title = f"{streams[:1].upper()}{streams[1:]}: {what}" if len(slots) > 1 else "One stream"
    if not subject.columns.keys:
        return Missing(
            "each-stream",
            "Streams one by one",
            "the key is not in the output: add [source] key to [output] columns, and score again "
            "with --full-refresh.",
        )
    if values is None:
        line = subject.timeline.coarser(MOST_POINTS)
        read = StreamMeans(slots, line, len(subject.columns.drawn))
        stream_means(subject.path, subject.manifest, subject.columns, subject.scanned.streams, read)
        means, names = read.means()[:, :, index : index + 1], ["output"]
    else:
        line, means, names = values.timeline, values.means(), ["output", "happened"]
    name = subject.columns.outputs[index]
    labels = [name, target] if values is not None else [name]
    keys = subject.scanned.streams.keys(slots)
    at = axis(line, subject.timed)
    panels = [
        Panel(key, _present(buckets_of(line, subject.timed), row, names))
        for key, row in zip(keys, means, strict=True)
    ]
    if not any(panel.rows for panel in panels):
        return Missing("each-stream", title, f"none of these streams has a finite {name} yet.")
    return Picture(
        "each-stream",
        title,
        _each_sentence(panels, name),
        "lines",
        panels,
        [Drawn(*pair) for pair in zip(names, labels, strict=True)],
        y_title=f"Mean {per(line, subject.timed)}",
        shared=True,
        notes=["All panels have one vertical scale."],
        **at,
    )


def _present(times: dict[str, Any], values: Array, names: list[str]) -> list[Row]:
    rows = rows_of_columns(times | {name: values[:, i] for i, name in enumerate(names)})
    return [row for row in rows if any(row[name] is not None for name in names)]


def _each_sentence(panels: list[Panel], name: str) -> str:
    rows = [row for panel in panels for row in panel.rows]
    means = [
        (np.mean([row["output"] for row in panel.rows if row["output"] is not None]), panel.label)
        for panel in panels
        if any(row["output"] is not None for row in panel.rows)
    ]
    text = f"{name} {between(span(rows, 'output'))}"  # type: ignore[arg-type]
    if len(means) > 1:
        highest, lowest = (brief(one(means, key=lambda mean: mean[0])[1]) for one in (max, min))
        text += f", on average highest for {highest} and lowest for {lowest}"
    return f"{text}."
