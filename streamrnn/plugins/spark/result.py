"""The result of scoring a DataFrame: rows, state and rejects, computed once."""

import json
from typing import Any

from streamrnn.plugins.spark.deferred import pyspark
from streamrnn.plugins.spark.failures import worker_errors
from streamrnn.plugins.spark.ordering import quoted
from streamrnn.plugins.spark.partition import DATA, KIND, REJECTS, SCORED_ROWS, STATE, SUMMARY, Task
from streamrnn.plugins.spark.shipping import unpacking
from streamrnn.plugins.spark.state_frames import state_struct
from streamrnn.plugins.spark.types import spark_schema
from streamrnn.stream.scoring import Summary


class ScoredFrames:
    """ScoredFrames rows, the new state of all streams, and rejected rows.

    All of them are in one DataFrame, `both`, which is computed once: the first action on `rows`,
    `state`, `rejects` or `summary` keeps it on the disks of the executors, until `unpersist`.
    """

    def __init__(self, both: Any, task: Task) -> None:
        self.both = both
        self._task = task
        self._persisted = False

    @property
    def rows(self) -> Any:
        """The scored rows, with the columns of an output."""
        kept = [quoted(name) for name in self._task.bound.emitter.schema.names]
        return self._of(SCORED_ROWS).select(*kept)

    @property
    def state(self) -> Any:
        """The state of all streams: keys, steps, last_time, each state as a binary value."""
        return self._unpacked(STATE, state_struct(self._task.bound.layout.schema()))

    @property
    def rejects(self) -> Any:
        """The rejected rows with their reason and place.

        `file` and `row` are those of an order of a text and an integer; else null, and the columns
        of the order are `order/<name>`.
        """
        return self._unpacked(REJECTS, spark_schema(self._task.rejects_schema()))

    def summary(self) -> Summary:
        """Compute the result, if it is not yet, and return its counts.

        Raises DataError if more rows are rejected than [source] max_rejects; and what a worker
        raised.
        """
        with worker_errors():
            found = self._of(SUMMARY).select(DATA).collect()
        summary = Summary()
        results = [json.loads(bytes(content)) for (content,) in found]
        for name in {name for result in results for name in result["first"]}:
            rows = [result["first"][name] for result in results if name in result["first"]]
            setattr(summary, name, min(rows)[1])
        for counts in (result["counts"] for result in results):
            summary.add(counts)
            for name in ("rows", "rows_out", "streams", "new_streams"):
                setattr(summary, name, getattr(summary, name) + counts.get(name, 0))
        self._task.bound.policy.limit_rejects(
            summary.rejected,
            f"{summary.rejected} rows are rejected",
            "The `rejects` of the result have their reasons.",
        )
        return summary

    def unpersist(self) -> None:
        """Drop what was persisted."""
        if self._persisted:
            self.both.unpersist()
            self._persisted = False

    def _of(self, kind: str) -> Any:
        self._persist()
        functions = pyspark().sql.functions
        return self.both.where(functions.col(KIND) == kind)

    def _persist(self) -> None:
        if not self._persisted:
            level = pyspark().StorageLevel.DISK_ONLY
            self.both = self.both.persist(level)
            self._persisted = True

    def _unpacked(self, kind: str, schema: Any) -> Any:
        return self._of(kind).select(DATA).mapInArrow(unpacking(), schema)
