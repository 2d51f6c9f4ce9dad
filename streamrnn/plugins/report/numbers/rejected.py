"""Rejected rows by bucket of time."""

import numpy as np

from streamrnn.base.arrays import Ints
from streamrnn.jobs.outputs import part_batches
from streamrnn.plugins.report.numbers.columns import OutputColumns
from streamrnn.plugins.report.numbers.timeline import Timeline
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
