"""One run of a pipeline: what to read, where to write, and which state to start from."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pyarrow as pa

from streamrnn.base.display import count, location
from streamrnn.errors import (
    CheckpointError,
    ConfigError,
    LateRowError,
    MissingFileError,
    StreamRNNError,
)
from streamrnn.jobs.engines import Engine, LocalEngine, open_engine
from streamrnn.jobs.preflight import (
    after_rule,
    check_sink,
    file_source,
    notes_on_model,
    open_source,
    refuse_own_output,
    seen_by_init,
)
from streamrnn.jobs.running.destination import Destination, open_destination
from streamrnn.jobs.running.follow import Watcher
from streamrnn.jobs.running.lateness import (
    name_the_files,
    name_the_order,
    name_the_position,
    note_on_gap,
    note_on_order,
)
from streamrnn.jobs.running.metrics import RunMetrics
from streamrnn.jobs.running.publishing import RunPublisher
from streamrnn.jobs.running.reloading import rewind_before_changes
from streamrnn.jobs.running.replay import Replay, discard_replay
from streamrnn.jobs.running.replay_plan import needs_replay
from streamrnn.stream.checkpoints import (
    Manifest,
    SourcePlan,
    read_manifest,
    refuse_lost_files,
    refuse_lost_pipe,
    with_seen_files,
)
from streamrnn.stream.scoring import (
    BoundPipeline,
    Copies,
    LoadedPipeline,
    Progress,
    RunOptions,
    Scorer,
    Summary,
    starting_table,
    unsaid_kind,
)
from streamrnn.stream.sources import Source, SourceFile
from streamrnn.stream.states import StateTable, write_state_file
from streamrnn.stream.states.positions import CallPosition, from_json, last_position

_NOT_TAKEN_OVER = (
    "the new model takes over with the first new rows, but there are none yet: pass --new-model "
    "again when there are"
)


class RunJob:
    """One run of a loaded pipeline with its options.

    `unsaved` is the state at its end, unless an output folder has it.
    """

    def __init__(
        self, loaded: LoadedPipeline, options: RunOptions, metrics: RunMetrics | None = None
    ) -> None:
        self.loaded = loaded
        self.config = loaded.config
        self.options = options
        self.summary = Summary(output=location(str(loaded.config.sink.path)))
        self._metrics = metrics
        self._tables = RunPublisher(loaded.config, self.summary)
        self._output: Destination  # once it is open
        self._committed: Callable[[], None] = self._after_commit
        self.unsaved: StateTable | None = None
        self._began = 0.0
        self._committed_once = False
        self._closing = ExitStack()

    def run(self) -> Summary:
        """Read what is new, score it and commit it."""
        self._began = time.perf_counter()
        self.config.require_run()
        check_sink(self.config)
        if (choice := self.loaded.choice).kept:  # only the output says the kind of window
            if self.options.full_refresh:
                raise unsaid_kind(self.loaded.model)
            self.summary.state_notes.append(str(choice.note))
        self.summary.state_notes += notes_on_model(self.loaded)
        source = open_source(self.loaded, follow=self.options.follow)
        self._refuse_options(source)
        refuse_own_output(self.loaded, source.files)
        replaced = self._replaced(source)
        with (
            self._reloaded(source),
            open_destination(self.loaded, self.options, source) as output,
            self._closing,
        ):
            self._output = output
            self.summary.state = output.place
            self.summary.recovered = list(output.recovered)
            before = output.last.commit if output.last else 0
            if self._metrics is not None:
                self._metrics.watch(self.summary, output)
            self._tables.warn_of_abandoned(output.last or replaced)
            self._tables.publish(output.last)
            if self.options.follow:
                self._follow()
            else:
                self._read_once(source)
            output.record_tables(self.config.canonical())
            if output.last is not None:
                self.summary.commit = output.last.commit
                self.summary.parts = [p.name for p in output.last.parts if p.commit > before]
                for name, folder in self.config.side_folders.items():
                    parts = output.last.named(name).parts
                    rows = sum(part.rows for part in parts if part.commit > before)
                    if rows and name in self.summary.copies:
                        self.summary.copies[name] = Copies(rows, location(folder))
            self._tables.finish(output.last)
        return self.summary

    def _replaced(self, source: Source) -> Manifest | None:
        """Return the last commit of an output that starts over, if it can be read.

        Raises CheckpointError if the source lacks rows of the output, unless `force` lets them go.
        """
        path, files = self.config.sink.folder, source.of_files
        if not self.options.full_refresh or path is None:
            return None
        try:
            last = read_manifest(path)
        except (CheckpointError, MissingFileError):
            return None
        if self.options.force:
            return last
        if files is not None:
            select = after_rule(self.loaded, files)
            refuse_lost_files(last, select(files.files, ()), files, path=path)
        refuse_lost_pipe(last, files, path=path)
        return last

    def _refuse_options(self, source: Source) -> None:
        on_files = source.replayable and self.config.sink.folder is not None
        if self._on_workers and not on_files:
            raise ConfigError(
                '[engine] type = "ray" reads files and commits to a folder; it cannot be used with '
                'stdin or stdout. Use type = "local".'
            )
        if not self.options.follow:
            return
        if self.loaded.kind.needs_end:
            raise ConfigError(
                f'--follow: kind "{self.loaded.kind.name}" needs the end of the input, which never '
                "comes; run without --follow"
            )
        if not on_files:
            raise ConfigError(
                "--follow watches files and commits to a folder; it cannot be used with stdin or "
                "stdout"
            )

    @contextmanager
    def _reloaded(self, source: Source) -> Iterator[None]:
        """Rewind to before the files to reload, if any, were read; say so in errors of the run."""
        if not self.options.reload or self.options.full_refresh:
            yield
            return
        named = () if self.options.reload is True else self.options.reload
        done = rewind_before_changes(self.loaded, source, named, self.options)
        note, if_it_fails = done or ("no used file changed; nothing to reload", "")
        self.summary.reloaded = note
        try:
            yield
        except StreamRNNError as error:
            if done:
                error.add_note(if_it_fails)
            raise

    def _read_once(self, source: Source) -> None:
        used = len(self._output.last.sources) if self._output.last else 0
        engine = self._read(source, None, last=True)
        if engine is not None:
            self._end(engine)
            if self._output.last is not None and source.time is not None:
                kind = source.schema.field(source.time).type
                self.summary.unusual_gap = note_on_gap(self._output.last.sources, used, kind)
            return
        if self.summary.interrupted:  # in the replay
            return
        self.summary.nothing_new = True
        self.summary.streams = self._output.last.state_rows if self._output.last else 0
        self._save(self._output.load_state)

    def _follow(self) -> None:
        watcher = Watcher(
            lambda: file_source(self.loaded, follow=self.options.follow), self.options, self._looked
        )

        def report() -> None:
            watcher.report(self._output.last, self.summary)
            self._after_commit()

        self._committed = report
        engine: Engine | None = None
        for source in watcher:
            engine = self._read(source, engine, last=False) or engine
            self._tables.publish(self._output.last)
            self._tables.publish(self._output.last, merged=self._output.merge_parts())
        if engine is not None and not self.summary.interrupted:
            engine.end(self._output.target([]))
            self._end(engine)

    def _after_commit(self) -> None:
        """Publish a commit, and write the metrics; after the first commit, remove the replay."""
        folder = self.config.sink.folder
        if folder is not None and not self._committed_once:
            discard_replay(folder)
            self._committed_once = True
        self._tables.after_commit(self._output.last)
        self._update_metrics()

    def _after_replayed(self) -> None:
        """Keep the output locked, and write the metrics, after a commit of a replay."""
        if self._output.folder is not None:
            self._output.folder.renew()
        self._update_metrics()

    def _update_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.update()

    def _looked(self) -> None:
        """Retry the tables that failed, and record a finished look at the source in the metrics.

        A look that was interrupted is not recorded.
        """
        self._tables.retry(self._output.last)
        if self._metrics is not None and not self.summary.interrupted:
            self._metrics.succeed()

    def _read(self, source: Source, engine: Engine | None, last: bool) -> Engine | None:
        """Score the new rows of the source, and return the engine.

        Returns None if there are no new rows, or if the run is stopped in a replay. `engine` is the
        engine of the earlier rounds, None in the first round of a run. With `last` the run ends
        after this round.
        """
        is_first = self._output.last is None and engine is None
        seen = seen_by_init(self.loaded, source) if is_first else None
        plan = self._output.plan(source, self.options.force, seen)
        committed, first_round = self._output.last, engine is None
        self._note_used(source, plan, seen_by_init=seen is not None)
        if first_round and plan.files and committed is not None and committed.live:
            self.summary.state_notes.append(
                f"sessions have scored {count(committed.live, 'row')} of this output: a file that "
                "also has these rows is not recognized, and is scored like any other"
            )
        if first_round:
            bound = self.loaded.bind(source.schema, source.name)
            self._tables.check(bound.emitter.schema)
            self._output.begin(bound)
        if source.replayable and not plan.files:
            if seen is not None:  # a misfit initial state is an error even if no file is new
                self._start(bound, source, plan, committed)
            self._output.commit_sources(plan, last)
            unfinished = first_round and committed is not None and not committed.complete
            if not (unfinished and last):
                if last and committed is not None and committed.model != self.loaded.fingerprint:
                    self.summary.state_notes.append(_NOT_TAKEN_OVER)
                return None
        if engine is None:
            engine = self._start(bound, source, plan, committed)
            if engine is None:
                return None
        source.files = self._in_order(source, plan)
        total = source.total_rows()
        if total is not None:
            total += self.summary.rows - (plan.position.file_row if plan.position else 0)
        self.summary.files += len(plan.files)
        target = self._output.target(source.files, pipe=source.of_files is None)
        try:
            engine.run(source, plan.position, plan.before, target, total, last=last)
        except LateRowError as error:
            named = name_the_files(error, source, plan.used, self.config.source.order, self._output)
            if named is error and (calls := self._state_of_calls(committed)) is not None:
                live = 0 if committed is None else committed.live
                named = name_the_position(error, *calls, str(source.time), live)
            elif named is error and self.config.state.init is None:
                named = name_the_order(error, source, plan.used)
            raise named from None
        return engine

    def _note_used(self, source: Source, plan: SourcePlan, *, seen_by_init: bool) -> None:
        """Count used files that changed or vanished, and files that the initial state has seen."""
        self.summary.vanished_files = len(plan.vanished)
        self.summary.changed_files = len(plan.changed)
        self.summary.rewritten_files = sum(len(rewrite.new) for rewrite in plan.rewritten)
        self.summary.files_by_footer = plan.by_footer
        self.summary.rewrites_unsettled = plan.unresolved
        if not seen_by_init:
            return
        self.summary.vanished_files = 0  # the state may have seen files of any source
        used = {file.path for file in plan.used}
        used |= {file.name for rewrite in plan.rewritten for file in rewrite.new}
        used -= {file.name for file in plan.files}
        if number := sum(file.name in used for file in source.files):
            self.summary.state_notes.append(
                f"{count(number, 'file')} not read: the initial state has seen "
                f"{'it' if number == 1 else 'them'}"
            )

    def _state_of_calls(
        self, committed: Manifest | None
    ) -> tuple[CallPosition | None, pa.Table] | None:
        """Return the position and state of the calls that the run began from.

        These are calls of `process` or a session; None if there were none.
        """
        init = self.config.state.init
        if committed is not None and (committed.positions or committed.live):
            position, table = from_json(committed.positions), self._output.load_state()
        elif init is not None:
            table = self.loaded.read_init(init)
            if (position := last_position(table, init)) is None:
                return None
        else:
            return None
        return None if table is None else (position, table)

    def _start(
        self, bound: BoundPipeline, source: Source, plan: SourcePlan, committed: Manifest | None
    ) -> Engine | None:
        options, output, replay, replayed = self.options, self._output, None, None
        on_change = options.on_change(self.config.model)
        if committed is not None and needs_replay(bound, committed, on_change):
            state, after = output.load_state(), self._after_replayed
            replay = Replay(bound, source, committed, state, self.summary, options, after)
            if (replayed := replay.run()) is None:
                return None  # interrupted

        def load() -> StateTable:
            table = starting_table(
                bound,
                output.load_state(),
                f"the state of {output.place}",
                self.summary.state_notes,
                on_change=on_change,
                replayed=replayed,
                earlier_map=None if committed is None else committed.config.get("state.map", {}),
            )
            if replay is not None and replayed is not None:
                replay.report(replayed, table)
            return table

        engine: Engine
        if self._on_workers:
            files = source.of_files
            assert files is not None  # refused before
            assert output.folder is not None
            engine = open_engine(
                bound,
                files,
                output.folder,
                self.summary,
                self.options,
                self._committed,
                lambda: load().to_arrow(),
            )
        else:
            scorer = Scorer(bound, load())
            if source.replayable and output.last is not None and not output.last.complete:
                scorer.resume_counts(output.last.counters)
            resumable = source.replayable and output.resumable and not self.loaded.kind.needs_end
            every = self.config.checkpoint.every if resumable else 0
            engine = LocalEngine(scorer, self.summary, self.options, every, self._committed)
        self._closing.callback(engine.close)
        self.summary.rejects = location(self.config.sink.rejects or "") or None
        self.summary.seconds_by_phase["start"] = time.perf_counter() - self._began
        if source.replayable:
            self._report_resumed(committed, plan)
        return engine

    @property
    def _on_workers(self) -> bool:
        return (self.options.engine or self.config.engine.type) != "local"

    def _in_order(self, source: Source, plan: SourcePlan) -> list[SourceFile]:
        """Return the files to read: a partly read file first, then the others by [source] order."""
        started = 0 if plan.position is None else 1
        files, order = list(plan.files), self.config.source.order
        if order == "time":
            files[started:] = source.in_time_order(files[started:])
        elif self.config.source.late != "error":  # with "error", a late row stops the run
            self.summary.times_go_back = note_on_order(source, files, order)
        return files

    def _report_resumed(self, last: Manifest | None, plan: SourcePlan) -> None:
        if last is None or last.complete:
            return
        location = "at the end of the files used before"
        if plan.position is not None:
            location = f"at row {plan.position.file_row:,} of {plan.files[0].path}"
        self.summary.resumed = (
            f"Resumed {location}, after commit {last.commit} ({last.rows:,} rows written)."
        )
        if self.options.progress is not None:
            streams = last.state_rows
            self.options.progress(Progress(0, None, streams, 0.0, self.summary.resumed))

    def _end(self, engine: Engine) -> None:
        self.summary.streams = engine.streams
        here = engine.streams + self.summary.dropped_streams
        self.summary.new_streams = here - engine.streams_before
        if (
            self.summary.new_streams
            and not self.summary.dropped_streams
            and engine.table is not None
        ):
            alike = engine.table.similar_keys(engine.streams_before)
            self.summary.similar_keys, self.summary.first_similar_keys = alike
        if self.config.sink.folder is None:
            self.unsaved = engine.table
        if self.config.state.init is not None:
            self.summary.fresh_init_streams = self.summary.new_streams
        if not self.summary.interrupted:
            table = engine.table
            self._save(self._output.load_state if table is None else table.to_arrow)
        elif not self.summary.commits:
            self.summary.state = None
            if self._output.resumable:
                self.summary.rows_out = 0

    def _save(self, state: Callable[[], pa.Table | None]) -> None:
        if self.config.state.save is None:
            return
        table = state()
        if table is not None:
            write_state_file(with_seen_files(table, self._output.last), self.config.state.save)
            self.summary.state = location(self.config.state.save)
