"""The part of `Pipeline` that scores the rows of a caller, and carries their state."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, Self, TypeVar

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.errors import ConfigError, DTypeError
from streamrnn.jobs.preflight import ModelFile, reader
from streamrnn.jobs.running import RunJob
from streamrnn.jobs.session.calls import Calls
from streamrnn.jobs.session.checkpoint import (
    CheckpointHeader,
    LastCheckpoint,
    Readable,
    Writable,
    check_arguments,
    check_writable,
    included_model,
    resume_scorer,
    resumed_config,
    write_all,
)
from streamrnn.jobs.session.data import rejects_of
from streamrnn.jobs.session.session import Session, open_session
from streamrnn.jobs.session.starting import (
    GivenState,
    InitialState,
    Start,
    first_scorer,
    initial_table,
    require_output,
    warn_of_output,
)
from streamrnn.stream.checkpoints import has_manifest, load_state, read_manifest
from streamrnn.stream.config import Config
from streamrnn.stream.config.values import OnChange
from streamrnn.stream.scoring import LoadedPipeline, RowCounts
from streamrnn.stream.scoring.scorer import Scorer
from streamrnn.stream.states import (
    OwnLock,
    StateTable,
    checked,
    read_state_bytes,
    state_bytes,
    with_checksum,
)
from streamrnn.stream.states.positions import CallPosition, from_json

_Pipeline = TypeVar("_Pipeline", bound="StatefulPipeline")


class StatefulPipeline:
    """A pipeline file with its model, and the state of the rows that `process` has scored."""

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
            advice = '. A state in a folder with the name output is state="./output"'
            require_output(config, 'state="output"', advice)
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
    ) -> Self:
        """Read a pipeline file; `overrides` are strings such as "window.lanes=32".

        With `state` "output", `process` starts where the last run into [sink] path ended: with the
        state of that run, read at the first call, and with the types of its columns. Before the
        first commit, `process` starts from the initial state, and logs a warning. `run` is not
        affected.

        Any other `state` replaces [state] init: a state table in memory (a pa.Table, a StateTable,
        or an object with the Arrow PyCapsule interface), or the path of an exported table or an
        output folder (a folder with the name output is "./output"). A table in memory is treated
        like the same table in a file: with the same checks, messages and [state] map. Its name in
        messages is "memory:" and a digest. A StateTable is copied.

        Raises ConfigError, which lists all problems; DTypeError or DataError for a `state` that is
        not an Arrow table or is damaged.
        """
        initial = InitialState.of(state)
        config = Config.load(path, overrides, *initial.overrides)
        return cls(config, initial.table, os.path.basename(path), initial.start)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, state: GivenState | None = None) -> Self:
        """Make a pipeline from dicts: the tables of a pipeline file.

        `state` and errors are as in `from_toml`.
        """
        initial = InitialState.of(state)
        return cls(Config.parse(initial.set_in(data)), initial.table, start=initial.start)

    @cached_property
    def loaded(self) -> LoadedPipeline:
        """Model, contract and outputs, loaded and checked on first use."""
        return self._load()

    def _load(self) -> LoadedPipeline:
        folder, read = self.config.sink.folder, reader(self._state_table)
        has_commits = partial(has_manifest, folder) if folder is not None else lambda: False
        with self._model_file.on_disk() if self._model_file else nullcontext() as path:
            return LoadedPipeline(self.config, read, path, has_commits)

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
        earlier value to repeat), "warmup", "no present value" (of [target] as = "change"), or
        "waiting" (for the rest of a window, or of `last_of` rows). Rows that are late (unless
        [source] late is "apply"), repeated or invalid do not make other rows fail: they are
        counted, and are neither in the state nor in `rejects`, whose
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

        The rows of a call that raised an error are not counted. Checkpoints and pickles do not keep
        the counts: a pipeline that resumes counts from 0. (The counters in checkpoints only number
        the rows in messages, and limit rejects.)
        """
        with self._lock.lock:
            return self._calls.counts

    def write_metrics(self, path: str | os.PathLike[str]) -> None:
        """Write `counts`, streams, newest time and lag to a file for Prometheus, as `run` does.

        The counts are added to the counts that the file had at the first call for this path, so
        that totals continue when jobs resume one after another; jobs that run at once need a file
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
        the next session resumes from the position of the last commit, `Session.position`.

        A session writes rows in the order in which they are scored; a run does not recognize these
        rows if the files that it reads have them, too. Small parts are merged when there are 60 of
        them, in an output or a partition.

        Raises CheckpointError if a run, or another session, has locked the output, or another
        pipeline has written it; ConfigError for kind whole, for emit "final", and for a [sink] path
        that is not a folder; SinkError; PublishError, at the end, if a table of [publish] could not
        be updated.
        """
        with open_session(self._load(), self._label) as session:
            yield session

    def finish(self) -> pa.RecordBatch | None:
        """Return what emit "final" held back since the last `finish`: each stream's last row.

        Returns None before the first call, and for another emit.
        """
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
        threads continue meanwhile; the file has the state between two of these calls. Raises
        ConfigError before the first call of `process`, SinkError; MissingFileError or
        UnsupportedError if the model file is gone, changed, or refers to other files.

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
        check_writable(path)
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
                write_all(path, state_bytes(with_checksum(table)))

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str] | bytes | Readable,
        model: str | os.PathLike[str] | None = None,
        on_change: OnChange | None = None,
        map: Mapping[str, str] | None = None,
    ) -> Self:
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
        pipeline = _from_portable(cls, table, owner, None, other, on_change, map)
        pipeline._last_checkpoint = last
        return pipeline

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[object, ...], dict[str, object]]:
        with self._lock.lock:
            more: dict[str, object] = {"_last_checkpoint": copy.copy(self._last_checkpoint)}
            if self._scorer is None:
                more["_model_file"] = self._model_file
                return type(self), (self.config, self._state_table, self._name, self._start), more
            table = self._header().attach(self.state.to_arrow(), self._folder)
            content = (type(self), table, "the pickled pipeline", self._state_table)
            return _from_portable, content, more  # cloudpickle copies the code of a class method

    def _header(self) -> CheckpointHeader:
        """Return everything that `resume` needs besides the state table."""
        if self._scorer is None:
            raise ConfigError("there is no checkpoint before the first call of process()")
        scorer = self._scorer
        config = self.loaded.config_with_vocabularies()
        config = config.with_keys(window={"kind": config.window.kind})  # as in `resumed_config`
        schema, position = scorer.bound.schema, self.position
        return CheckpointHeader(
            config, schema, scorer.counters(), position, self._model_file, self._name
        )

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


def _from_portable(
    kind: type[_Pipeline],
    table: pa.Table,
    owner: str,
    state_table: pa.Table | None = None,
    model: str | None = None,
    on_change: OnChange | None = None,
    mapping: Mapping[str, str] | None = None,
) -> _Pipeline:
    header = CheckpointHeader.of(table, owner)
    config = resumed_config(header.config, model, mapping)
    pipeline = kind(config, state_table, header.name)
    pipeline._model_file = header.model if model is None else None
    pipeline._calls.scorer = resume_scorer(pipeline.loaded, header, table, owner, on_change)
    return pipeline
