"""One run of a pipeline: what there is to read, where it goes, and from which state."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pyarrow as pa

from streamrnn.checkpoints import Manifest, OutputFolder
from streamrnn.errors import ConfigError, DataError
from streamrnn.pipeline.build import Bound, Parts
from streamrnn.pipeline.loop import Loop
from streamrnn.pipeline.options import RunOptions
from streamrnn.pipeline.scorer import Scorer
from streamrnn.pipeline.state import starting_table
from streamrnn.pipeline.summary import COUNTS, Summary
from streamrnn.pipeline.targets import FolderTarget, StreamTarget
from streamrnn.sources import (
    ParquetSource,
    SourceBatch,
    SourceFile,
    StreamSource,
    list_files,
)
from streamrnn.states import write_state_file

PIPE = "-"


class Job:
    """One run of the parts of a pipeline, as the options say."""

    def __init__(self, parts: Parts, options: RunOptions) -> None:
        self.parts = parts
        self.config = parts.config
        self.options = options
        self.summary = Summary()

    def run(self) -> Summary:
        """Read what is new, once, and commit it. Raises what the parts raise."""
        self.config.require_run()
        assert self.config.sink.path is not None
        self.summary.output = self.config.sink.path
        if self.config.sink.path == PIPE:
            return self._run_to_stream()
        files = [] if self.config.source.path == PIPE else source_files(self.parts, self.options)
        self.refuse_own_output(files)
        with OutputFolder.open(
            self.config.sink.path,
            rejects=self._rejects(),
            keep=self.config.checkpoint.keep,
            full_refresh=self.options.full_refresh,
        ) as folder:
            self._run_to_folder(folder, files)
        return self.summary

    # -- to a folder -------------------------------------------------------------------------

    def _run_to_folder(self, folder: OutputFolder, files: list[SourceFile]) -> None:
        if self.config.source.path == PIPE:
            stream = StreamSource(self.parts.columns, self.config.source.batch_rows)
            bound = self.parts.bind(stream.schema, "stdin")
            self._begin(folder, bound)
            self._loop(folder, bound, stream.batches(), [], None, every=0)
            return
        plan = folder.check_sources(files, force=self.options.force)
        self.summary.vanished_files = len(plan.vanished)
        if files:
            source = ParquetSource(files, self.parts.columns, self.config.source.batch_rows)
            bound = self.parts.bind(source.schema, source.files[0].path)
            self._begin(folder, bound)
        last = folder.manifest
        if not files or (not plan.files and (last is None or last.complete)):
            self._nothing_new(folder)
            return
        source.files = list(plan.files)
        self._tell_resumed(last)
        start = plan.position
        rows = sum(source.rows_of_files()) - (start.file_row if start else 0)
        self.summary.files = len(plan.files)
        every = 0 if self.config.window.kind == "whole" else self.config.checkpoint.every
        self._loop(folder, bound, source.batches(start), plan.files, rows, every)

    def _begin(self, folder: OutputFolder, bound: Bound) -> None:
        schema = {f.name: str(f.type) for f in bound.schema}
        config = {**self.config.canonical(), "source.schema": schema}
        folder.begin(bound.emitter.schema, model=self.parts.fingerprint, config=config)

    def _loop(
        self,
        folder: OutputFolder,
        bound: Bound,
        batches: Iterator[SourceBatch],
        files: Sequence[SourceFile],
        rows: int | None,
        every: int,
    ) -> None:
        scorer = self._scorer(bound, folder.load_state(), f"the state of {folder.path}")
        last = folder.manifest
        if last is not None and not last.complete:
            scorer.rows_read = last.counters.get("rows_read", 0)
            self.summary.add({n: last.counters.get(n, 0) for n in COUNTS})
        if self.config.sink.rejects:
            self.summary.rejects = self.config.sink.rejects
        self._run_loop(
            bound, scorer, FolderTarget(folder, files, self.summary), batches, rows, every
        )
        self.summary.state = folder.path

    def _nothing_new(self, folder: OutputFolder) -> None:
        self.summary.nothing_new = True
        self.summary.streams = folder.manifest.state_rows if folder.manifest else 0
        self.summary.state = folder.path
        self._save(folder.load_state())

    def _tell_resumed(self, last: Manifest | None) -> None:
        if last is None or last.complete:
            return
        where = "at the end of the files used so far"
        if last.position is not None:
            where = f"at row {last.position.file_row:,} of {last.position.file}"
        self.summary.resumed = (
            f"Resumed {where}, after commit {last.commit} ({last.rows:,} rows written)."
        )

    # -- to a stream -------------------------------------------------------------------------

    def _run_to_stream(self) -> Summary:
        rows = self.config.source.batch_rows
        total = None
        if self.config.source.path == PIPE:
            stream = StreamSource(self.parts.columns, rows)
            bound, batches = self.parts.bind(stream.schema, "stdin"), stream.batches()
        else:
            files = source_files(self.parts, self.options)
            source = ParquetSource(files, self.parts.columns, rows)
            bound = self.parts.bind(source.schema, source.files[0].path)
            batches, total = source.batches(), sum(source.rows_of_files())
            self.summary.files = len(files)
        target = StreamTarget(bound.emitter.schema, self._rejects(), self.parts.fingerprint)
        try:
            scorer = self._scorer(bound, None, "")
            self._run_loop(bound, scorer, target, batches, total, every=0)
        finally:
            target.close()
        return self.summary

    # -- both --------------------------------------------------------------------------------

    def _scorer(self, bound: Bound, committed: pa.Table | None, where: str) -> Scorer:
        return Scorer(bound, starting_table(bound, committed, where))

    def _run_loop(
        self,
        bound: Bound,
        scorer: Scorer,
        target: FolderTarget | StreamTarget,
        batches: Iterator[SourceBatch],
        rows: int | None,
        every: int,
    ) -> None:
        before = len(scorer.table)
        limit = self.config.source.max_rejects
        Loop(scorer, target, self.summary, self.options, every, limit, rows).run(batches, bound)
        self.summary.streams = len(scorer.table)
        self.summary.new_streams = len(scorer.table) - before
        if self.config.state.init is not None:
            self.summary.fresh_init_streams = self.summary.new_streams
        if not self.summary.interrupted:
            self._save(scorer.table.to_arrow())

    def _save(self, table: pa.Table | None) -> None:
        if self.config.state.save is not None and table is not None:
            write_state_file(table, self.config.state.save)
            self.summary.state = self.config.state.save

    def _rejects(self) -> str | None:
        return self.config.sink.rejects

    def refuse_own_output(self, files: Sequence[SourceFile]) -> None:
        """Raise ConfigError if the source holds the sink, or the sink the source."""
        source, sink = self.config.source.path, self.config.sink.path
        if source in (None, PIPE) or "://" in f"{source}{sink}":
            return
        out = os.path.realpath(str(sink))
        base = os.path.realpath(str(source))
        inside = [f.path for f in files if os.path.realpath(f.path).startswith(out + os.sep)]
        if out == base or out.startswith(base + os.sep) or inside:
            raise ConfigError(
                f"[sink] path: {sink} and the source {source} lie inside one another: the next "
                "run would read its own output. Name a folder outside the source."
            )


def source_files(parts: Parts, options: RunOptions) -> list[SourceFile]:
    """The files that the source names now. Raises DataError if there are none."""
    path = parts.config.source.path
    assert path is not None
    files = list_files(path)
    if not files and not options.follow:
        raise DataError(
            f"[source] path: {path}: no Parquet file there (expected names ending in .parquet or "
            ".pq). To wait for files, run with --follow."
        )
    return files
