"""The numbers of a source by bucket of time: quantiles, nulls, and values that were limited."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Floats, Ints
from streamrnn.plugins.report.numbers.columns import floats_of
from streamrnn.plugins.report.numbers.sample import BucketSample
from streamrnn.plugins.report.numbers.timeline import Timeline, positions


class SourceColumn(NamedTuple):
    """A feature of numbers, with its limits: values outside `valid` are null, `clip` limits."""

    name: str
    valid: tuple[float, float] | None = None
    clip: tuple[float, float] | None = None


class SourceValues:
    """Adds up the rows of a source within a timeline, as they are in its files.

    `nulls`, `invalid` and `clipped` (buckets,) count values: null or NaN; outside `valid`; limited
    by `clip`. Quantiles are those of the values that are left.
    """

    def __init__(self, columns: Sequence[SourceColumn], time: str, timeline: Timeline) -> None:
        self.columns = tuple(columns)
        self.sample = BucketSample(timeline.buckets, len(self.columns))
        self.nulls, self.invalid, self.clipped = np.zeros((3, timeline.buckets), np.int64)
        self._time = time
        self._timeline = timeline

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a record batch."""
        time = batch.column(self._time)
        place, line = positions(time), self._timeline
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
        """Count what a run would change, and change it in place."""
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
