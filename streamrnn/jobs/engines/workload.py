"""How the workers share a run, and advice on settings."""

from collections.abc import Sequence

import numpy as np

from streamrnn.jobs.engines.shard import Outcome
from streamrnn.jobs.engines.splitting import Heavy, Split, merged
from streamrnn.stream.scoring import Workload

_SMALL_CHUNK = 100_000
_MUCH = 50_000_000


class WorkloadCounts:
    """Adds up what the tasks of a run report; `workload` is updated in place."""

    def __init__(self, workers: int, shards: int) -> None:
        self.workload = Workload(workers=workers, shards=shards)
        self._rows = 0
        self._chunks = 0
        self._heavy: Heavy = {}
        self._seconds_S = np.zeros(shards)

    def add(self, splits: Sequence[Split], outcomes: Sequence[Outcome]) -> None:
        """Add the tasks of one epoch."""
        workload = self.workload
        workload.epochs += 1
        workload.bytes += sum(split.bytes for split in splits)
        self._rows += sum(sum(split.rows_S) for split in splits)
        self._chunks += sum(len(split.rows_S) for split in splits)
        self._heavy = merged([self._heavy, *(split.heavy for split in splits)])
        self._seconds_S += [outcome.seconds for outcome in outcomes]
        if self._heavy and self._rows:
            rows, workload.largest_stream = max(self._heavy.values())
            workload.largest_share = rows / self._rows
        if (slowest := self._seconds_S.max()) > 0:
            workload.speed_up_limit = float(self._seconds_S.sum() / slowest)
        workload.advice = list(self._advice())

    def largest(self) -> str:
        """Return the share of the largest stream, for the progress; "" if not known yet."""
        share = self.workload.largest_share
        return f", largest stream {share:.1%}" if share else ""

    def _advice(self) -> list[str]:
        workload, advice = self.workload, []
        if workload.largest_share > 1 / max(2, workload.shards):
            advice.append(
                f"stream {workload.largest_stream} has {workload.largest_share:.0%} of the rows, "
                "which one worker scores in sequence: more than "
                f"{workload.speed_up_limit:.1f} workers do not help"
            )
        if self._chunks and workload.bytes > _MUCH:
            size = workload.bytes / self._chunks
            if size < _SMALL_CHUNK:
                advice.append(
                    f"workers hand over {size / 1000:.0f} kB at a time, which is little: set "
                    "[engine] shards lower, or [engine] epoch_rows higher"
                )
        return advice
