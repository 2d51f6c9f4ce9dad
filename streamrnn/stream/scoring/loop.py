"""The run loop and its options: read, score and write record batches, and commit at intervals."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import pyarrow as pa

from streamrnn.base.storage.threads import BackgroundWriter, preparer, read_ahead
from streamrnn.nn.kernels import seconds_compiling
from streamrnn.stream.config.schema import ModelSection
from streamrnn.stream.config.values import EngineType, NewModel, OnChange
from streamrnn.stream.scoring.bind import BoundPipeline
from streamrnn.stream.scoring.scorer import Prepared, Scored, Scorer
from streamrnn.stream.scoring.summary import FirstRow, Progress, Summary
from streamrnn.stream.sources import (
    Contract,
    LookedUp,
    Position,
    Reading,
    Rows,
    SourceBatch,
    add_looked_up,
    refuse_all_unknown,
    shown_time,
    time_of,
    unix_seconds,
)


@dataclass(frozen=True)
class RunOptions:
    """Options of one run, as in `Pipeline.run`; `progress` is called after each record batch."""

    full_refresh: bool = False
    force: bool = False
    new_model: NewModel | None = None
    reload: bool | Sequence[str] = False
    follow: bool = False
    engine: EngineType | None = None
    poll: float = 1.0
    progress: Callable[[Progress], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def on_change(self, model: ModelSection) -> OnChange:
        """Return what to do if the model has changed since the last run."""
        return self.new_model or model.on_change


T = TypeVar("T")

PHASES = ("start", "read", "sort", "score", "write", "commit")


class Stopwatch:
    """Adds up the seconds that calls take, in `seconds`, by phase (one of `PHASES`).

    A phase is measured on one thread at a time; phases overlap, since reading, sorting and writing
    have threads of their own. Each call costs 0.3 µs.
    """

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        for phase in PHASES:
            seconds.setdefault(phase, 0.0)

    def timed(self, phase: str, call: Callable[[], T]) -> T:
        """Make a call and return its result."""
        began = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds[phase] += time.perf_counter() - began

    def each(self, phase: str, items: Iterable[T]) -> Iterator[T]:
        """Iterate over items; the time between them, in the caller, is not counted."""
        remaining = iter(items)
        while True:
            try:
                item = self.timed(phase, remaining.__next__)
            except StopIteration:
                return
            yield item


class SourceProgress(NamedTuple):
    """How far the source has been read (`position`, None at its end).

    `readings`: name of a file -> what was read from it since the last commit.
    """

    position: Position | None
    readings: Mapping[str, Reading]


class RowSink(Protocol):
    """A destination of rows that makes commits."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Write output rows."""

    def reject(self, batch: pa.RecordBatch) -> None:
        """Write rejected rows."""

    def commit(
        self, scorer: Scorer, progress: SourceProgress, complete: bool, continues: bool
    ) -> Callable[[], object]:
        """Return a call that commits all rows written, `progress`, and the current state.

        `continues`: the state may change before that call is made, so it must be copied now.
        """


