"""Score a run in shards on workers: this process only cuts, collects and commits."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from streamrnn.errors import DataError, StreamRNNError
from streamrnn.jobs.engines.probe import FolderToken
from streamrnn.jobs.engines.shard import Outcome, OutputPlace, ShardTask
from streamrnn.jobs.engines.splitting import (
    Epoch,
    Heavy,
    RowRange,
    Split,
    cut,
    merged,
    rows_of_an_epoch,
)
from streamrnn.jobs.engines.targets import FolderTarget
from streamrnn.stream.checkpoints import OutputFolder, Shard
from streamrnn.stream.scoring import (
    BoundPipeline,
    FirstRow,
    Progress,
    RunOptions,
    Summary,
    Workload,
    show_times,
)
from streamrnn.stream.sources import (
    NOTHING,
    Content,
    FileSource,
    LookedUp,
    Position,
    Reading,
    Source,
    SourceFile,
    add_looked_up,
    refuse_all_unknown,
)
from streamrnn.stream.states import by_shard, key_hashes, shard_of

Handle = Any
"""A handle to the result of a task that may still be running."""
_SECONDS_BETWEEN_RENEWALS = 60.0
_MOST_PIECE_ROWS = 2_000_000
_SMALL_CHUNK_BYTES = 100_000
_MUCH_BYTES = 50_000_000


class Tasks(Protocol):
    """Runs the tasks of an engine on `workers` workers."""

    workers: int

    def begin(self, bound: BoundPipeline, source: FileSource) -> None:
        """Hand the pipeline and the source to all tasks that follow."""

    def check_nodes(self, place: OutputPlace, token: FolderToken, file: SourceFile | None) -> None:
        """Raise ConfigError if a node does not see the source or the output."""

    def put(self, state: pa.Table) -> Handle:
        """Hand over a state table."""

    def split(self, row_range: RowRange, shards: int) -> tuple[Handle, list[Handle]]:
        """Start to divide a row range; return handles to a `Split` and to one `Chunk` per shard."""

    def score(
        self, task: ShardTask, before: Handle, state: Handle, chunks: Sequence[Handle]
    ) -> tuple[Handle, Handle]:
        """Start to score a shard; return handles of the `Outcome` and of the state after it."""

    def ready(self, handles: Sequence[Handle]) -> list[Handle]:
        """Wait a moment for results; return the handles of tasks that are done."""

    def get(self, handle: Handle) -> Any:
        """Return the result of a task. Raises EngineError if the workers of the task died."""

    def cancel(self) -> None:
        """Cancel all tasks."""

    def close(self) -> None:
        """Release what this engine started."""


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
        workload.advice = []
        if workload.largest_share > 1 / max(2, workload.shards):
            workload.advice.append(
                f"stream {workload.largest_stream} has {workload.largest_share:.0%} of the rows, "
                "which one worker scores in sequence: more than "
                f"{workload.speed_up_limit:.1f} workers do not help"
            )
        size = workload.bytes / max(1, self._chunks)
        if workload.bytes > _MUCH_BYTES and size < _SMALL_CHUNK_BYTES:
            workload.advice.append(
                f"workers hand over {size / 1000:.0f} kB at a time, which is little: set "
                "[engine] shards lower, or [engine] epoch_rows higher"
            )

    def largest(self) -> str:
        """Return a note on the largest stream for the progress; "" if its share is unknown."""
        share = self.workload.largest_share
        return f", largest stream {share:.1%}" if share else ""


@dataclass
class _Running:
    """An epoch whose tasks were started."""

    epoch: Epoch
    last: bool
    splits: list[Handle]
    outcomes: list[Handle]


class ShardedEngine:
    """Scores the rows of a run in shards; each shard's state goes from task to task.

    `table` is the state to start from; with None, the engine continues from the last commit of
    `folder`, which must have the same number of shards. One commit is made per epoch; while the
    rows of an epoch are scored, the next epoch is read. `summary` is updated in place; `committed`
    is called after each commit.
    """

    table = None  # the state is in the output

    def __init__(
        self,
        tasks: Tasks,
        bound: BoundPipeline,
        folder: OutputFolder,
        summary: Summary,
        options: RunOptions,
        committed: Callable[[], None],
        *,
        table: pa.Table | None,
        shards: int,
    ) -> None:
        self._tasks = tasks
        self._bound = bound
        self._folder = folder
        self._summary = summary
        self._options = options
        self._committed = committed
        self._config = bound.loaded.config
        self._began = self._renewed = time.monotonic()
        last = folder.manifest
        counters = last.counters if last is not None and not last.complete else {}
        self._scored: int = counters.get("rows_read", 0)
        self._rejected: int = counters.get("rejected", 0)
        self._beyond = {} if last is None else last.beyond_files
        self._commit = 0
        self._states: list[Handle] = [None] * shards
        self._before: list[Handle] = [None] * shards
        self._stored: list[Shard | None] = [None] * shards
        if table is not None:
            self._states = [tasks.put(part) for part in divided(table, bound, shards)]
            self.streams = len(table)
        else:
            stored = last.shards if last is not None else ()
            self._stored = list(stored) or self._stored
            self.streams = sum(shard.rows for shard in stored)
        self.streams_before = self.streams
        self._times: tuple[int, int] | None = None
        self._reading: dict[str, Reading] = {}
        self._counted: set[str] = set()  # files that the summary has counted
        self._done = 0  # epochs of this round
        self._counts = WorkloadCounts(tasks.workers, shards)
        summary.workload = self._counts.workload

    def run(
        self,
        source: Source,
        start: Position | None,
        before: Content,
        target: Any,
        total: int | None,
        *,
        last: bool,
    ) -> None:
        """Score the rows of the source from `start` on.

        `before` is the content of the rows before `start` in the same file. `target` is a
        FolderTarget. With `last` the run ends with these rows, unless it is stopped before.
        """
        files = source.of_files
        assert files is not None  # checked before
        self._tasks.begin(self._bound, files)
        policy = self._config.source
        if "reject" in (policy.bad, policy.late, policy.repeated):
            self._folder.prepare("rejects")
        for name in OutputPlace.of(self._config).filters:
            self._folder.prepare(name)
        self._counted = set()
        self._reading = {} if start is None else {start.file: Reading(before)}
        running: deque[_Running] = deque()
        try:
            rows, workers = rows_of_an_epoch(files, self._bound.loaded), self._tasks.workers
            range_rows = max(policy.batch_rows, min(rows // (2 * workers), _MOST_PIECE_ROWS))
            epochs = cut(files, start, self._scored, rows, range_rows) or [Epoch((), None)]
            self._done = 0
            self._commit = self._folder.next_commit  # parts may have been merged since the last one
            for number, epoch in enumerate(epochs, 1):
                if self._options.stop.is_set():
                    self._summary.interrupted = True
                    break
                running.append(self._start(epoch, last and number == len(epochs)))
                if len(running) == 2:
                    self._finish(running, target, total, len(epochs))
            while running:
                self._finish(running, target, total, len(epochs))
        except BaseException:
            self._tasks.cancel()
            raise
        show_times(self._summary, self._bound, self._times)

    def end(self, target: Any) -> None:
        """End a run that was not ended by `run(…, last=True)`, even one that was stopped."""
        self._commit = self._folder.next_commit
        running = deque([self._start(Epoch((), None), last=True)])
        self._finish(running, target, self._summary.rows, 1)

    def close(self) -> None:
        """Release the workers."""
        self._tasks.close()

    def _start(self, epoch: Epoch, last: bool) -> _Running:
        shards = len(self._states)
        row_ranges = [self._tasks.split(row_range, shards) for row_range in epoch.row_ranges]
        place = OutputPlace.of(self._config)
        for shard in range(shards):
            task = ShardTask(shard, self._commit, last, place, self._stored[shard])
            chunks = [chunks[shard] for _, chunks in row_ranges]
            self._before[shard], self._states[shard] = self._tasks.score(
                task, self._before[shard], self._states[shard], chunks
            )
            self._stored[shard] = None
        self._commit += 1
        return _Running(epoch, last, [split for split, _ in row_ranges], list(self._before))

    def _finish(
        self, running: deque[_Running], target: FolderTarget, total: int | None, epochs: int
    ) -> None:
        """Wait for the tasks of the earliest epoch in `running`, and commit it.

        If a run that needs the input's end is stopped before, cancel all tasks instead.
        """
        epoch = running[0]
        outcomes = self._collected(epoch, total, epochs)
        if outcomes is None:  # stopped, with nothing to commit
            self._tasks.cancel()
            running.clear()
            self._summary.interrupted = True
            return
        running.popleft()
        splits = [self._tasks.get(split) for split in epoch.splits]
        _raise_first(splits, outcomes)
        self._summary.name_first(_first(outcomes))
        self._refuse(outcomes)
        readings = self._readings(splits)
        self._counts.add(splits, outcomes)
        self._scored += epoch.epoch.rows
        complete = epoch.last
        counters = {"rows_read": self._scored, "rejected": self._rejected}
        self._folder.commit(
            [outcome.facts for outcome in outcomes if outcome.facts is not None],
            sources=target.started(epoch.epoch.position),
            readings=readings,
            position=epoch.epoch.position,
            counters=({} if complete else counters) | self._beyond,
            complete=complete,
            end_of_run=not running,
        )
        self._summary.commits += 1
        self._done += 1
        show_times(self._summary, self._bound, self._times)
        self._committed()

    def _collected(self, epoch: _Running, total: int | None, epochs: int) -> list[Outcome] | None:
        """Wait for the outcomes of an epoch; None if a run that needs the input's end stops."""
        waiting, outcomes = list(epoch.outcomes), []
        while waiting:
            if self._options.stop.is_set() and self._bound.loaded.kind.needs_end:
                return None
            if time.monotonic() - self._renewed > _SECONDS_BETWEEN_RENEWALS:
                self._renewed = time.monotonic()
                self._folder.renew()  # an epoch may last longer than the locks of the output do
            for handle in self._tasks.ready(waiting):
                waiting.remove(handle)
                outcome = self._tasks.get(handle)
                outcomes.append(outcome)
                self._summary.add_shard(outcome.summary)
                if outcome.times is not None:
                    first, last = self._times or outcome.times
                    self._times = min(first, outcome.times[0]), max(last, outcome.times[1])
            self._report(total, epochs, f"{len(outcomes)}/{len(epoch.outcomes)} shards")
        self.streams = sum(outcome.streams for outcome in outcomes)
        return sorted(outcomes, key=lambda outcome: outcome.shard)

    def _report(self, total: int | None, epochs: int, shards: str) -> None:
        summary = self._summary
        summary.seconds = time.monotonic() - self._began
        summary.streams = self.streams
        if self._options.progress is not None:
            note = f"epoch {self._done + 1}/{epochs}, {shards}{self._counts.largest()}"
            self._options.progress(
                Progress(summary.rows, total, self.streams, summary.seconds, note=note)
            )

    def _refuse(self, outcomes: Sequence[Outcome]) -> None:
        """Raise DataError if all shards together rejected too many rows.

        Unless `force` is set, it is also raised before the first commit if a feature has at least
        100 values in all shards together, and none of them is in its vocabulary.
        """
        self._rejected += sum(outcome.rejected for outcome in outcomes)
        self._bound.policy.limit_rejects(
            self._rejected,
            f"{self._rejected} rows are rejected in all shards together",
            "Nothing of this epoch was committed.",
        )
        if not (self._summary.commits or self._options.force):
            looked_up: dict[str, LookedUp] = {}
            for outcome in outcomes:
                add_looked_up(looked_up, outcome.looked_up)
            refuse_all_unknown(self._bound.loaded.contract.vocabularies, looked_up)

    def _readings(self, splits: Sequence[Split]) -> dict[str, Reading]:
        """Return what was read from each file up to the end of these row ranges, by name."""
        readings: dict[str, Reading] = {}
        for split in splits:
            for name, reading in split.readings.items():
                earlier = readings.get(name) or self._reading.get(name) or Reading(NOTHING)
                if earlier.etag not in ("", reading.etag):
                    raise DataError(f"{name} changed while it was read. Run again.")
                content = earlier.content + reading.content
                readings[name] = Reading(content, reading.etag, reading.opened_ns)
        self._summary.files_read += len(readings.keys() - self._counted)
        self._counted = set(readings)
        self._summary.cast += sum(split.cast for split in splits)
        for split in splits:
            self._summary.note_offset(self._config.source, split.offset)
        self._reading = readings
        return readings


