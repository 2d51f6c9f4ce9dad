"""The features over time, beside the model's Normalization, and the values that a run changes."""

from collections.abc import Sequence
from typing import Self

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
from streamrnn.stream.sources.contract import Feature

_MOST_FEATURES = 12


class SourceValues:
    """Counts and samples the values of a source within a timeline, as they are in its files.

    `nulls`, `invalid` and `clipped` (buckets,) count the values of numeric features that are null
    or NaN, outside `valid`, or limited by `clip`. Quantiles are of the values that remain, after
    `clip`.
    """

    def __init__(
        self, features: Sequence[Feature], time: str, timeline: Timeline, zone: str = ""
    ) -> None:
        self.features = features
        self.sample = BucketSample(timeline.buckets, len(features))
        self.nulls, self.invalid, self.clipped = np.zeros((3, timeline.buckets), np.int64)
        self._time, self._zone = time, zone
        self._timeline = timeline

    @classmethod
    def of(cls, loaded: LoadedPipeline, timeline: Timeline) -> Self:
        """Return the values of a pipeline's first numeric features, before any is added."""
        features, source = loaded.contract.features, loaded.config.source
        numeric = [f for f in features if f.kind == "float32" and f.vocabulary is None]
        return cls(numeric[:_MOST_FEATURES], str(source.time), timeline, source.time_zone)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a record batch."""
        time = batch.column(self._time)
        place, line = positions(time, self._zone), self._timeline
        inside = (place >= line.first) & (place < line.first + line.width * line.buckets)
        inside &= time.is_valid().to_numpy(zero_copy_only=False)
        if not inside.all():
            batch, place = batch.filter(pa.array(inside)), place[inside]
        bucket = line.bucket(place)
        value = floats_of(batch, tuple(feature.name for feature in self.features))
        for index, feature in enumerate(self.features):
            self._limit(value[:, index], feature, bucket)
        self.sample.add(bucket, value)

    def _limit(self, value_N: Floats, feature: Feature, bucket_N: Ints) -> None:
        """Count the values that a run would change, and change them in place."""
        buckets = len(self.nulls)
        missing = np.isnan(value_N)
        self.nulls += np.bincount(bucket_N[missing], minlength=buckets)
        if feature.valid is not None:
            low, high = np.array(feature.valid, np.float32)
            outside = ~missing & ((value_N < low) | (value_N > high))
            self.invalid += np.bincount(bucket_N[outside], minlength=buckets)
            value_N[outside] = np.nan
        if feature.clip is not None:
            low, high = np.array(feature.clip, np.float32)
            with np.errstate(invalid="ignore"):
                over = (value_N < low) | (value_N > high)
            self.clipped += np.bincount(bucket_N[over], minlength=buckets)
            np.clip(value_N, low, high, out=value_N)


def features_over_time(subject: Subject, values: SourceValues, loaded: LoadedPipeline) -> Picture:
    """Return the median of each feature, and the band of 80 % of its values."""
    scaling = scaling_of(loaded)
    starts = subject.timeline.starts()
    panels = [
        Panel(feature.name, rows_of_columns({**starts, **band}), scaling.get(feature.name))
        for feature, band in zip(values.features, values.sample.bands(), strict=True)
    ]
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
            f"{_MOST_FEATURES}."
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
    """Describe the feature whose median is farthest from the mean of its Normalization.

    Without a Normalization, describe the median of the first feature.
    """
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
    columns = {"missing": values.nulls, "invalid": values.invalid, "clipped": values.clipped}
    labels = ("null or NaN", "outside valid", "clipped")
    totals = [int(column.sum()) for column in columns.values()]
    names = ", ".join(feature.name for feature in values.features)
    return Picture(
        "values",
        f"Values that a run changes, {subject.timeline.per}",
        f"{totals[0]:,} null, {totals[1]:,} outside valid, {totals[2]:,} clipped.",
        "stack",
        [Panel("", rows_of_columns({**subject.timeline.starts(), **columns}))],
        [Drawn(*of_column) for of_column in zip(columns, labels, strict=True)],
        y_title="Values",
        notes=[
            f"Counted in the source as it is now, of {names}.",
            "[source] nulls says whether nulls and values outside valid are filled, skipped or "
            "rejected.",
        ],
        from_zero=True,
        **subject.timeline.axis(),
    )
