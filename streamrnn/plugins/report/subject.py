"""What a report is on: an output, its columns, and one pass over its rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamrnn.base.arrays import Ints
from streamrnn.jobs.outputs import rows_of
from streamrnn.plugins.report.numbers.columns import OutputColumns
from streamrnn.plugins.report.numbers.scan import Extent, Scanned
from streamrnn.plugins.report.numbers.timeline import Timeline
from streamrnn.stream.checkpoints import Manifest

MOST_STREAMS = 12
"""Streams that are drawn one by one: those with the most rows."""


@dataclass(frozen=True)
class Subject:
    """An output that has rows. `keys`: the streams to draw, as for `drop_streams`."""

    path: str
    manifest: Manifest
    columns: OutputColumns
    extent: Extent
    scanned: Scanned
    keys: Sequence[str] = ()

    @property
    def timeline(self) -> Timeline:
        """The axis of what is drawn over time."""
        return self.scanned.timeline

    @property
    def timed(self) -> bool:
        """Whether the rows have times."""
        return self.columns.time is not None

    def chosen(self) -> Ints:
        """Return the slots of the streams to draw. Raises ConfigError for an unknown key."""
        streams = self.scanned.streams
        if self.keys and self.columns.keys:
            mask = rows_of(streams.key_table(), self.keys, self.path)
            return np.flatnonzero(mask)[:MOST_STREAMS].astype(np.int64)
        order = np.argsort(-streams.rows, kind="stable")
        found: Ints = order[:MOST_STREAMS].astype(np.int64)
        return found
