"""One run of a pipeline: what there is to read, where it goes, and from which state."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from streamrnn.checkpoints import (
    Manifest,
    OutputFolder,
    SourcePlan,
    UsedFile,
    merge_small_parts,
    refuse_inside_output,
    refuse_nested_output,
)
from streamrnn.errors import ConfigError, DataError, LateRowError, MissingFileError
from streamrnn.pipeline.build import Bound, Parts
from streamrnn.pipeline.follow import Watcher
from streamrnn.pipeline.lateness import name_the_files, note_on_order
from streamrnn.pipeline.loop import Loop
from streamrnn.pipeline.options import RunOptions
from streamrnn.pipeline.scorer import Scorer
from streamrnn.pipeline.state import starting_table
from streamrnn.pipeline.summary import Progress, Summary
from streamrnn.pipeline.targets import FolderTarget, StreamTarget
from streamrnn.sources import ParquetSource, SourceFile, StreamSource, by_time, list_files
from streamrnn.states import write_state_file

PIPE = "-"
_SMALL_PARTS = 100  # of one output, before --follow merges them


class Job:
    """One run of the parts of a pipeline, as the options say."""

    def __init__(self, parts: Parts, options: RunOptions) -> None:
        self.parts = parts
        self.config = parts.config
        self.options = options
        self.summary = Summary()
        self._loop: Loop | None = None
        self._source: ParquetSource | None = None
        self._used: Sequence[UsedFile] = ()
        self._committed: Callable[[], None] = lambda: None

    def run(self) -> Summary:
        """Read what is new and commit it. Raises what the parts raise."""
        try:
            return self._run()
        except LateRowError as error:
            if self._source is None:
                raise
            raise name_the_files(error, self._source, self._used, self._order) from None

    def _run(self) -> Summary:
        self.config.require_run()
        self._refuse_options()
        sink = self.config.sink.path
        assert sink is not None
        self.summary.output = sink
        if sink == PIPE:
            return self._run_to_stream()
        files = [] if self.config.source.path == PIPE else source_files(self.parts, self.options)
        refuse_own_output(self.parts, files)
        with OutputFolder.open(
            sink,
            rejects=self.config.sink.rejects,
            keep=self.config.checkpoint.keep,
            full_refresh=self.options.full_refresh,
        ) as folder:
            self.summary.state = folder.path
            if self.config.source.path == PIPE:
                self._read_pipe(folder)
            elif self.options.follow:
                self._follow(folder)
            else:
                self._read_files(folder, files)
        return self.summary

    def _refuse_options(self) -> None:
        if not self.options.follow:
            return
        if self.config.window.kind == "whole":
            raise ConfigError('--follow: kind "whole" needs the end of the input')
        if PIPE in (self.config.source.path, self.config.sink.path):
            raise ConfigError(
                "--follow watches files and commits to a folder: not for stdin, stdout"
            )

    # -- to a folder -------------------------------------------------------------------------

    def _read_pipe(self, folder: OutputFolder) -> None:
        stream = StreamSource(self.parts.columns, self.config.source.batch_rows)
        bound = self.parts.bind(stream.schema, "stdin")
        self._begin(folder, bound)
        self._start(folder, bound, every=0)
        self._score(FolderTarget(folder, []), stream, None)
        self._end()

    def _read_files(self, folder: OutputFolder, files: Sequence[SourceFile]) -> None:
        if self._read_new(folder, files, last=True):
            self._end()
        else:
            self.summary.nothing_new = True
            self.summary.streams = folder.manifest.state_rows if folder.manifest else 0
            self._save(folder.load_state)

    def _follow(self, folder: OutputFolder) -> None:
        watcher = Watcher(lambda: source_files(self.parts, self.options), self.options)
        self._committed = lambda: watcher.tell(folder.manifest, self.summary)
        for files in watcher:
            self._read_new(folder, files, last=False)
            merge_small_parts(folder, least=_SMALL_PARTS)
        if self._loop is not None and not self.summary.interrupted:
            self._loop.end(FolderTarget(folder, []))
            self._end()

    def _read_new(self, folder: OutputFolder, files: Sequence[SourceFile], last: bool) -> bool:
        """Score the files, or rows of a file, that are new; False if there are none."""
        source = self.parts.source(files)
        plan = folder.check_sources(files, source, force=self.options.force)
        self.summary.note(plan)
        committed = folder.manifest
        if not files:
            return False
        if self._loop is None:
            bound = self.parts.bind(source.schema, source.files[0].path)
            self._begin(folder, bound)
        unfinished = committed is not None and not committed.complete and self._loop is None
        if (plan.changed or plan.rewritten) and not plan.files:
            folder.commit(complete=True)  # remembers the files as they are now
        if not plan.files and not (unfinished and last):
            return committed is None
        if self._loop is None:
            self._start(folder, bound, 0 if self._whole else self.config.checkpoint.every)
            self._tell_resumed(committed, plan)
        source.files = self._in_order(source, plan)
        self._source, self._used = source, plan.known
        rows = source.total_rows()
        rows -= plan.position.file_row if plan.position else 0
        self.summary.files += len(plan.files)
        assert self._loop is not None
        self._loop.total_rows = self.summary.rows + rows
        target = FolderTarget(folder, source.files)
        self._loop.run(source.batches(plan.position, plan.before), target, last=last)
        return True

    @property
    def _order(self) -> str:
        return self.config.source.order

    def _in_order(self, source: ParquetSource, plan: SourcePlan) -> list[SourceFile]:
        """The files to read: the one that was begun, then the others as [source] order says."""
        begun = 0 if plan.position is None else 1
        files = list(plan.files)
        if self._order == "time":
            files[begun:] = by_time(source, files[begun:])
        elif self.config.source.late != "error":  # else late rows stop the run
            self.summary.times_go_back = note_on_order(source, files, self._order)
        return files

    @property
    def _whole(self) -> bool:
        return self.config.window.kind == "whole"

    def _begin(self, folder: OutputFolder, bound: Bound) -> None:
        config = run_config(self.parts, bound)
        folder.begin(bound.emitter.schema, model=self.parts.fingerprint, config=config)

    def _start(self, folder: OutputFolder | None, bound: Bound, every: int) -> None:
        committed = folder.load_state() if folder else None
        where = f"the state of {folder.path}" if folder else ""
        table = starting_table(bound, committed, where, self.summary.state_notes)
        scorer = Scorer(bound, table)
        last = folder.manifest if folder else None
        if last is not None and not last.complete:
            scorer.count_on(last.counters)
        self.summary.rejects = self.config.sink.rejects
        self._loop = Loop(scorer, self.summary, self.options, every, self._committed)

    def _tell_resumed(self, last: Manifest | None, plan: SourcePlan) -> None:
        if last is None or last.complete:
            return
        where = "at the end of the files used so far"
        if plan.position is not None:
            where = f"at row {plan.position.file_row:,} of {plan.files[0].path}"
        self.summary.resumed = (
            f"Resumed {where}, after commit {last.commit} ({last.rows:,} rows written)."
        )
        if self.options.progress is not None:
            streams = last.state_rows
            self.options.progress(Progress(0, None, streams, 0.0, self.summary.resumed))

    # -- to a stream -------------------------------------------------------------------------

    def _run_to_stream(self) -> Summary:
        rows, total = self.config.source.batch_rows, None
        source: StreamSource | ParquetSource
        piped = self.config.source.path == PIPE
        files = [] if piped else source_files(self.parts, self.options)
        refuse_own_output(self.parts, files)
        if piped:
            source = StreamSource(self.parts.columns, rows)
            bound = self.parts.bind(source.schema, "stdin")
        else:
            source = self._source = self.parts.source(files)
            bound = self.parts.bind(source.schema, files[0].path)
            source.files = self._in_order(source, SourcePlan(tuple(files)))
            total = source.total_rows()
            self.summary.files = len(files)
        target = StreamTarget(
            bound.emitter.schema, self.config.sink.rejects, self.parts.fingerprint
        )
        try:
            self._start(None, bound, every=0)
            self._score(target, source, total)
        finally:
            target.close()
        self._end()
        return self.summary

    # -- both --------------------------------------------------------------------------------

    def _score(
        self,
        target: FolderTarget | StreamTarget,
        source: StreamSource | ParquetSource,
        total: int | None,
    ) -> None:
        assert self._loop is not None
        self._loop.total_rows = total
        self._loop.run(source.batches(), target, last=True)

    def _end(self) -> None:
        assert self._loop is not None
        table = self._loop.scorer.table
        self.summary.streams = len(table)
        self.summary.new_streams = len(table) - self._loop.streams_before
        if self.config.state.init is not None:
            self.summary.fresh_init_streams = self.summary.new_streams
        if not self.summary.interrupted:
            self._save(table.to_arrow)
        elif not self.summary.commits:
            self.summary.state = None
            if self.config.sink.path != PIPE:
                self.summary.rows_out = 0

    def _save(self, state: Callable[[], pa.Table | None]) -> None:
        if self.config.state.save is None:
            return
        table = state()
        if table is not None:
            write_state_file(table, self.config.state.save)
            self.summary.state = self.config.state.save


def run_config(parts: Parts, bound: Bound) -> dict[str, Any]:
    """What a commit remembers of the config, and of the columns it was used with."""
    schema = {f.name: str(f.type) for f in bound.schema}
    return {**parts.config.canonical(), "source.schema": schema}


def source_files(parts: Parts, options: RunOptions) -> list[SourceFile]:
    """The files that the source names now. Raises DataError if there are none."""
    path = parts.config.source.path
    assert path is not None
    try:
        files = list_files(path)
    except MissingFileError:
        if not options.follow:
            raise
        return []
    if not files and not options.follow:
        raise DataError(
            f"[source] path: {path}: no Parquet file there (expected names ending in .parquet or "
            ".pq). To wait for files, run with --follow."
        )
    return files


def refuse_own_output(parts: Parts, files: Sequence[SourceFile]) -> None:
    """Raise ConfigError if source, sink, rejects or saved state lie inside one another, or in
    another output."""
    config = parts.config
    outputs = {
        "[sink] path": config.sink.path,
        "[sink] rejects": config.sink.rejects,
        "[state] save": config.state.save,
    }
    places = {name: _real(path) for name, path in outputs.items() if path not in (None, PIPE)}
    source = config.source.path
    inputs = [_real(file.path) for file in files]
    inputs += [_real(source)] if source not in (None, PIPE) else []
    for name, place in places.items():
        if any(_overlap(place, each) for each in inputs):
            raise ConfigError(
                f"{name}: {outputs[name]} and the source {source} lie inside one another: the "
                "next run would read its own output. Name a place outside the source."
            )
    for name, other in itertools.combinations(places, 2):
        if _overlap(places[name], places[other]):
            raise ConfigError(
                f"{other}: {outputs[other]} and {name} {outputs[name]} lie inside one another: "
                "readers of the output would find what is no output. Name a place beside it."
            )
    for name in places:
        refuse = refuse_inside_output if name == "[state] save" else refuse_nested_output
        refuse(str(outputs[name]), name)


def _real(path: str | None) -> str:
    local = str(path).removeprefix("file://")
    return local.rstrip("/") if "://" in local else os.path.realpath(local)


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(b + "/") or b.startswith(a + "/")
