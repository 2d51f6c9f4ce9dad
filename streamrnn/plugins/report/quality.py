"""Pictures of rows by time: with a score, without, rejected; values that a run changed."""

from collections import Counter

from streamrnn.base.display import count
from streamrnn.plugins.report.numbers.rejected import rejected_by_time
from streamrnn.plugins.report.numbers.source_values import SourceValues
from streamrnn.plugins.report.pictures.picture import Drawn, Missing, Panel, Picture
from streamrnn.plugins.report.subject import Subject
from streamrnn.plugins.report.words import Row, axis, buckets_of, per, rows_of_columns

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


def source_values(subject: Subject, values: SourceValues) -> Picture:
    """Return values of the source that a run changes, by time."""
    at = axis(subject.timeline, subject.timed)
    columns = {
        **buckets_of(subject.timeline, subject.timed),
        "missing": values.nulls,
        "invalid": values.invalid,
        "clipped": values.clipped,
    }
    totals = [int(column.sum()) for column in (values.nulls, values.invalid, values.clipped)]
    names = ", ".join(column.name for column in values.columns)
    return Picture(
        "values",
        f"Values that a run changes, {per(subject.timeline, subject.timed)}",
        f"{totals[0]:,} null, {totals[1]:,} outside valid, {totals[2]:,} clipped.",
        "stack",
        [Panel("", rows_of_columns(columns))],
        [
            Drawn("missing", "null or NaN"),
            Drawn("invalid", "outside valid"),
            Drawn("clipped", "clipped"),
        ],
        y_title="Values",
        notes=[
            f"Counted in the source as it is now, of {names}.",
            "[source] nulls says whether nulls and values outside valid are filled, skipped or "
            "rejected.",
        ],
        from_zero=True,
        **at,
    )
