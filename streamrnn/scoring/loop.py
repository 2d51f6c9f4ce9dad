"""The one loop: read, score, write; commit now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import pyarrow as pa

from streamrnn.scoring.options import RunOptions
from streamrnn.scoring.scorer import Prepared, Scored, Scorer
from streamrnn.scoring.summary import Progress, Summary
from streamrnn.scoring.threads import BackgroundWriter, Prefetcher
from streamrnn.sources import Contract, Position, Reading, Rows, SourceBatch


class Read(NamedTuple):
    """How far the source was read: the position (None: to the end), and, by name, what was read of
    the files since the last commit."""

    position: Position | None
    readings: Mapping[str, Reading]


class Target(Protocol):
    """Where rows go, and where commits are made."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take output rows."""

    def reject(self, batch: pa.RecordBatch) -> None:
        """Take rejected rows."""

    def commit(
        self, scorer: Scorer, progress: Read, complete: bool, goes_on: bool
    ) -> Callable[[], object]:
        """A call that makes all count that was taken, with what was read and the state
        of `scorer` as it is now; `goes_on` says whether scoring does meanwhile."""


class Work(NamedTuple):
    """A record batch that is ready for the model, and where it stands in the source."""

    source: SourceBatch
    prepared: Prepared


@dataclass
class Loop:
    """Scores the batches of a source into a target.

    `every` record batches make a commit (0: one at the end); `committed` is called after each.
    `readings`, by name, is what was read of files since the last one.
    `summary` is added to in place.
    """

    scorer: Scorer
    summary: Summary
    options: RunOptions
    every: int
    committed: Callable[[], None] = lambda: None
    total_rows: int | None = None
    began: float = field(default_factory=time.monotonic)
    streams_before: int = 0
    readings: dict[str, Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.streams_before = len(self.scorer.table)

    def run(self, batches: Iterator[SourceBatch], target: Target, last: bool) -> None:
        """Read to the end, or until asked to stop, and commit what there is then.

        With `last` the run ends with these batches, unless it is asked to stop before.
        """
        since = 0
        position: Position | None = None
        contract = self.scorer.bound.loaded.contract
        with (
            BackgroundWriter() as writer,
            Prefetcher(_read(batches, contract)) as ahead,
            ThreadPoolExecutor(1, thread_name_prefix="streamrnn-prepare") as preparer,
        ):
            work = self._prepared(next(ahead, None))
            while work is not None:
                since += 1
                due = bool(self.every) and since >= self.every
                # What a commit holds must be as it is behind this batch: no running ahead of it.
                wait = due or self.options.stop.is_set() or not self.scorer.can_prepare_ahead
                upcoming = None if wait else preparer.submit(self._prepare_next, ahead)
                scored = self.scorer.compute(work.prepared)
                self._count(work.prepared.rows, scored)
                _write(writer, target, scored)
                position = work.source.position
                self.readings[position.file] = work.source.reading
                self._tell()
                if self.options.stop.is_set() and upcoming is None:
                    self.summary.interrupted = True
                    break
                if upcoming is not None:
                    work = upcoming.result()
                    continue
                try:
                    found = next(ahead, None)
                except Exception:
                    if due:  # what comes next cannot be read; what is done still counts
                        self._commit(writer, target, position, complete=False, goes_on=True)
                    raise
                if due and found is not None:
                    self._commit(writer, target, position, complete=False, goes_on=True)
                    since = 0
                work = self._prepared(found)
            if not self.summary.interrupted:
                position = None
                if last:
                    self._finish(writer, target)
            if self.every or not self.summary.interrupted:
                complete = last and not self.summary.interrupted
                self._commit(writer, target, position, complete, goes_on=False)

    def _prepare_next(self, ahead: Iterator[tuple[SourceBatch, Rows]]) -> Work | None:
        return self._prepared(next(ahead, None))

    def _prepared(self, found: tuple[SourceBatch, Rows] | None) -> Work | None:
        if found is None:
            return None
        source_batch, rows = found
        return Work(source_batch, self.scorer.prepare(rows))

    def end(self, target: Target) -> None:
        """End a run whose batches were not the last ones when they were read."""
        self.run(iter(()), target, last=True)

    def _finish(self, writer: BackgroundWriter, target: Target) -> None:
        for batch in self.scorer.finish():
            self.summary.rows_out += batch.num_rows
            writer.do(partial(target.write, batch))

    def _commit(
        self,
        writer: BackgroundWriter,
        target: Target,
        position: Position | None,
        complete: bool,
        goes_on: bool,
    ) -> None:
        writer.wait()  # the commit before: this one builds on it
        writer.do(target.commit(self.scorer, Read(position, self.readings), complete, goes_on))
        self.readings = {}
        writer.do(self.committed)
        self.scorer.table.mark_clean()
        self.summary.commits += 1

    def _count(self, rows: Rows, scored: Scored) -> None:
        self.summary.rows += len(rows)
        self.summary.rows_out += scored.output.num_rows
        self.summary.add(scored.counts)

    def _tell(self) -> None:
        self.summary.seconds = time.monotonic() - self.began
        self.summary.streams = len(self.scorer.table)
        if self.options.progress is not None:
            s = self.summary
            self.options.progress(Progress(s.rows, self.total_rows, s.streams, s.seconds))


def _write(writer: BackgroundWriter, target: Target, scored: Scored) -> None:
    if scored.output.num_rows:
        writer.do(partial(target.write, scored.output))
    if scored.rejects is not None:
        writer.do(partial(target.reject, scored.rejects))


def _read(batches: Iterator[SourceBatch], contract: Contract) -> Iterator[tuple[SourceBatch, Rows]]:
    for each in batches:
        yield each, contract.read(each.batch, each.origin)
