"""A session: a run's loop and commit protocol, with the caller as the source."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import get_args

import pyarrow as pa

from streamrnn.base.storage.threads import BackgroundWriter
from streamrnn.errors import ConfigError, DTypeError, SinkError
from streamrnn.jobs.outputs import merge_small_parts
from streamrnn.jobs.preflight import check_sink, file_source, refuse_own_output, seen_by_init
from streamrnn.jobs.running import FolderDestination, RunPublisher, discard_replay, open_folder
from streamrnn.jobs.session.calls import Answer, Calls
from streamrnn.jobs.session.data import BATCH
from streamrnn.jobs.session.starting import (
    check_first,
    first_scorer,
    require_output,
    schema_before_rows,
    scorer_after,
)
from streamrnn.stream.checkpoints import Snapshot, UsedFile, used_elsewhere
from streamrnn.stream.config.values import LiveChange
from streamrnn.stream.scoring import (
    BoundPipeline,
    LoadedPipeline,
    RowCounts,
    RunOptions,
    Scorer,
    Summary,
    compile_beside,
    taken_over,
)
from streamrnn.stream.sources import Reading, canonical_name, list_of_format
from streamrnn.stream.states.positions import CallPosition, from_json, to_json

_LOGGER = logging.getLogger("streamrnn.pipeline")
_MOST_PARTS = 60
"""Number of small parts, in an output or one of its partitions, at which they are merged."""
_SMALL_PART = 8 << 20
_QUEUED = 256
"""Largest number of batches of rows that wait while a commit is written."""
_RENEW_SECONDS = 60.0


@contextmanager
def open_session(loaded: LoadedPipeline, label: str) -> Iterator[Session]:
    """Own the output of a pipeline; `label` names it in metrics: see `Pipeline.session`."""
    require_output(loaded.config, "session")
    if loaded.kind.needs_end:
        raise ConfigError(f'session: kind "{loaded.kind.name}" needs all rows at once; use run()')
    if loaded.config.output.emit == "final":
        raise ConfigError(
            'session: [output] emit = "final" writes the last row of each stream when the input '
            'ends, but a session has no such end. Set emit = "every" or "last", or use run()'
        )
    check_sink(loaded.config)
    refuse_own_output(loaded, ())
    with open_folder(loaded, RunOptions()) as output, BackgroundWriter(_QUEUED) as writer:
        session = Session(loaded, label, output, writer)
        try:
            yield session
        except BaseException:
            session._end("its block has ended")
            raise
        session._commit(last=True)
        session._tables.finish(output.last)


class Session:
    """Rows of a caller, scored into the output of a pipeline: see `Pipeline.session`.

    Several threads may use it. Calls of `process` run one at a time, even while a commit is
    written.
    """

    def __init__(
        self,
        loaded: LoadedPipeline,
        label: str,
        output: FolderDestination,
        writer: BackgroundWriter,
    ) -> None:
        self._loaded, self._label = loaded, label
        self._output, self._writer = output, writer
        self._folder = output.folder
        self._tables = RunPublisher(loaded.config, Summary())
        self._calls = Calls(lambda: self._loaded, self._first_scorer, self._begin)
        self._lock = threading.RLock()
        self._committing = threading.Lock()  # a commit builds on the files of the one before it
        last = output.last
        self._live_before = 0 if last is None else last.live
        self._partly = None if last is None else last.position  # where a run was interrupted
        self._committed = self._mark
        self._commits = 0
        self._close_files: Callable[[], Sequence[str]] | None = None
        self._renewed = time.monotonic()
        self._over = ""
        self._tables.warn_of_abandoned(last)
        self._tables.publish(last)

    def process(
        self, data: object, position: CallPosition | None = None, *, align: bool = False
    ) -> pa.RecordBatch | pa.Table:
        """Score data, and add its rows to the output: they are in the next commit.

        Data, `position`, `align`, result and errors are as in `Pipeline.process`. After an error
        caused by the data, none of its rows is counted or in the output. Rejected rows go to the
        rejects. Raises SinkError if the session is over.
        """
        return self._processed(data, position, align)

    def _processed(
        self, data: object, position: CallPosition | None, align: bool, requests: bool = False
    ) -> pa.RecordBatch | pa.Table:
        with self._lock:
            self._refuse_over()
            before = self._mark
            self._renew()
            try:
                answer = self._calls.process(data, position, align, requests)
                self._queue(answer)
            except BaseException as error:
                if self._mark != before:  # the state includes rows that the output will not have
                    self._end(f"{type(error).__name__}: {error}")
                raise
        return answer.output

    def process_requests(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Score the rows of requests, all or none; return a row for each, as `align` does.

        A row that is an error according to [source] bad, late or repeated raises the same DataError
        or DTypeError as in a run. Positions do not change. Raises SinkError if the session is over.
        """
        answer = self._processed(rows, None, align=True, requests=True)
        assert isinstance(answer, pa.RecordBatch)
        return answer

    def read_from(self, close: Callable[[], Sequence[str]]) -> None:
        """Let commits count rows of calls as rows of files, whose paths `close` returns.

        A run with these files as its source then finds nothing new in them. `close` ends the
        files; it is called when a commit copies the state. Until then the files may grow by the
        rows of calls.
        """
        self._close_files = close

    def unused(self, paths: Sequence[str], *, by_any: bool = False) -> list[str]:
        """Return the files among these that the last commit has not used.

        A file that was used from another folder, as the output or the files were moved, counts as
        used. With `by_any`, also return the files that at least one of the commits to which
        `rewind` can return has not used.
        """
        used = self._used(by_all=by_any)
        names = {file.path for file in used}
        new = [path for path in paths if canonical_name(path) not in names]
        files = [file for path in new for file in list_of_format(path, "arrow")]
        moved = used_elsewhere(used, files, self._loaded.source(files)) if files else ()
        return [path for path in new if canonical_name(path) not in moved]

    def used(self) -> list[str]:
        """Return the names of the files that the last commit has used."""
        return [file.path for file in self._used()]

    def _used(self, *, by_all: bool = False) -> Sequence[UsedFile]:
        """Return the files that the last commit has used; `by_all`: and every retained commit."""
        last = self._output.last
        if last is None:
            return ()
        counts = [kept.sources for kept in last.kept] if by_all else []
        return last.sources[: min(counts, default=len(last.sources))]

    @property
    def replaced_model(self) -> str | None:
        """The fingerprint of the last commit's model if this session has another one, else None."""
        last = self._output.last
        return None if last is None or last.model == self._loaded.fingerprint else last.model

    def states(self, keys: Sequence[pa.Array]) -> pa.Table:
        """Return the rows of the state table that belong to the streams with these keys.

        `keys` are key columns. A stream that has no state is left out.
        """
        with self._lock:
            table = self._calls.scorer.table if self._calls.scorer is not None else None
            if table is None:
                return pa.table({})
            slots = table.find(keys, add=False)
            return table.to_arrow(slots[slots >= 0])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Prevent commits and other threads' calls between the calls in the block.

        After an error in the block the session is over. Raises SinkError if it was over before.
        """
        with self._lock, self._whole():
            self._refuse_over()
            yield

    def start(self) -> tuple[pa.Schema, pa.Schema | None]:
        """Load the state before the first call; return the columns of calls and of answers.

        Types come from the last commit, else from the source's files, else from [state] init. If a
        column has no type there, its type is null: then the first call loads the state, and None is
        returned for the columns of answers.
        """
        with self._lock:
            self._refuse_over()
            if self._calls.scorer is None:
                schema = schema_before_rows(self._loaded, self._output.last)
                if any(pa.types.is_null(field.type) for field in schema):
                    return schema, None
                self._processed(schema.empty_table(), None, align=True, requests=True)
            assert self._calls.scorer is not None
            bound = self._calls.scorer.bound
            return bound.schema, bound.emitter.aligned_schema

    def commit(self) -> int | None:
        """Commit the rows of all earlier calls, with state and position; wait until it is done.

        Other threads may call meanwhile; their rows are in the next commit. Returns the
        number of the last commit, None if there is none. Raises SinkError, CheckpointError and
        StateError: then the session is over, and what was not committed is lost.
        """
        self._commit(last=False)
        return None if self._output.last is None else self._output.last.commit

    def load_model(self, path: str | os.PathLike[str], on_change: LiveChange) -> None:
        """Replace the model with the model in another file, from the next call on.

        With `on_change` "carry" the new model takes over the state of each stream, as in
        `[model] on_change`; with "reset" each stream starts again. Calls of other threads continue
        while it is loaded and its kernels are compiled in another process; the rows of earlier
        calls are committed with the old model. The state table is not copied if it has the same
        columns for both models.

        The next run or session needs this model in [model] path. Raises MissingFileError and the
        other errors of `streamrnn.load_model` if the file cannot be loaded; ConfigError, StateError
        or CheckpointError if the model does not fit the rows (the last commit, if this session has
        no rows yet). Then the old model stays in use. Also raises what `commit` raises.
        """
        path = os.fspath(path)
        if on_change not in get_args(LiveChange):
            raise ConfigError(_not_here(on_change, path))
        config = self._loaded.config.with_keys(model={"path": path, "on_change": on_change})
        loaded = LoadedPipeline(config, self._loaded.read_init, has_commits=self._has_rows)
        compile_beside(loaded)
        with self._committing:
            self._calls.drop_idle(self._lock)
            with self._lock:
                self._refuse_over()
                self._take_over(loaded, on_change)
            with self._whole():
                self._writer.wait()

    def _has_rows(self) -> bool:
        return self._calls.scorer is not None or self._output.last is not None

    def _take_over(self, loaded: LoadedPipeline, on_change: LiveChange) -> None:
        before, output = self._calls.scorer, FolderDestination(self._folder, loaded, new_model=True)
        if before is None:
            check_first(loaded, output.last, self._folder.load_state())
        else:
            bound = loaded.bind(before.bound.schema, BATCH)
            if bound.emitter.schema != before.bound.emitter.schema:
                names, expected = ", ".join(loaded.names), ", ".join(before.bound.loaded.names)
                raise ConfigError(
                    f"load_model: {loaded.config.model.path}: expected the same outputs as before, "
                    f"{expected}; received {names}. Set [output] names, or write to another [sink] "
                    "path"
                )
            notes: list[str] = []
            hand_over = taken_over(bound, before.table, on_change, notes)
            with self._whole():
                self._queue_commit(last=False)
                self._writer.do(partial(output.begin, bound))
                self._calls.switch_to(before.succeeded_by(bound, hand_over()))
            for note in notes:
                _LOGGER.warning("%s: %s", self._folder.path, note)
        self._loaded, self._output = loaded, output

    @property
    def position(self) -> CallPosition | None:
        """The position of the last call, in this session or earlier ones; None if it had none.

        A position of partitions has every partition, each with its last position.
        """
        with self._lock:
            if self._calls.scorer is not None:
                return self._calls.position
            last = self._output.last
            return None if last is None else from_json(last.positions)

    @property
    def counts(self) -> RowCounts:
        """What became of the rows of all calls of this session; a copy.

        The rows of a call that raised an error are not counted.
        """
        with self._lock:
            return self._calls.counts

    def write_metrics(self, path: str | os.PathLike[str]) -> None:
        """Write counts, streams, newest time and lag to a file for Prometheus.

        This is done as in `Pipeline.write_metrics`. Raises ConfigError and SinkError.
        """
        with self._lock:
            self._calls.write_metrics(path, self._label)

    @property
    def _mark(self) -> tuple[object, ...]:
        """A value that changes once rows have advanced the state."""
        scorer = self._calls.scorer
        if scorer is None:
            return ()
        len(scorer.table)  # completes an interrupted change
        return scorer, scorer.totals, scorer.position

    def _first_scorer(self, schema: pa.Schema) -> Scorer:
        last = self._output.last
        if last is None:
            return first_scorer(self._loaded, schema, "init")
        return scorer_after(self._loaded, schema, last, self._folder.load_state())

    def _begin(self, bound: BoundPipeline) -> None:
        """Prepare the output for rows with these columns."""
        for field in bound.emitter.schema:
            if pa.types.is_null(field.type):
                raise DTypeError(
                    f"session: column {field.name!r}: no row has a value, so its type, which the "
                    "output needs, is unknown. Begin with Arrow data that has the type, or list "
                    "the columns of the output without it, in [output] columns"
                )
        self._writer.wait()
        self._tables.check(bound.emitter.schema)
        self._output.begin(bound)
        source = self._loaded.config.source
        if self._output.last is None and source.path is not None and not source.piped:
            # The first commit records the files that the initial state has seen, as a run's does.
            files = file_source(bound.loaded, follow=True)
            if (seen := seen_by_init(bound.loaded, files)) is not None:
                self._partly = self._output.plan(files, False, seen).position

    def _renew(self) -> None:
        """Keep the output locked between commits (on object stores)."""
        if time.monotonic() - self._renewed > _RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._writer.do(self._folder.renew)

    def _queue(self, answer: Answer) -> None:
        for item in answer.scored:
            if item.output.num_rows:
                self._writer.do(partial(self._folder.write, item.output))
            if item.rejects is not None:
                self._writer.do(partial(self._folder.reject, item.rejects))

    def _commit(self, last: bool) -> None:
        with self._committing, self._whole():
            with self._lock:
                self._refuse_over()
                due = self._is_due(last)
            if due:
                self._calls.drop_idle(self._lock)
            with self._lock:
                self._refuse_over()
                self._queue_commit(last)
                if last:
                    self._end("its block has ended")
            self._writer.wait()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """End the session after an error or an interrupt in the block, such as of a commit."""
        try:
            yield
        except BaseException as error:
            self._end(f"{type(error).__name__}: {error}")
            raise

    def _queue_commit(self, last: bool) -> None:
        """Copy the state, and let the writer commit it, unless the last commit has it.

        If the session has committed before, its `last` commit is made in any case, so that `rewind`
        can return to it.
        """
        scorer, mark, before = self._calls.scorer, self._mark, self._output.last
        if scorer is None or not self._is_due(last):
            return
        counters = {} if before is None else before.counters
        in_files = self._close_files is not None
        live = self._live_before + (0 if in_files else self._calls.accepted)
        commit = partial(
            self._folder.commit,
            state=self._folder.delta(Snapshot.begun(scorer.table)),
            position=self._partly,
            positions=to_json(scorer.position),
            counters={**counters, "live": live},
            complete=self._partly is None if before is None else before.complete,
            end_of_run=last,
        )
        closed = () if self._close_files is None else self._close_files()
        self._writer.do(partial(self._commit_with, closed, scorer.bound.loaded, commit))
        self._writer.do(self._after_commit)
        scorer.table.mark_clean()
        self._committed = mark
        self._commits += 1

    def _is_due(self, last: bool) -> bool:
        """Return whether a commit has something new, or is the `last` of several in a session."""
        return self._mark != self._committed or bool(last and self._commits)

    def _commit_with(
        self, paths: Sequence[str], loaded: LoadedPipeline, commit: Callable[..., object]
    ) -> None:
        """Make a commit that also records used files."""
        files = [file for path in paths for file in list_of_format(path, "arrow")]
        source = loaded.source(files)
        readings = {file.name: Reading(source.content(file)) for file in files}
        commit(sources=files, readings=readings)

    def _after_commit(self) -> None:
        """Publish a commit, and merge small parts if there are many."""
        if self._commits == 1:
            discard_replay(str(self._loaded.config.sink.folder))
        self._tables.after_commit(self._output.last)
        limits = _MOST_PARTS, _SMALL_PART
        if merge_small_parts(self._folder, *limits, across=True) is not None:
            self._tables.publish(self._output.last, merged=True)

    def _end(self, why: str) -> None:
        with self._lock:
            self._over = self._over or why

    def _refuse_over(self) -> None:
        if self._over:
            last = self._output.last
            raise SinkError(
                f"{self._folder.path}: this session is over: {self._over}. Open another one: it "
                f"resumes from {'the start' if last is None else f'commit {last.commit}'}"
            )


def _not_here(on_change: object, path: str) -> str:
    if on_change != "replay":
        return f'load_model: on_change: expected "carry" or "reset", received {on_change!r}'
    return (
        "load_model: a replay reads earlier rows of the source, which a session does not. End the "
        f"session, set [model] path to {path}, run `streamrnn run PIPELINE --new-model replay`, "
        "and open a session again"
    )
