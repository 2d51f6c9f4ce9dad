"""The features over time, beside the model's Normalization, and the values that a run changes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Floats, Ints
from streamrnn.base.display import count
from streamrnn.jobs.preflight import scaling_of
from streamrnn.plugins.report.picture import (
    Drawn,
    Panel,
    Picture,
    between,
    rows_of_columns,
    short,
    span,
)
from streamrnn.plugins.report.scan import Subject, floats_of
from streamrnn.plugins.report.timeline import BucketSample, Timeline, positions
from streamrnn.stream.scoring import LoadedPipeline


class SourceColumn(NamedTuple):
    """A numeric feature: values outside `valid` are null, `clip` limits the others."""

    name: str
    valid: tuple[float, float] | None = None
    clip: tuple[float, float] | None = None


class SourceValues:
    """Adds up the rows of a source within a timeline, as they are in its files.

    `nulls`, `invalid` and `clipped` (buckets,) count values: null or NaN; outside `valid`; limited
    by `clip`. Quantiles are taken over the remaining values.
    """

    def __init__(
        self, columns: Sequence[SourceColumn], time: str, timeline: Timeline, zone: str = ""
    ) -> None:
        self.columns = tuple(columns)
        self.sample = BucketSample(timeline.buckets, len(self.columns))
        self.nulls, self.invalid, self.clipped = np.zeros((3, timeline.buckets), np.int64)
        self._time, self._zone = time, zone
        self._timeline = timeline

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a record batch."""
        time = batch.column(self._time)
        place, line = positions(time, self._zone), self._timeline
        inside = (place >= line.first) & (place < line.first + line.width * line.buckets)
        inside &= time.is_valid().to_numpy(zero_copy_only=False)
        if not inside.all():
            batch, place = batch.filter(pa.array(inside)), place[inside]
        bucket = line.bucket(place)
        value = floats_of(batch, tuple(column.name for column in self.columns))
        for index, column in enumerate(self.columns):
            self._limit(value[:, index], column, bucket)
        self.sample.add(bucket, value)

    def _limit(self, value_N: Floats, column: SourceColumn, bucket_N: Ints) -> None:
        """Count the values that a run would change, and change them in place."""
        missing = np.isnan(value_N)
        self._count(self.nulls, bucket_N[missing])
        if column.valid is not None:
            low, high = column.valid
            outside = ~missing & ((value_N < np.float32(low)) | (value_N > np.float32(high)))
            self._count(self.invalid, bucket_N[outside])
            value_N[outside] = np.nan
        if column.clip is not None:
            low, high = column.clip
            with np.errstate(invalid="ignore"):
                over = (value_N < np.float32(low)) | (value_N > np.float32(high))
            self._count(self.clipped, bucket_N[over])
            np.clip(value_N, np.float32(low), np.float32(high), out=value_N)

    def _count(self, total: Ints, bucket: Ints) -> None:
        total += np.bincount(bucket, minlength=len(total))


MOST_FEATURES = 12
_SHARES = (0.1, 0.5, 0.9)


def feature_columns(loaded: LoadedPipeline) -> list[SourceColumn]:
    """Return the numeric features to draw: the first ones."""
    return [
        SourceColumn(f.name, f.valid, f.clip)
        for f in loaded.contract.features
        if f.kind == "float32" and f.vocabulary is None
    ][:MOST_FEATURES]


def features_over_time(subject: Subject, values: SourceValues, loaded: LoadedPipeline) -> Picture:
    """Return the median of each feature, and the band of 80 % of its values."""
    scaling = scaling_of(loaded)
    quantiles = values.sample.quantiles(_SHARES)
    panels = []
    for index, column in enumerate(values.columns):
        band = dict(zip(("low", "median", "high"), quantiles[:, index].T, strict=True))
        columns = {**subject.timeline.starts(), **band}
        panels.append(Panel(column.name, rows_of_columns(columns), scaling.get(column.name)))
    notes = ["Values after valid and clip, from the source as it is now."]
    notes.append(
        "Behind them: the mean of the model's Normalization (dashed), and one deviation on both "
        "sides of it."
        if scaling
        else "The model has no Normalization to compare them with."
    )
    left = len(loaded.contract.features) - len(panels)
    if left:
        notes.append(
            f"Not drawn: {count(left, 'feature')} of ids or text, or beyond the first "
            f"{MOST_FEATURES}."
        )
    return Picture(
        "features",
        f"Features {subject.timeline.per}",
        _sentence(panels),
        "band",
        panels,
        [Drawn("high", "10 to 90 % of the values", "low"), Drawn("median", "median")],
        y_title="Each in its own unit",
        notes=notes,
        **subject.timeline.axis(),
    )


def _sentence(panels: list[Panel]) -> str:
    """Describe the feature that leaves the model's range most, or the median of the first."""
    far = []
    for panel in panels:
        ends = span(panel.rows, "median")
        if ends and panel.reference and panel.reference[1] > 0:
            mean, deviation = panel.reference
            far.append((max(abs(end - mean) for end in ends) / deviation, panel.label))
    if far:
        distance, name = max(far)
        return (
            f"{name} has the median farthest from the mean of its Normalization, by "
            f"{short(distance)} deviations."
        )
    ends = span(panels[0].rows, "median")
    if ends is None:
        return f"{panels[0].label} has no finite value."
    return f"Median {panels[0].label} {between(ends)}."


def source_values(subject: Subject, values: SourceValues) -> Picture:
    """Return a picture of the source's values that a run changes, by time."""
    columns = {
        **subject.timeline.starts(),
        "missing": values.nulls,
        "invalid": values.invalid,
        "clipped": values.clipped,
    }
    totals = [int(column.sum()) for column in (values.nulls, values.invalid, values.clipped)]
    names = ", ".join(column.name for column in values.columns)
    return Picture(
        "values",
        f"Values that a run changes, {subject.timeline.per}",
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
        **subject.timeline.axis(),
    )
