"""Rows by time and by commit: with a score, without, rejected."""

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
    axis,
    buckets_of,
    per,
    rows_of_columns,
)
from streamrnn.plugins.report.scan import OutputColumns, Subject
from streamrnn.plugins.report.timeline import Timeline
from streamrnn.stream.checkpoints import Manifest


def rejected_by_time(
    path: str, manifest: Manifest, columns: OutputColumns, timeline: Timeline
) -> Ints | None:
    """Return the number of rejected rows in each bucket; None if they have no times.

    Those without a time, or with one beyond the ends, are left out. Raises CheckpointError.
    """
    found = np.zeros(timeline.buckets, np.int64)
    parts = manifest.named("rejects").parts
    if not parts:
        return found
    if columns.time is None:
        return None
    where = manifest.place_of("rejects", path)
    end = timeline.first + timeline.width * timeline.buckets
    for _, batch in part_batches(where, manifest, [columns.time.name], parts):
        if not batch.num_columns:
            return None
        batch = columns.limited(batch.filter(batch.column(0).is_valid()))
        place = columns.places(batch, 0)
        place = place[(place >= timeline.first) & (place < end)]
        found += np.bincount(timeline.bucket(place), minlength=timeline.buckets)
    return found


_MOST_COMMITS = 400


def rows_over_time(subject: Subject) -> Picture | Missing:
    """Return rows by time: with a score, without one, and rejected."""
    title = f"Rows {per(subject.timeline, subject.timed)}"
    scanned = subject.scanned
    rejected = rejected_by_time(subject.path, subject.manifest, subject.columns, subject.timeline)
    at = axis(subject.timeline, subject.timed)
    columns = {
        **buckets_of(subject.timeline, subject.timed),
        "scored": scanned.scored,
        "unscored": scanned.sample.counts - scanned.scored,
    }
    series = [Drawn("scored", "with a score"), Drawn("unscored", "without a score")]
    rejects = subject.manifest.named("rejects")
    if rejects.parts and rejected is not None:
        columns["rejected"] = rejected
        series.append(Drawn("rejected", "rejected"))
    total, scored = int(scanned.sample.counts.sum()), int(scanned.scored.sum())
    sentence = f"{count(total, 'row')}, {total - scored:,} of them without a score"
    if rejects.parts:
        sentence += f"; {count(rejects.rows, 'row')} rejected beside them"
    notes = ["A row has no score during [output] warmup, and where [source] nulls skips it."]
    if rejected is None:
        notes.append("Rejected rows are known by commit only, as they have no times.")
    return Picture(
        "rows",
        title,
        f"{sentence}.",
        "stack",
        [Panel("", rows_of_columns(columns))],
        series,
        y_title="Rows",
        notes=notes,
        from_zero=True,
        **at,
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
        notes.append(f"The last {len(last)} of {len(numbers):,} commits.")
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
