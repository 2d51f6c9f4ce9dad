"""The `Pipeline` class, used from Python and by the command line."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from streamrnn.base.display import count, html_table, listed, location
from streamrnn.base.plugin import load_plugin
from streamrnn.errors import ConfigError, DTypeError, MissingFileError, StreamRNNError
from streamrnn.jobs.explaining import (
    explain,
    feature_statistics,
    mermaid,
    preview_rows,
    source_windows,
    validate,
)
from streamrnn.jobs.preflight import (
    GivenState,
    InitialState,
    ModelFile,
    included_model,
    initial_table,
    notes_on_calibration,
    reader,
)
from streamrnn.jobs.running import RunJob, recorded
from streamrnn.jobs.session import (
    Calls,
    CheckpointHeader,
    LastCheckpoint,
    Readable,
    Session,
    Start,
    Writable,
    check_arguments,
    first_scorer,
    open_session,
    rejects_of,
    require_output,
    resume_scorer,
    resumed_config,
    start_of,
    warn_of_output,
)
from streamrnn.nn.kernels import Compiled
from streamrnn.stream.checkpoints import has_manifest, load_state, read_manifest
from streamrnn.stream.config.load import Config
from streamrnn.stream.config.values import EngineType, NewModel, OnChange, check_new_model
from streamrnn.stream.scoring import RowCounts, SourceWindows, compile_kernels
from streamrnn.stream.scoring.bind import LoadedPipeline
from streamrnn.stream.scoring.loop import RunOptions
from streamrnn.stream.scoring.scorer import Scorer
from streamrnn.stream.scoring.summary import Progress, Summary
from streamrnn.stream.states import (
    OwnLock,
    StateTable,
    checked,
    read_state_bytes,
    state_bytes,
    with_checksum,
)
from streamrnn.stream.states.positions import CallPosition, from_json

if TYPE_CHECKING:
    from streamrnn.jobs.evaluation import Evaluation
    from streamrnn.jobs.fitting import FitProgress, FitSummary
    from streamrnn.plugins.report.picture import ReportPage


class Pipeline:
    """A pipeline file with its model loaded and checked.

    `run` reads the source and writes the sink; `process` scores the caller's Arrow data or dicts,
    and carries the state from call to call. Several threads may call `process`, `finish`,
    `checkpoint` and `state`, and pickle the pipeline: a lock serializes them. However a call of
    `process` ends, even by an interrupt, the state is as before the call or as after it.
    """

    def __init__(
        self,
        config: Config,
        state_table: pa.Table | None = None,
        name: str | None = None,
        start: Start = "init",
    ) -> None:
        if not isinstance(config, Config):
            raise ConfigError(
                f"Pipeline: expected a Config, received {type(config).__name__}. Load a pipeline "
                "file with Pipeline.from_toml(path), or tables with Pipeline.from_dict(tables)"
            )
        if start == "output":
            require_output(config)
        self.config = config
        self._start = start
        self._name = name  # of the pipeline file
        self._state_table = state_table  # the table that [state] init names, if it is in memory
        self._folder = os.getcwd()  # relative paths are resolved from it
        self._model_file: ModelFile | None = None  # from a checkpoint that includes it
        self._last_run: RunJob | None = None
        self._calls = Calls(
            lambda: self.loaded, lambda schema: first_scorer(self.loaded, schema, start)
        )
        self._lock = OwnLock()
        self._checkpoints = OwnLock()  # held for a whole call of `checkpoint`
        self._last_checkpoint = LastCheckpoint()
        self._rejects: pa.RecordBatch | None = None
        self._local = threading.local()

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        overrides: Iterable[str] = (),
        *,
        state: GivenState | None = None,
    ) -> Pipeline:
        """Read a pipeline file; `overrides` are strings such as "window.lanes=32".

        With `state` "output", `process` starts where the last run into [sink] path ended: with the
        state of that run, read at the first call, and with the types of its columns. Before the
        first commit, `process` starts from the initial state, and logs a warning. `run` is not
        affected.

        Any other `state` replaces [state] init: a state table in memory (a
        pa.Table, a StateTable, or an object with the Arrow PyCapsule interface), or the path of an
        exported table or an output folder (a folder with the name output is "./output"). A table in
        memory is treated like the same table in a file: with the same checks, messages and [state]
        map. Its name in messages is "memory:" and a digest. A StateTable is copied.

        Raises ConfigError, which lists all problems; DTypeError or DataError for a `state` that is
        not an Arrow table or is damaged.
        """
        name, start = os.path.basename(path), start_of(state)
        if state is None or start == "output":
            return cls(Config.load(path, overrides), None, name, start)
        initial = InitialState.of(state)
        return cls(Config.load(path, overrides, initial.override), initial.table, name, start)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, state: GivenState | None = None) -> Pipeline:
        """Make a pipeline from the tables of a pipeline file as dicts.

        `state` and errors are as in `from_toml`.
        """
        start = start_of(state)
        if state is None or start == "output":
            return cls(Config.parse(data), start=start)
        initial = InitialState.of(state)
        return cls(Config.parse(initial.set_in(data)), initial.table, start=start)

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {value}" for name, value in self._facts())
        return f"<Pipeline: {facts}>"

    def _repr_html_(self) -> str:
        return html_table("Pipeline", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """List what the pipeline reads, runs and writes, without opening files or taking a lock."""
        config, scorer, loaded = self.config, self._scorer, vars(self).get("loaded")
        source, window = config.source, config.window
        features = [feature.name for feature in source.features] + list(source.time_features)
        return [
            ("model", location(config.model.path) if loaded is None else repr(loaded.model)),
            ("source", location(source.path or "process()")),
            ("key", ", ".join(source.key)),
            ("features", listed(features)),
            ("window", f"{window.kind}, {window.lanes} lanes x {window.steps} steps"),
            ("sink", location(config.sink.path or "process()")),
            ("state", "none yet" if scorer is None else count(scorer.table.streams, "stream")),
        ]

    @cached_property
    def loaded(self) -> LoadedPipeline:
        """Model, contract and outputs, loaded and checked on first use."""
        return self._loaded_anew()

    def _loaded_anew(self) -> LoadedPipeline:
        folder, read = self.config.sink.folder, reader(self._state_table)
        begun = partial(has_manifest, folder) if folder is not None else lambda: False
        with self._model_file.on_disk() if self._model_file else nullcontext() as path:
            return LoadedPipeline(self.config, read, path, begun)

    def _loaded_before_fit(self) -> LoadedPipeline:
        """Return `loaded`, or the pipeline with the model of a first fit if there is no model file.

        Raises MissingFileError if the pipeline file names no model to start a fit from, or if the
        output has commits.
        """
        try:
            return self.loaded
        except MissingFileError:
            from streamrnn.jobs.fitting import load_untrained

            folder = self.config.sink.folder
            untrained = load_untrained(self.config, self._state_table)
            if untrained is None or (folder is not None and has_manifest(folder)):
                raise
            return untrained

    def run(
        self,
        *,
        full_refresh: bool = False,
        force: bool = False,
        new_model: NewModel | None = None,
        reload: bool | Sequence[str] = False,
        follow: bool = False,
        engine: EngineType | None = None,
        poll: float = 1.0,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        metrics: str | os.PathLike[str] | None = None,
    ) -> Summary:
        """Score what is new in the source since the last run, and commit it to the sink.

        `full_refresh` discards output and state first; it is refused if the source lacks rows that
        the output has, unless `force` lets them go. `force` also resumes although used files
        changed, or although a feature has 100 or more values, none in its vocabulary (`oov` = 1);
        `new_model` says how a model other than the last run's takes over, in place of [model]
        on_change: "replay" (it reads earlier rows into its own state), "carry" (each stream keeps
        its state) or "reset" (every stream starts again); `reload` first rewinds to the last commit
        before the used files that changed, or before the named ones; `follow` looks for new files
        every `poll` seconds until `stop` is set. Once `stop` is set, the run commits and ends
        (`Summary.interrupted` if there was more to read). `engine` replaces [engine] type.
        `metrics` names a file for Prometheus, which no other pipeline may use. It is replaced when
        the run begins, after each commit and each look at the source, and at the end, even after an
        error; its label is the name of the pipeline file, else the output. Raises ConfigError,
        DataError, CheckpointError, SinkError, EngineError and their subclasses; what was committed
        is kept.
        """
        try:
            check_new_model(new_model)
        except ValueError as error:
            raise ConfigError(f"new_model: {error}") from None
        options = RunOptions(
            full_refresh=full_refresh,
            force=force,
            new_model=new_model,
            reload=reload,
            follow=follow,
            engine=engine,
            poll=poll,
            progress=progress,
            stop=stop or threading.Event(),
        )
        with recorded(metrics, self._label) as recorder:
            job = RunJob(self.loaded, options, recorder)
            summary = job.run()
        self._last_run = job
        return summary

    def fit(
        self,
        *,
        extend: bool = False,
        full_refresh: bool = False,
        overwrite: bool = False,
        limit: int | None = None,
        find_rate: bool = False,
        progress: Callable[[FitProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> FitSummary:
        """Train the model on the source and [target] as set in [train], and write [model] path.

        A fit that was interrupted resumes; one that is done has nothing to do. `extend` trains the
        model of the last fit on new rows, from the state after its last row; `full_refresh` starts
        over; `overwrite` replaces a model file that no fit wrote; with `limit` at most this many
        rows are read, and nothing is written. With `find_rate` the learning rate rises from update
        to update until the loss rises, too (see `FitSummary.rates` and `good_rate`), and nothing is
        written. Once `stop` is set, the fit commits and ends. Raises what `run` raises, and
        ConfigError or UnsupportedError for what cannot be trained.
        """
        from streamrnn.jobs.fitting import FitOptions, fit_job

        options = FitOptions(
            extend, full_refresh, overwrite, limit, find_rate, progress, stop or threading.Event()
        )
        summary = fit_job(self.config, self._state_table, options).run()
        vars(self).pop("loaded", None)  # of the previous model file
        return summary

    def compile_kernels(self) -> Compiled:
        """Compile every kernel that a run needs, into the cache that this user's runs read.

        Use it to build a container image, or on a node before its first run. No data is read.
        Returns what was cached, and where. Raises ConfigError if nothing can be cached.
        """
        return compile_kernels(self.loaded)

    def preview(self, limit: int) -> pa.Table:
        """Score the first `limit` rows of the source from the initial state; return the output.

        Nothing is written, and what earlier runs committed is ignored.
        """
        self.config.require_run()
        return preview_rows(self.loaded, limit)

    def windows(self) -> SourceWindows:
        """Iterate over the rows of the source in windows of [window] lanes x steps.

        The windows are for models of other frameworks. Each window (a SourceWindow) has the arrays
        that the model would read, and all windows have one size; nulls, ranges, late and rejected
        rows and resets are handled as in `run`. Lane i continues where it stopped; when its stream
        ends, it takes the next stream, in the order of the state table. Each step is in one window.
        A model that carries the state of each lane, and resets the lanes with `reset`, computes
        what `run` writes.

        With [target] a window also has labels and weights, to train on: `y` and `weight`. A label
        is the value of the target column in the row of the same stream that is [target] horizon (or
        rows) later: the first such row, if several have that time. Late or rejected rows give no
        labels, and no label is joined across a reset or a gap. Where y is NaN, weight is 0.

        Before there is a model file, the inputs are as in [model] layers (or [train] init).

        Before the first window is returned, everything that a first run would read is read,
        whatever `run` has scored. All steps are held in memory, with 4 bytes per feature. Nothing
        is written. Raises ConfigError for kinds other than carry, and without [source] path; and
        what `run` raises.
        """
        return source_windows(self._loaded_before_fit())

    def process(
        self, data: object, position: CallPosition | None = None, *, align: bool = False
    ) -> pa.RecordBatch | pa.Table:
        """Score a RecordBatch, a Table, any Arrow PyCapsule object (pandas, Polars, …), or dicts.

        Returns the output rows in the order of the input: in a RecordBatch if `data` is one, else
        in a Table. The state of each stream is carried to the next call, and rejected rows are in
        `rejects` until then. Raises ConfigError for kind whole.

        In a list of dicts, each dict is a row, and maps names of columns to values of Python or
        NumPy. Names are text; a missing column is null, and one that the pipeline does not use is
        ignored. Numbers for a feature become float64, even integers, unless the model reads them as
        ids; in other columns integers stay integers, and decimals become decimal128(38, 18) if that
        type can hold the first of them. Times are datetimes, all with a zone or all without. An
        empty list before the first row has no values to take types from: its table has columns of
        type null, and its position is not kept.

        The first call sets the type of each column that is a key, the time or copied to the output.
        Later data may have another type: values are cast as `run` casts values of files, and
        refused where a cast would change one. A column without values (of type null) gets its type
        from the first call that has some. Raises DataError for invalid rows; then no row of `data`
        is counted. After an interrupt, either all rows are counted, or none.

        `position` names the place of `data` in its source: an offset, a file name, a list of these,
        or a dict from partition to one of these. It has to be after the last position, and is
        stored in checkpoints. Numbers in text count as numbers: "part-9" is before "part-10". A
        list is one sequence, compared item by item: a day, a file, a row. Partitions that advance
        independently belong in a dict, {partition: offset}, which has the partitions with rows in
        `data`; each is compared alone, and a new one always counts as later. The dict may be empty
        if `data` is.

        With `align` the result has a row for each row of `data`, in order, and a column `reason`:
        null where the row has an output, else why it has none: "late", "repeated" (for any [source]
        repeated but "score"), "rejected: " and what is wrong, "skipped" (a null, perhaps without an
        earlier value to repeat), "warmup", or "waiting" (for the rest of a window, or of `last_of`
        rows). Rows that are late (unless [source] late is "apply"), repeated or invalid do not
        make other rows fail: they are counted, and are neither in the state nor in `rejects`, whose
        limit does not apply. In the first call, each key column and the time have to be in at least
        one dict. Raises ConfigError if the output has a column `reason`.

        Raises AlreadyProcessed for a position equal to the last one, PositionError for one before
        it, or equal in some partitions and later in others; DTypeError for a position of another
        type; ConfigError if there is none although earlier calls had one. In all these cases
        nothing was scored, and the state is unchanged.
        """
        if self.loaded.kind.needs_end:
            kind = self.config.window.kind
            raise ConfigError(f'process: kind "{kind}" needs all rows at once; use run()')
        with self._lock.lock:
            if self._start == "init" and self._scorer is None:
                warn_of_output(self.config)
            answer = self._calls.process(data, position, align)
            self._rejects = self._local.rows = rejects_of(answer.scored)
        return answer.output

    @property
    def _scorer(self) -> Scorer | None:
        return self._calls.scorer

    @property
    def position(self) -> CallPosition | None:
        """The position of the last batch that `process` scored; None if it had none.

        A position of partitions has every partition, each with its last position. Before the first
        call, this is the position in the checkpoint or, with `state="output"`, in the output.
        """
        if self._scorer is not None:
            return copy.copy(self._scorer.position)
        folder = self.config.sink.folder
        if self._start != "output" or folder is None or not has_manifest(folder):
            return None
        return from_json(read_manifest(folder).positions)

    @property
    def rejects(self) -> pa.RecordBatch | None:
        """The rows that the last `process` of this thread rejected, each with its reason.

        A thread that has not called `process` gets the rejects of the last call in any thread.
        None if there are none.
        """
        rejects: pa.RecordBatch | None = getattr(self._local, "rows", self._rejects)
        return rejects

    @property
    def counts(self) -> RowCounts:
        """What became of the rows of all calls of `process`, by the names in a Summary; a copy.

        A call that raised an error counts nothing. Checkpoints and pickles do not keep the counts:
        a pipeline that resumes counts from 0. (The counters in checkpoints only number the rows in
        messages, and limit rejects.)
        """
        with self._lock.lock:
            return self._calls.counts

    def write_metrics(self, path: str | os.PathLike[str]) -> None:
        """Write `counts`, streams, newest time and lag to a file for Prometheus, as `run` does.

        The counts are added to the counts that the file had at the first call for this path, so
        that totals go on when jobs resume one after another; jobs that run at once need a file
        each. The label is as in `run`: the name of the pipeline file, else the output. The file
        says nothing about the last run. Raises ConfigError if the file has metrics of a run (which
        needs a file of its own) or of another pipeline, or anything else; SinkError if it cannot be
        read or written.
        """
        with self._lock.lock:
            self._calls.write_metrics(path, self._label)

    @property
    def _label(self) -> str:
        """The name of the pipeline in metrics."""
        return self._name or location(self.config.sink.path or "process()")

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Own the output, as a run does, within a `with` block, to score the caller's rows into it.

        In the block, `Session.process` scores data, and `Session.commit` commits it. A commit has
        rows, state and position like a run's: sessions and runs may follow one another in any
        order, each from the state that the one before it left. `[source] path` is not read. The
        block ends with a commit, unless an exception ends it: then uncommitted rows are lost, and
        the next session goes on from the position of the last commit, `Session.position`.

        A session writes rows in the order in which they are scored; a run does not recognize these
        rows if the files that it reads have them, too. Small parts are merged when there are 60 of
        them, in an output or a partition.

        Raises CheckpointError if a run, or another session, has locked the output, or another
        pipeline has written it; ConfigError for kind whole, for emit "final", and for a [sink] path
        that is not a folder; SinkError; PublishError, at the end, if a table of [publish] could not
        be updated.
        """
        with open_session(self._loaded_anew(), self._label) as session:
            yield session

    def finish(self) -> pa.RecordBatch | None:
        """Return what emit "final" held back since the last `finish`: each stream's last row."""
        with self._lock.lock:
            scorer = self._scorer
            if scorer is None or (final := scorer.final()) is None:
                return None
            written = scorer.totals.get("rows_out", 0) + final.num_rows
            scorer.totals = {**scorer.totals, "rows_out": written}
            return final

    def checkpoint(
        self,
        path: str | os.PathLike[str] | Writable,
        *,
        include_model: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Write the state that `process` carries, and the config, to one Arrow file.

        With `include_model` the file also has the model file, and no other file is needed to
        resume. Paths in the config become absolute. The write is atomic, and the file has a
        checksum. The file is also a state table that `streamrnn state` reads. Calls of other
        threads go on meanwhile; the file has the state between two of them. Raises ConfigError
        before the first call of `process`, SinkError; MissingFileError or UnsupportedError if the
        model file is gone, changed, or refers to other files.

        A state has one owner. CheckpointError is raised, and nothing written, unless the file at
        `path` is the one that this pipeline resumed from or wrote last, by its checksum (by its
        bytes if it has none), or `path` is new to this pipeline and no file exists there.
        `overwrite` replaces whatever is there. On a disk the file is locked from the comparison to
        the end, so if two jobs resumed from one checkpoint, one is refused. An object store has no
        locks: two jobs that write within the time of one upload may both succeed, and the last
        write stays.

        `path` may be a binary file, such as an io.BytesIO, for a database that keeps the state with
        the rows in one transaction. What such a file had before is not checked.
        """
        with self._checkpoints.lock:  # files are written in the order of their states
            self._calls.drop_idle(self._lock.lock)
            with self._lock.lock:
                if include_model and self._model_file is None:
                    self._model_file = included_model(self.loaded, self._folder)
                header, scorer = self._header(), self._scorer
                assert scorer is not None  # otherwise there is no header
                scorer.table.mark_clean()
                copied = scorer.table.copied()
            table = header.attach(copied.finish(), self._folder)
            if isinstance(path, str | os.PathLike):
                self._last_checkpoint.write(table, os.fspath(path), overwrite=overwrite)
            else:
                path.write(memoryview(state_bytes(with_checksum(table))))

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str] | bytes | Readable,
        model: str | os.PathLike[str] | None = None,
        on_change: OnChange | None = None,
        map: Mapping[str, str] | None = None,
    ) -> Pipeline:
        """Load the pipeline of a `checkpoint`, and resume from its state.

        `path` is a path, the bytes of the file, or a binary file to read them from. The model is
        the one included in the checkpoint, else it is read from the path in the config; `model`
        names another file. If it is another model, `on_change` says what to do: "error" raises
        StateError, "carry" lets it take over the state of each stream, "reset" starts each stream
        again, as in `[model] on_change`, whose value is the default. `map` maps layers of the new
        model to layers of the old one, as in `[state] map`.
        """
        check_arguments(model, on_change, map)
        last = LastCheckpoint()
        if isinstance(path, str | os.PathLike):
            owner = os.fspath(path)
            table = last.read(owner)
        else:
            owner = "the checkpoint"
            data = path.read() if hasattr(path, "read") else path
            if not isinstance(data, bytes | bytearray | memoryview):
                raise DTypeError(
                    "resume: expected a path, bytes, or a binary file, received "
                    f"{type(data if data is path else path).__name__}"
                )
            table = checked(read_state_bytes(data, owner), owner)
        other = None if model is None else os.fspath(model)
        pipeline = cls._from_portable(table, owner, None, other, on_change, map)
        pipeline._last_checkpoint = last
        return pipeline

    def __reduce__(
        self,
    ) -> tuple[Callable[..., Pipeline], tuple[object, ...], dict[str, LastCheckpoint]]:
        with self._lock.lock:
            more = {"_last_checkpoint": copy.copy(self._last_checkpoint)}
            if self._scorer is None:
                saved = (self.config, self._state_table, self._model_file, self._name, self._start)
                return Pipeline._unpickled, saved, more
            table = self._header().attach(self.state.to_arrow(), self._folder)
            content = (table, "the pickled pipeline", self._state_table)
            return Pipeline._from_portable, content, more

    @staticmethod
    def _unpickled(
        config: Config,
        state_table: pa.Table | None,
        model_file: ModelFile | None,
        name: str | None = None,
        start: Start = "init",
    ) -> Pipeline:
        pipeline = Pipeline(config, state_table, name, start)
        pipeline._model_file = model_file
        return pipeline

    def _header(self) -> CheckpointHeader:
        """Return everything that `resume` needs besides the state table."""
        if self._scorer is None:
            raise ConfigError("there is no checkpoint before the first call of process()")
        scorer = self._scorer
        config = self.loaded.config_with_vocabularies()
        config = config.with_kind(config.window.kind)  # as `resume` does, for the same bytes
        schema, position = scorer.bound.schema, self.position
        return CheckpointHeader(
            config, schema, scorer.counters(), position, self._model_file, self._name
        )

    @staticmethod
    def _from_portable(
        table: pa.Table,
        owner: str,
        state_table: pa.Table | None = None,
        model: str | None = None,
        on_change: OnChange | None = None,
        mapping: Mapping[str, str] | None = None,
    ) -> Pipeline:
        header = CheckpointHeader.of(table, owner)
        config = resumed_config(header.config, model, mapping)
        included = header.model if model is None else None
        pipeline = Pipeline._unpickled(config, state_table, included, header.name)
        pipeline._calls.scorer = resume_scorer(pipeline.loaded, header, table, owner, on_change)
        return pipeline

    @property
    def state(self) -> StateTable:
        """The state that `process` carries; before its first call, the state after `run`.

        Before any call or run, it is the state that both start from: [state] init or `state=`, else
        a table without streams. Raises ConfigError if neither a source nor [state] init has the
        types of the key columns.

        A state that `process` carries is live: later calls change its arrays. `to_arrow()`, or
        `pyarrow.table` of it, is a consistent copy, whatever other threads do.
        """
        with self._lock.lock:
            if self._scorer is None:
                committed = self._state_of_last_run()
                return initial_table(self.loaded) if committed is None else committed
            len(self._scorer.table)  # completes an interrupted change
            return self._scorer.table

    def _state_of_last_run(self) -> StateTable | None:
        """Return the state after the last `run`; None before the first, or if it keeps no state.

        If `process` starts from the output, return the output's state even before `run`.
        """
        if self._last_run is None and self._start != "output":
            return None
        folder = self.config.sink.folder
        if folder is None:
            return None if self._last_run is None else self._last_run.unsaved
        table = load_state(folder) if has_manifest(folder) else None
        return None if table is None else StateTable.from_arrow(table, self.loaded.initial())

    def evaluate(
        self,
        by: Literal["stream", "month"] | None = None,
        *,
        since: str | datetime | int | None = None,
        until: str | datetime | int | None = None,
        quantiles: Sequence[float] = (),
        file: str | None = None,
    ) -> Evaluation:
        """Compare the committed scores with what happened, by [target].

        The source is read again, and joined with the output by key and time: as in `windows`, a
        label is the value of the row [target] horizon later. Numbers are measured by MAE and RMSE,
        with `quantiles` (one per output) also by pinball loss and CRPS; probabilities (labels 0 and
        1, scores from 0 to 1, or one output per class) by log-loss, accuracy and AUC. Baselines are
        persistence (the value at the row itself) if there is a horizon, the value a [target] season
        before the label, and the mean label or the base rate; each is compared over the rows that
        it has a forecast for. The mean is taken over the labels that this model was trained on,
        else over those before `since`, else over the compared ones. `by` "stream" or "month" adds
        rows for each stream or month; `since` and `until` (not included) limit the times of the
        rows. Both times, if they have no offset, and months are in [source] time_zone, else in UTC.
        Rows of a stream with equal times are matched in their order; with [output] emit "last" or
        "final", only the first of them is matched. Memory depends on the number of streams, on the
        number of their rows in one season and, on Ray, on the number of rows in an epoch, but not
        on the number of all rows. The table is also written to a Parquet `file`, a path or a URI.

        Raises ConfigError without [target], MissingFileError or CheckpointError without an output,
        DataError, SinkError.
        """
        from streamrnn.jobs.evaluation import evaluate_pipeline

        return evaluate_pipeline(self.loaded, by, since, until, quantiles, file)

    def report(
        self,
        file: str | os.PathLike[str] | None = None,
        *,
        keys: Sequence[str] = (),
        since: str | datetime | int | None = None,
        until: str | datetime | int | None = None,
    ) -> ReportPage:
        """Draw the committed output on one HTML page that needs no network.

        The page shows outputs, rows, streams, features and states over time; with [target] also the
        errors, and after a fit its learning curves. The output is read twice, the source once if it
        exists, in bounded memory. `keys` (as for `outputs.drop_streams`) are up to 12 streams to
        draw one by one, in place of those with the most rows; `since` and `until` (not included)
        limit the times of the rows. The page (`ReportPage.html()`) is also written to `file`, a
        path or a URI, atomically; the only file that it may replace is an earlier report.
        `ReportPage.as_dict()` has the numbers behind the pictures.

        Raises MissingFileError or CheckpointError without an output; ConfigError without [sink]
        path, for an unknown key or too many keys, and for a `file` that exists and is not a report,
        is the model, or lies in the source or an output; SinkError; UnsupportedError if the page is
        to be written and vl-convert is not installed.
        """
        draw = load_plugin("report", "pipeline")
        page: ReportPage = draw(self, self._name, file, keys, since, until)
        return page

    def validate(self) -> list[str]:
        """Check config, model, schemas and footers of all source files; return notes.

        Notes warn of nulls with nulls = "error", of values outside `valid`, and of values far from
        the mean of the model's `Normalization`, as far as footers record them. Before the first
        fit, everything but the model file is checked, as the first note says, and the errors that
        `fit` would raise are raised. With a model, a note says what `fit` would refuse.
        """
        notes = validate(self._loaded_before_fit())
        trained = "loaded" in vars(self)
        if not trained:
            notes.insert(
                0,
                f"[model] path: {location(self.config.model.path)}: no such file yet. All else was "
                "checked, with an untrained model. Train it with: streamrnn fit PIPELINE",
            )
        else:
            notes += notes_on_calibration(self.loaded)
        train, target = self.config.train, self.config.target
        if train != type(train)() or (target.column and not trained):
            from streamrnn.jobs.fitting import FitOptions, fit_job

            try:
                fit_job(self.config, self._state_table, FitOptions()).check()
            except StreamRNNError as error:
                if not trained:
                    raise
                notes.append(f"runs are not affected, but fit would refuse this pipeline: {error}")
        return notes

    def feature_statistics(self) -> list[dict[str, Any]]:
        """Return nulls, minimum and maximum of each feature, with the model's normalization.

        They are taken from the footers of all files; no rows are read.
        """
        return feature_statistics(self._loaded_before_fit())

    def explain(self) -> dict[str, Any]:
        """Return what a run would do: files, rows, inputs, memory, and where it would resume.

        Values are as in JSON; sizes are in bytes.
        """
        return explain(self.loaded)

    def mermaid(self) -> str:
        """Return the pipeline as a Mermaid flowchart, with the facts of `explain`."""
        return mermaid(self.loaded)
