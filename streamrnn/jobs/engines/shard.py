"""The second task of a worker: score a shard's chunks, and write the shard's part of a commit."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from streamrnn.base.arrays import Array
from streamrnn.errors import StreamRNNError
from streamrnn.jobs.engines.splitting import Chunk
from streamrnn.stream.checkpoints import (
    Attempt,
    Facts,
    Shard,
    Snapshot,
    load_shard,
    partitioning_in,
)
from streamrnn.stream.config import side_filters
from streamrnn.stream.config.load import Config
from streamrnn.stream.scoring import (
    BoundPipeline,
    FirstRow,
    Loop,
    RunOptions,
    Scorer,
    SourceProgress,
    Summary,
    starting_table,
)
from streamrnn.stream.sources import LookedUp, Origin, Position, SourceBatch
from streamrnn.stream.states import StateTable

_NOWHERE = Position("", 0, 0, 0, False)


@dataclass(frozen=True)
class OutputPlace:
    """Where a shard's files go: the outputs' folders by name, and the parts' format and partitions.

    `filters`: name of a side output -> its filter.
    """

    folders: Mapping[str, str]
    format: str
    partition_by: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> "OutputPlace":
        """Return the place that a pipeline file names, in paths valid in any working directory."""
        sink = config.sink
        folders = {"rows": str(sink.folder), **config.side_folders}
        absolute = {name: f if "://" in f else os.path.abspath(f) for name, f in folders.items()}
        return cls(absolute, sink.format, sink.partition_by, side_filters(config.canonical()))

    @property
    def path(self) -> str:
        """The folder of the rows, which also has the state."""
        return self.folders["rows"]


@dataclass(frozen=True)
class ShardTask:
    """One shard of one commit.

    `last`: the run ends with this commit. `stored`: the state to start from, in the output; None:
    the state is passed to the task as a table, or there is none yet.
    """

    shard: int
    commit: int
    last: bool
    place: OutputPlace
    stored: Shard | None = None


@dataclass
class Outcome:
    """The result of scoring one shard of one commit.

    `facts` is None after an `error` or a range that could not be read, in this commit or an earlier
    one. `rejected` is the number of rejected rows, `times` are the first and last time in ticks,
    `looked_up` is what became of values that have a vocabulary, `first` has the first late and the
    first repeated row, and `seconds` is the time of the whole task.
    """

    shard: int
    facts: Facts | None = None
    error: StreamRNNError | None = None
    summary: Summary = field(default_factory=Summary)
    times: tuple[int, int] | None = None
    looked_up: dict[str, LookedUp] = field(default_factory=dict)
    first: dict[str, FirstRow] = field(default_factory=dict)
    rejected: int = 0
    streams: int = 0
    seconds: float = 0.0


class ShardTarget:
    """Writes the parts of one attempt, and finishes the attempt; the driver commits it."""

    def __init__(self, attempt: Attempt) -> None:
        self.facts: Facts | None = None
        self.write = attempt.write
        self.reject = attempt.reject
        self._attempt = attempt

    def commit(
        self, scorer: Scorer, progress: SourceProgress, complete: bool, continues: bool
    ) -> Callable[[], object]:
        """Return a function that finishes the attempt with the current state."""
        delta = self._attempt.delta(Snapshot.of(scorer.table, copy=continues))

        def finish() -> None:
            self.facts = self._attempt.finish(delta)

        return finish


def score_shard(
    bound: BoundPipeline,
    task: ShardTask,
    before: Outcome | None,
    state: pa.Table | None,
    chunks: Sequence[Chunk],
) -> tuple[Outcome, pa.Table | None]:
    """Score the chunks of one shard after the rows of the outcome `before`.

    Returns the outcome, and the state for the next commit. A StreamRNNError is returned in the
    outcome, not raised: the driver reports the error of the earliest row.
    """
    outcome = Outcome(task.shard)
    if before is not None and before.facts is None:
        return outcome, None
    began = time.perf_counter()
    # The next version of the state may build on the files of the last one.
    stored = task.stored if before is None or before.facts is None else before.facts.state
    try:
        table = _table(bound, task, state)
        loop = Loop(Scorer(bound, table), outcome.summary, RunOptions(), every=0)
        place, schema = task.place, bound.emitter.schema
        attempt = Attempt(
            place.folders,
            schema=schema,
            format=place.format,
            commit=task.commit,
            shard=task.shard,
            last=() if stored is None else stored.files,
            filters=place.filters,
            partitioning=partitioning_in({"sink.partition_by": place.partition_by}, schema),
        )
        target = ShardTarget(attempt)
        failed = [index for index, chunk in enumerate(chunks) if chunk.failed]
        batches = _batches(
            chunks[: failed[0] + 1] if failed else chunks, bound.loaded.config.source.batch_rows
        )
        try:
            loop.run(batches, target, last=task.last)
        finally:
            if target.facts is None:
                attempt.abandon()
        outcome.facts = None if failed else target.facts
        outcome.times = loop.times
        outcome.looked_up, outcome.first = loop.looked_up, loop.first
        outcome.rejected = loop.scorer.rejected
        outcome.streams = len(table)
        return outcome, table.to_arrow()
    except StreamRNNError as error:
        outcome.facts, outcome.error = None, error
        return outcome, None
    finally:
        outcome.seconds = time.perf_counter() - began


def _table(bound: BoundPipeline, task: ShardTask, state: pa.Table | None) -> StateTable:
    if state is None and task.stored is not None:
        state = load_shard(task.place.path, task.stored)
    if state is None:
        return StateTable(bound.layout, bound.initial())
    return starting_table(bound, state, f"the state of shard {task.shard}")


def _batches(chunks: Sequence[Chunk], rows: int) -> Iterator[SourceBatch]:
    """Yield the rows of all chunks, in order, in record batches of at most `rows` rows."""
    waiting: list[_Rows] = []
    free = rows
    slices = (
        _Rows(chunk, batch.slice(start, rows), offset_N[start : start + rows])
        for chunk in chunks
        for batch, offset_N in chunk.batches
        for start in range(0, batch.num_rows, rows)
    )
    for item in slices:
        size = item.batch.num_rows
        if waiting and (size > free or not item.batch.schema.equals(waiting[0].batch.schema)):
            yield _gathered(waiting)
            waiting, free = [], rows
        waiting.append(item)
        free -= size
    if waiting:
        yield _gathered(waiting)


class _Rows(NamedTuple):
    """Some rows of a chunk, and their offsets in its row range."""

    chunk: Chunk
    batch: pa.RecordBatch
    offset_N: Array


def _gathered(items: Sequence[_Rows]) -> SourceBatch:
    """Return successive rows as one record batch."""
    origins = [item.chunk.origin(item.offset_N) for item in items]
    if len(items) == 1:
        return SourceBatch(items[0].batch, origins[0], _NOWHERE)
    batch = pa.concat_batches([item.batch for item in items])
    return SourceBatch(batch, Origin.joined(origins), _NOWHERE)
