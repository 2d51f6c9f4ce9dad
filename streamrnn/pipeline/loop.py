"""The one loop: read, score, write; commit now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from streamrnn.errors import DataError
from streamrnn.pipeline.build import Bound
from streamrnn.pipeline.options import RunOptions
from streamrnn.pipeline.scorer import Scored, Scorer
from streamrnn.pipeline.summary import Progress, Summary
from streamrnn.pipeline.threads import Ahead, Behind
from streamrnn.sources import Position, Rows, SourceBatch


class Target(Protocol):
    """Where rows go, and where commits are made."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Take output rows."""

    def reject(self, batch: pa.RecordBatch) -> None:
        """Take rejected rows."""

    def commit(self, scorer: Scorer, position: Position | None, complete: bool) -> None:
        """Make all that was taken count, with the state of `scorer` and the place in the source."""


@dataclass
class Loop:
    """Scores the batches of a source into a target.

    `every` record batches make a commit (0: one at the end). `summary` is added to in place.
    """

    scorer: Scorer
    target: Target
    summary: Summary
    options: RunOptions
    every: int
    max_rejects: int
    total_rows: int | None = None
    began: float = field(default_factory=time.monotonic)

    def run(self, batches: Iterator[SourceBatch], bound: Bound) -> None:
        """Read to the end, or until asked to stop; the last commit says which."""
        since = 0
        position: Position | None = None
        with Behind() as writer, Ahead(_read(batches, bound)) as ahead:
            for source_batch, rows in ahead:
                scored = self.scorer.score(rows)
                self._count(rows, scored)
                self._write(writer, scored)
                position, since = source_batch.position, since + 1
                self._tell()
                if self.options.stop.is_set():
                    self.summary.interrupted = True
                    break
                if self.every and since >= self.every:
                    self._commit(writer, position, complete=False)
                    since = 0
            if not self.summary.interrupted:
                self._finish(writer)
                position = None
            if self.every or not self.summary.interrupted:
                self._commit(writer, position, complete=not self.summary.interrupted)

    def _finish(self, writer: Behind) -> None:
        for batch in self.scorer.finish():
            self.summary.rows_out += batch.num_rows
            writer.do(lambda batch=batch: self.target.write(batch))  # type: ignore[misc]

    def _commit(self, writer: Behind, position: Position | None, complete: bool) -> None:
        writer.wait()
        self.target.commit(self.scorer, position, complete)
        self.scorer.table.settle()
        self.summary.commits += 1

    def _write(self, writer: Behind, scored: Scored) -> None:
        if scored.output.num_rows:
            writer.do(lambda: self.target.write(scored.output))
        rejects = scored.rejects
        if rejects is not None:
            writer.do(lambda: self.target.reject(rejects))

    def _count(self, rows: Rows, scored: Scored) -> None:
        self.summary.rows += len(rows)
        self.summary.rows_out += scored.output.num_rows
        self.summary.add(scored.counts)
        if self.summary.rejected > self.max_rejects:
            assert scored.rejects is not None
            last = scored.rejects.slice(scored.rejects.num_rows - 1).to_pylist()[0]
            raise DataError(
                f"{last['file']}: row {last['row']} (from 0): {self.summary.rejected} rows are "
                f"rejected, more than [source] max_rejects = {self.max_rejects}. The last one: "
                f"{last['reason']}"
            )

    def _tell(self) -> None:
        self.summary.seconds = time.monotonic() - self.began
        self.summary.streams = len(self.scorer.table)
        if self.options.progress is not None:
            s = self.summary
            self.options.progress(Progress(s.rows, self.total_rows, s.streams, s.seconds))


def _read(batches: Iterator[SourceBatch], bound: Bound) -> Iterator[tuple[SourceBatch, Rows]]:
    for each in batches:
        yield each, bound.parts.contract.read(each.batch, each.file, each.first_row)
