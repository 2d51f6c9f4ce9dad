"""A replay: a new model reads earlier rows of the source into a state of its own.

It runs the same loop over rows that the output has read, but writes none of them. Its progress is
committed like a run's, in a folder inside the output, so that a killed replay resumes. The first
commit of any run into the output removes that folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints
from streamrnn.base.display import count, first_of, short_model
from streamrnn.base.storage.store import open_files
from streamrnn.errors import CheckpointError
from streamrnn.jobs.engines import FolderTarget
from streamrnn.jobs.preflight import lenient
from streamrnn.jobs.running.replay_plan import plan_replay
from streamrnn.stream.checkpoints import Manifest, OutputFolder, has_manifest, read_manifest
from streamrnn.stream.checkpoints.directory import INSIDE, MANIFEST, REPLAY, STAGING
from streamrnn.stream.config.paths import longer
from streamrnn.stream.config.values import OTHER_WAYS
from streamrnn.stream.scoring import BoundPipeline, Loop, Progress, RunOptions, Scorer, Summary
from streamrnn.stream.sources import FileSource, Position, Source, SourceBatch, SourceFile, ticks
from streamrnn.stream.states import KeyIndex, StateTable, from_arrow


class Replay:
    """The replay at the start of a run (see `needs_replay`).

    `last` is the last commit of the output, and `state` its state table; the `summary` of the run
    is updated in place; `committed` is called after each commit. Raises what `plan_replay` raises.
    """

    def __init__(
        self,
        bound: BoundPipeline,
        source: Source,
        last: Manifest,
        state: pa.Table | None,
        summary: Summary,
        options: RunOptions,
        committed: Callable[[], None],
    ) -> None:
        loaded = lenient(bound.loaded)
        self._output = str(loaded.config.sink.folder)
        self._plan = plan_replay(bound, source, last, state, force=options.force)
        files = source.of_files
        assert files is not None  # refused before
        self._bound = replace(loaded.bind(files.schema, files.name), writes=False)
        self._source, self._last, self._state = files, last, state
        self._summary, self._options, self._committed = summary, options, committed
        self._path = longer(self._output, f"/{REPLAY}")
        self._loop_summary = Summary()
        self._before = {"rows": 0, "passed_over": 0}  # left by an interrupted replay

    def run(self) -> StateTable | None:
        """Read the rows; return the state after them, None if the run was stopped before that.

        Raises CheckpointError if a stream has fewer rows than asked for, because files are gone.
        """
        began = time.perf_counter()
        model = self._bound.loaded.fingerprint
        facts = {  # these must equal an earlier replay's to resume it
            "replay.output": self._last.output,
            "replay.commit": self._last.commit,
            "replay.range": self._plan.range,
            "replay.late": self._bound.policy.late,
        }
        if not self._resumes(facts, model):
            discard_replay(self._output)
        with OutputFolder.open(self._path, keep=0) as folder:
            folder.begin(self._bound.emitter.schema, model=model, config=facts)
            table = self._table(folder)
            files, start = self._unread(folder.manifest)
            options = replace(self._options, progress=self._progress)
            every = self._bound.loaded.config.checkpoint.every
            loop = Loop(Scorer(self._bound, table), self._loop_summary, options, every, self._after)
            loop.total_rows = self._plan.most
            batches = self._rows(self._source.subset(files), start)
            target = FolderTarget(folder, files, counters=self._counters)
            loop.run(batches, target, last=False)
            self._report()
        self._summary.seconds_by_phase["replay"] = time.perf_counter() - began
        if self._loop_summary.interrupted:
            self._summary.interrupted = True
            return None
        return table

    def report(self, replayed: StateTable, table: StateTable) -> None:
        """Add to the summary what was read, and how many streams of the output had no row there."""
        summary = self._summary
        missing = int((replayed.lookup(table.key_arrays()) < 0).sum())
        summary.replay_fresh_streams = missing
        old, new = short_model(self._last.model), short_model(self._bound.loaded.fingerprint)
        more = [
            f"{count(summary.replayed, 'row')} replayed ({self._plan.range})",
            f"{summary.replay_passed_over:,} of them passed over, without a score"
            if summary.replay_passed_over
            else "",
            f"{count(missing, 'stream')} without a row there: started from the initial state"
            if missing
            else "",
        ]
        summary.state_notes.append(
            f"model {new} took over from {old}: {'; '.join(filter(None, more))}"
        )
        if self._plan.note:
            summary.state_notes.append(self._plan.note)

    def _resumes(self, facts: dict[str, Any], model: str) -> bool:
        """Return whether there is an intact replay with these facts."""
        try:
            last = read_manifest(self._path) if has_manifest(self._path) else None
        except CheckpointError:
            return False
        return last is not None and last.model == model and last.config == facts

    def _table(self, folder: OutputFolder) -> StateTable:
        """Return the state that the replay resumes from."""
        bound, stored = self._bound, folder.load_state()
        if stored is None or folder.manifest is None:
            return StateTable(bound.layout, bound.initial())
        self._before = {name: folder.manifest.counters[name] for name in self._before}
        self._report()
        table = from_arrow(stored, bound.layout, bound.initial(), "replay", same_pipeline=True)
        table.mark_clean()
        return table

    def _unread(self, last: Manifest | None) -> tuple[list[SourceFile], Position | None]:
        """Return the files with unread rows, and where to begin in the first."""
        if last is None:
            return list(self._plan.files), None
        partly = "" if last.position is None else last.position.file
        done = {file.path for file in last.sources} - {partly}
        return [file for file in self._plan.files if file.name not in done], last.position

    def _rows(self, source: FileSource, start: Position | None) -> Iterator[SourceBatch]:
        """Yield the rows in range.

        Raises CheckpointError if a stream's last rows may be in a file that is gone.
        """
        plan, names = self._plan, self._bound.loaded.contract
        batches = source.batches(start, None, plan.stop)
        if plan.first is not None:
            return rows_since(batches, str(names.time), plan.first)
        if plan.last is None:
            return batches
        rows = LastRows(self._bound.layout.keys, plan.last)
        columns = [*names.key, *filter(None, [names.time])]
        rows.count(source.of_columns(columns).batches(start, None, plan.stop))
        if plan.gone and start is None and self._state is not None:
            streams = [
                self._state[field.name].combine_chunks() for field in self._bound.layout.keys
            ]
            if (least := rows.least(streams)) < plan.last:  # a file that is gone may have the rest
                there = f"set [model] replay = {least} or less, " if least else ""
                one = len(plan.gone) == 1
                raise CheckpointError(
                    f"replay: {count(len(plan.gone), 'used file')} {'is' if one else 'are'} not "
                    f"in the source ({first_of(plan.gone)}), and the files that follow have only "
                    f"{least} of the last {plan.last} rows of a stream. Add "
                    f"{'it' if one else 'them'} to [source] path, {there}or use {OTHER_WAYS}."
                )
        return rows.of(batches)

    def _counters(self) -> dict[str, int]:
        read = self._loop_summary
        passed_over = read.skipped + read.rejected + read.dropped_late
        if self._bound.loaded.config.source.repeated == "skip":
            passed_over += read.repeated
        return {
            "rows": self._before["rows"] + read.rows,
            "passed_over": self._before["passed_over"] + passed_over,
        }

    def _report(self) -> None:
        now = self._counters()
        self._summary.replayed, self._summary.replay_passed_over = now["rows"], now["passed_over"]

    def _after(self) -> None:
        self._report()
        self._committed()

    def _progress(self, now: Progress) -> None:
        if self._options.progress is not None:
            rows = self._before["rows"] + now.rows
            self._options.progress(replace(now, rows=rows, note="replay: nothing is written"))


def discard_replay(output: str) -> None:
    """Remove what a replay into this output has committed, if there is one."""
    files = open_files(longer(output, f"/{REPLAY}"))
    names = files.tree()
    # The manifest goes first: without it, the other files count for nothing.
    for name in sorted(names, key=lambda name: name != MANIFEST):
        files.delete(name)
    for folder in (STAGING, INSIDE, "") if names else ():
        files.clear(folder)


def rows_since(batches: Iterator[SourceBatch], time: str, first: int) -> Iterator[SourceBatch]:
    """Yield the rows at the time `first` (in ticks) or later; rows without a time are left out."""
    for item in batches:
        times = item.batch.column(time)
        timed = times.is_valid().to_numpy(zero_copy_only=False)
        yield item.kept(timed & (ticks(times) >= first))


class LastRows:
    """The last `most` rows of each stream in batches that are read twice.

    What is kept between the rounds, a key and a number per stream, does not grow with the rows.
    """

    def __init__(self, keys: Sequence[pa.Field], most: int) -> None:
        self._index = KeyIndex(keys)
        self._names = [field.name for field in keys]
        self._most = most
        self._left = np.zeros(0, np.int64)

    def count(self, batches: Iterator[SourceBatch]) -> None:
        """Count the rows of each stream, in the first round."""
        for item in batches:
            slots = self._slots(item, add=True)
            counts = np.bincount(slots[slots >= 0], minlength=len(self._index))
            counts[: len(self._left)] += self._left
            self._left = counts

    def least(self, keys: Sequence[pa.Array]) -> int:
        """Return the smallest number of rows of one of these streams; 0 if a stream has none."""
        slots = self._index.find(keys, add=False)
        counts = np.where(slots >= 0, self._left[slots], 0) if len(self._left) else slots * 0
        return int(counts.min(initial=2**62))

    def of(self, batches: Iterator[SourceBatch]) -> Iterator[SourceBatch]:
        """Yield the last rows of each stream, in the second round over the same batches."""
        for item in batches:
            slots = self._slots(item, add=False)
            keep = np.zeros(len(slots), bool)
            valid = np.flatnonzero(slots >= 0)
            keep[valid] = self._left[slots[valid]] - _earlier(slots[valid]) <= self._most
            self._left -= np.bincount(slots[valid], minlength=len(self._left))
            yield item.kept(keep)

    def _slots(self, item: SourceBatch, add: bool) -> Ints:
        """Return the slot of each row: -1 without a key or, unless `add`, of an unknown stream."""
        keys = [item.batch.column(name) for name in self._names]
        valid = np.ones(len(item.batch), bool)
        for key in keys:
            valid &= key.is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(valid)
        slots = np.full(len(item.batch), -1)
        slots[rows] = self._index.find([key.take(pa.array(rows)) for key in keys], add=add)
        return slots


def _earlier(slots: Ints) -> Ints:
    """Return how many rows before each row have the same slot."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    within = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
    earlier = np.empty(len(slots), np.int64)
    earlier[order] = within
    return earlier