def divided(table: pa.Table, bound: BoundPipeline, shards: int) -> list[pa.Table]:
    """Divide a state table by shard."""
    if not len(table):
        return [table] * shards
    names = [field.name for field in bound.layout.keys]
    keys = [table[name].combine_chunks() for name in names]
    rows = by_shard(shard_of(key_hashes(keys), shards), shards)
    return [table.take(pa.array(index)).combine_chunks() for index in rows]


def _first(outcomes: Sequence[Outcome]) -> dict[str, FirstRow]:
    """Return the first late and the first repeated row in the input, over all shards."""
    rows = [(name, row) for outcome in outcomes for name, row in outcome.first.items()]
    return dict(sorted(rows, key=lambda item: item[1].number or 0, reverse=True))


def _raise_first(splits: Sequence[Split], outcomes: Sequence[Outcome]) -> None:
    """Raise the error of the earliest row in the input, as a run in one process would.

    An error of a shard without a row comes first.
    """
    errors: list[tuple[int, StreamRNNError]] = [
        (split.reached, split.error) for split in splits if split.error is not None
    ]
    for outcome in outcomes:
        if outcome.error is not None:
            number = getattr(outcome.error, "number", None)
            errors.append((-1 if number is None else number, outcome.error))
    if errors:
        raise min(errors, key=lambda item: item[0])[1]
