"""One run of a pipeline: what there is to read, where it goes, and from which state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from streamrnn.checkpoints import Manifest, OutputFolder, SourcePlan, UsedFile
from streamrnn.engines import FolderTarget, LocalEngine, StreamTarget
from streamrnn.errors import ConfigError, LateRowError
from streamrnn.outputs import merge_small_parts
from streamrnn.pipeline.follow import Watcher
from streamrnn.pipeline.lateness import name_the_files, note_on_order
from streamrnn.pipeline.preflight import refuse_own_output, run_config, source_files
from streamrnn.scoring import (
    Bound,
    Parts,
    Progress,
    RunOptions,
    Scorer,
    Summary,
    Target,
    starting_table,
)
from streamrnn.sources import FileSource, SourceFile, StreamSource, by_time
from streamrnn.states import write_state_file

_SMALL_PARTS = 100  # of one output, before --follow merges them


class Job:
    """One run of the parts of a pipeline, as the options say."""

    def __init__(self, parts: Parts, options: RunOptions) -> None:
        self.parts = parts
        self.config = parts.config
        self.options = options
        self.summary = Summary()
        self._engine: LocalEngine | None = None
        self._source: FileSource | None = None
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
        if self.config.sink.piped:
            return self._run_to_stream()
        files = [] if self.config.source.piped else source_files(self.parts, self.options)
        refuse_own_output(self.parts, files)
        with OutputFolder.open(
            sink,
            rejects=self.config.sink.rejects,
            keep=self.config.checkpoint.keep,
            full_refresh=self.options.full_refresh,
        ) as folder:
            self.summary.state = folder.path
            if self.config.source.piped:
                self._read_pipe(folder)
            elif self.options.follow:
                self._follow(folder)
            else:
                self._read_files(folder, files)
        return self.summary

    def _refuse_options(self) -> None:
        if not self.options.follow:
            return
        if self.parts.kind.needs_end:
            raise ConfigError(f'--follow: kind "{self.parts.kind.name}" needs the end of the input')
        if self.config.source.piped or self.config.sink.piped:
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
        watcher = Watcher(
            lambda: source_files(self.parts, self.options),
            lambda file: self.parts.source([file]).is_complete(file),
            self.options,
        )
        self._committed = lambda: watcher.tell(folder.manifest, self.summary)
        for files in watcher:
            self._read_new(folder, files, last=False)
            merge_small_parts(folder, least=_SMALL_PARTS)
        if self._engine is not None and not self.summary.interrupted:
            self._engine.end(FolderTarget(folder, []))
            self._end()

    def _read_new(self, folder: OutputFolder, files: Sequence[SourceFile], last: bool) -> bool:
        """Score the files, or rows of a file, that are new; False if there are none."""
        source = self.parts.source(files, order=_committed_columns(folder.manifest))
        plan = folder.check_sources(files, source, force=self.options.force)
        self._count_used(plan)
        committed = folder.manifest
        if not files:
            return False
        if self._engine is None:
            bound = self.parts.bind(source.schema, source.files[0].path)
            self._begin(folder, bound)
        unfinished = committed is not None and not committed.complete and self._engine is None
        if (plan.changed or plan.rewritten) and not plan.files:
            folder.commit(complete=True)  # remembers the files as they are now
        elif plan.refreshed and not plan.files and last:
            folder.refresh_sources()
        if not plan.files and not (unfinished and last):
            return committed is None
        if self._engine is None:
            self._start(folder, bound, 0 if self._whole else self.config.checkpoint.every)
            self._tell_resumed(committed, plan)
        source.files = self._in_order(source, plan)
        self._source, self._used = source, plan.known
        rows = source.total_rows()
        rows -= plan.position.file_row if plan.position else 0
        self.summary.files += len(plan.files)
        batches = source.batches(plan.position, plan.before)
        target = FolderTarget(folder, source.files)
        assert self._engine is not None
        self._engine.run(batches, target, self.summary.rows + rows, last=last)
        return True

    def _count_used(self, plan: SourcePlan) -> None:
        """Count the used files that are not as they were."""
        self.summary.vanished_files = len(plan.vanished)
        self.summary.changed_files = len(plan.changed)
        self.summary.rewritten_files = sum(len(rewrite.new) for rewrite in plan.rewritten)
        self.summary.files_by_footer = plan.by_footer
        self.summary.rewrites_unsettled = plan.unsettled

    @property
    def _order(self) -> str:
        return self.config.source.order

    def _in_order(self, source: FileSource, plan: SourcePlan) -> list[SourceFile]:
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
        return self.parts.kind.needs_end

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
        self._engine = LocalEngine(scorer, self.summary, self.options, every, self._committed)

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
        source: StreamSource | FileSource
        piped = self.config.source.piped
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
        target: Target,
        source: StreamSource | FileSource,
        total: int | None,
    ) -> None:
        assert self._engine is not None
        self._engine.run(source.batches(), target, total, last=True)

    def _end(self) -> None:
        assert self._engine is not None
        table = self._engine.table
        self.summary.streams = len(table)
        self.summary.new_streams = len(table) - self._engine.streams_before
        if self.config.state.init is not None:
            self.summary.fresh_init_streams = self.summary.new_streams
        if not self.summary.interrupted:
            self._save(table.to_arrow)
        elif not self.summary.commits:
            self.summary.state = None
            if not self.config.sink.piped:
                self.summary.rows_out = 0

    def _save(self, state: Callable[[], pa.Table | None]) -> None:
        if self.config.state.save is None:
            return
        table = state()
        if table is not None:
            write_state_file(table, self.config.state.save)
            self.summary.state = self.config.state.save


def _committed_columns(last: Manifest | None) -> list[str]:
    """The columns that earlier runs used, in their order: another file may have another."""
    return [] if last is None else list(last.config.get("source.schema", ()))