@dataclass
class Loop:
    """Scores the batches of a source into a sink.

    A commit is made every `every` record batches and at the end (0: only at the end, unless the run
    is stopped); `committed` is called after each commit. `readings` is what was read from files, by
    name, since the last commit. `times` are the first and last time of the valid rows, in ticks;
    `looked_up` is what became of values that have a vocabulary; `first` has the first late and
    repeated rows, by their fields in a Summary. With `judges`, a feature all of whose values are
    unknown is an error at the first commit. `summary` is updated in place.
    """

    scorer: Scorer
    summary: Summary
    options: RunOptions
    every: int
    committed: Callable[[], None] = lambda: None
    judges: bool = False
    total_rows: int | None = None
    began: float = field(default_factory=time.monotonic)
    streams_before: int = 0
    readings: dict[str, Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.streams_before = len(self.scorer.table)
        self._compiled = seconds_compiling()
        self._watch = Stopwatch(self.summary.seconds_by_phase)
        self._file: str | None = None
        self.times: tuple[int, int] | None = None
        self.looked_up: dict[str, LookedUp] = {}
        self.first: dict[str, FirstRow] = {}

    def run(self, batches: Iterator[SourceBatch], sink: RowSink, last: bool) -> None:
        """Score the batches to the end, or until `options.stop` is set.

        Commits after each `every` batches and at the end; with `every` = 0, only at the end, and
        not if stopped. With `last`, the run ends with these batches, unless it is stopped before.
        """
        since = 0
        position: Position | None = None
        contract = self.scorer.bound.loaded.contract
        with (
            BackgroundWriter() as writer,
            read_ahead(_read(batches, contract, self._watch)) as ahead,
            preparer() as prepare,
        ):
            work = self._prepared(next(ahead, None))
            while work is not None:
                source, prepared = work
                since += 1
                due = bool(self.every) and since >= self.every
                # A commit stores the state right after this batch: do not prepare the next one.
                wait = due or self.options.stop.is_set() or not self.scorer.can_prepare_ahead
                upcoming = (
                    None if wait else prepare.submit(lambda: self._prepared(next(ahead, None)))
                )
                scored = self._watch.timed("score", partial(self.scorer.compute, prepared))
                self._count(source, prepared.rows, scored)
                self._write(writer, sink, scored)
                position = source.position
                files = list(source.readings) or [position.file]
                self.summary.files_read += len(files) - (files[0] == self._file)
                self._file = files[-1]
                self.readings.update(source.readings)
                self._report()
                if self.options.stop.is_set() and upcoming is None:
                    self.summary.interrupted = True
                    break
                if upcoming is not None:
                    work = upcoming.result()
                    continue
                try:
                    following = next(ahead, None)
                except Exception:
                    if due:  # the next batch is unreadable, but finished ones must be committed
                        self._commit(writer, sink, position, complete=False, continues=True)
                    raise
                if due and following is not None:
                    self._commit(writer, sink, position, complete=False, continues=True)
                    since = 0
                work = self._prepared(following)
            if not self.summary.interrupted:
                position = None
                for batch in self._watch.each("score", self.scorer.finish()) if last else ():
                    self.summary.rows_out += batch.num_rows
                    writer.do(partial(self._watch.timed, "write", partial(sink.write, batch)))
                self.summary.add(self.scorer.at_end)
            if self.every or not self.summary.interrupted:
                complete = last and not self.summary.interrupted
                self._commit(writer, sink, position, complete, continues=False)
        show_times(self.summary, self.scorer.bound, self.times)

    def _prepared(
        self, following: tuple[SourceBatch, Rows] | None
    ) -> tuple[SourceBatch, Prepared] | None:
        if following is None:
            return None
        source, rows = following
        return source, self._watch.timed("sort", partial(self.scorer.prepare, rows))

    def end(self, sink: RowSink) -> None:
        """End a run that was not ended by `run(…, last=True)`."""
        self.run(iter(()), sink, last=True)

    def _commit(
        self,
        writer: BackgroundWriter,
        sink: RowSink,
        position: Position | None,
        complete: bool,
        continues: bool,
    ) -> None:
        if self.judges and not self.summary.commits:
            refuse_all_unknown(self.scorer.bound.loaded.contract.vocabularies, self.looked_up)
        writer.wait()  # wait for the previous commit, which this one builds on
        self.summary.add({"dropped_streams": self.scorer.drop_idle()})
        show_times(self.summary, self.scorer.bound, self.times)
        progress = SourceProgress(position, self.readings)
        commit = self._watch.timed(
            "commit", partial(sink.commit, self.scorer, progress, complete, continues)
        )
        writer.do(partial(self._watch.timed, "commit", commit))
        self.readings = {}
        writer.do(self.committed)
        self.scorer.table.mark_clean()
        self.summary.commits += 1

    def _count(self, source: SourceBatch, rows: Rows, scored: Scored) -> None:
        self.summary.rows += len(rows)
        self.summary.cast += source.cast
        self.summary.note_offset(self.scorer.bound.loaded.config.source, source.offset)
        self.summary.rows_out += scored.output.num_rows
        self.summary.add(scored.counts)
        self.first = scored.first | self.first
        self.summary.name_first(self.first)
        add_looked_up(self.looked_up, rows.looked_up)
        if rows.time is not None:
            valid = rows.time if not rows.faults.reasons else rows.time[rows.faults.codes == 0]
            if len(valid):
                first, last = self.times or (valid[0], valid[0])
                self.times = min(first, valid.min()), max(last, valid.max())

    def _report(self) -> None:
        self.summary.seconds = time.monotonic() - self.began
        self.summary.seconds_compiling = seconds_compiling() - self._compiled
        self.summary.streams = len(self.scorer.table)
        if self.options.progress is not None:
            s = self.summary
            self.options.progress(Progress(s.rows, self.total_rows, s.streams, s.seconds))

    def _write(self, writer: BackgroundWriter, sink: RowSink, scored: Scored) -> None:
        if scored.output.num_rows:
            writer.do(partial(self._watch.timed, "write", partial(sink.write, scored.output)))
        if scored.rejects is not None:
            writer.do(partial(self._watch.timed, "write", partial(sink.reject, scored.rejects)))


def show_times(summary: Summary, bound: BoundPipeline, times: tuple[int, int] | None) -> None:
    """Set the first and last time of a summary; `times` are in ticks, None if there are none."""
    name = bound.loaded.contract.time
    if times is None or name is None:
        return
    kind = bound.schema.field(name).type
    summary.first_time, summary.last_time = (shown_time(int(ticks), kind) for ticks in times)
    summary.last_timestamp = unix_seconds(time_of(int(times[1]), kind))


def _read(
    batches: Iterator[SourceBatch], contract: Contract, watch: Stopwatch
) -> Iterator[tuple[SourceBatch, Rows]]:
    for item in watch.each("read", batches):
        yield item, watch.timed("read", partial(contract.read, item.batch, item.origin))
