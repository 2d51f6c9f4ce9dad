"""The pipeline, as Python and the command line see it."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import pyarrow as pa

from streamrnn.config.load import Config
from streamrnn.display import count, html_table, listed, location
from streamrnn.errors import ConfigError, DTypeError, StateError
from streamrnn.kernels import Compiled
from streamrnn.pipeline.compiling import compile_kernels
from streamrnn.pipeline.explain import explain, validate
from streamrnn.pipeline.preflight import open_source
from streamrnn.pipeline.run import Job
from streamrnn.scoring import starting_table
from streamrnn.scoring.bind import BoundPipeline, LoadedPipeline
from streamrnn.scoring.options import RunOptions
from streamrnn.scoring.scorer import Scored, Scorer
from streamrnn.scoring.summary import Progress, Summary
from streamrnn.sources import Origin, Rows, select, used_schema
from streamrnn.states import OwnLock, StateTable, read_state_file, write_state_file

_LOGGER = logging.getLogger("streamrnn.pipeline")
_AGAIN = "Restore it from a backup, or write it again."
_BATCH = "the batch"
_SESSION = b"streamrnn.session"


class Pipeline:
    """A pipeline file with its model loaded and checked.

    `run` reads the source and writes the sink; `process` scores Arrow data that the caller has,
    with the state carried inside. Several threads may call `process`, `finish`, `checkpoint` and
    `state`, and pickle it: they take turns. Whatever ends `process` early, an interrupt at any
    moment too, the state is as it was before the call, or as it is after it.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._scorer: Scorer | None = None
        self._turn = OwnLock()
        self._rejects: pa.RecordBatch | None = None
        self._rejects_here = threading.local()

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Pipeline:
        """Read a pipeline file; `overrides` are texts such as "window.lanes=32".

        Raises ConfigError with all that is wrong.
        """
        return cls(Config.load(path, overrides))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pipeline:
        """A pipeline from the tables of a pipeline file as dicts. Raises ConfigError."""
        return cls(Config.parse(data))

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {value}" for name, value in self._inside())
        return f"<Pipeline: {facts}>"

    def _repr_html_(self) -> str:
        return html_table("Pipeline", self._inside())

    def _inside(self) -> list[tuple[str, str]]:
        """What it reads, runs and writes, without a look at a file or a wait for a thread."""
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
        """Model, contract and outputs, checked against each other when first asked for."""
        return LoadedPipeline(self.config)

    def run(
        self,
        *,
        full_refresh: bool = False,
        force: bool = False,
        follow: bool = False,
        poll: float = 1.0,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Summary:
        """Score what is new in the source since the last run, and commit it to the sink.

        `full_refresh` forgets output and state first; `force` goes on although a used file
        changed; `follow` looks for new files every `poll` seconds until `stop` is set. Once it is
        set, the run commits and ends (`Summary.interrupted` if there was more to read). Raises
        ConfigError, DataError, CheckpointError, SinkError and their kin; what is committed stays.
        """
        options = RunOptions(full_refresh, force, follow, poll, progress, stop or threading.Event())
        return Job(self.loaded, options).run()

    def compile_kernels(self) -> Compiled:
        """Compile every kernel that a run needs, and keep them where this user's runs find them.

        For the image of a container, or a node before its first run: no data is read. Returns what
        is kept, and where. Raises ConfigError where nothing can be kept.
        """
        return compile_kernels(self.loaded)

    def preview(self, limit: int) -> pa.Table:
        """What the first `limit` rows of the source give, from the initial state, as a table.

        Nothing is written, and what an earlier run committed is not looked at.
        """
        self.config.require_run()
        rows = min(limit, self.config.source.batch_rows)
        source = open_source(self.loaded, RunOptions(), rows)
        if not source.replayable:
            raise ConfigError("--limit needs a source that can be read again, not stdin")
        if self.config.source.order == "time":
            source.files = source.in_time_order(source.files)
        bound = self.loaded.bind(source.schema, source.name)
        scorer = Scorer(bound, _initial_table(bound))
        outputs, left = [], limit
        for each in source.batches():
            batch = each.batch.slice(0, left)
            read = self.loaded.contract.read(batch, each.origin)
            outputs.append(scorer.score(read).output)
            left -= batch.num_rows
            if not left:
                break
        outputs += scorer.finish()
        return pa.Table.from_batches(outputs, bound.emitter.schema)

    def process(self, data: Any) -> Any:
        """Score a RecordBatch, a Table, or anything that gives Arrow data (pandas, Polars, …).

        Returns a RecordBatch for a RecordBatch, else a Table, of the output rows in the order of
        the input; the state of each stream is carried to the next call. Rows that are rejected
        stand in `rejects` until then. Raises DataError for rows that break the contract, and then
        nothing of `data` has counted; after an interrupt all of it has, or nothing. Not for kind
        whole.
        """
        if self.loaded.kind.needs_end:
            kind = self.config.window.kind
            raise ConfigError(f'process: kind "{kind}" needs all rows at once: use run()')
        batches, schema = _batches(data)
        with self._turn.lock:
            scorer = self._bound_scorer(schema)
            if len(batches) > 1:
                scorer = scorer.copy()  # all of them count by the assignment below, or none
            scored = self._score(batches, scorer)
            self._scorer = scorer
            self._rejects = self._rejects_here.rows = _rejects_of(scored)
        if isinstance(data, pa.RecordBatch):
            return scored[0].output
        return pa.Table.from_batches([s.output for s in scored], scorer.bound.emitter.schema)

    def _score(self, batches: list[pa.RecordBatch], scorer: Scorer) -> list[Scored]:
        return [scorer.score(self._rows(batch, scorer)) for batch in batches]

    def _rows(self, batch: pa.RecordBatch, scorer: Scorer) -> Rows:
        used = used_schema(batch.schema, self.loaded.columns, _BATCH)
        origin = Origin.consecutive(_BATCH, scorer.rows_read, batch.num_rows)
        return self.loaded.contract.read(select(batch, used), origin)

    @property
    def rejects(self) -> pa.RecordBatch | None:
        """The rows that this thread's last `process` rejected, with the reason beside each.

        In a thread that has not called it: those of the last call of all. None if there are none.
        """
        here: pa.RecordBatch | None = getattr(self._rejects_here, "rows", self._rejects)
        return here

    def finish(self) -> pa.RecordBatch | None:
        """The rows that emit "final" holds back: each stream's last, since the last `finish`."""
        with self._turn.lock:
            if self._scorer is None:
                return None
            return self._scorer.final()

    def checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write the state that `process` carries, and this pipeline, to one Arrow file.

        It is there whole or not at all, and also a state table that `streamrnn state` reads.
        Raises ConfigError before the first call of `process`, SinkError.
        """
        with self._turn.lock:
            table = self._portable()
        write_state_file(table, os.fspath(path))

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> Pipeline:
        """The pipeline of a `checkpoint`, going on from its state.

        The model is read from where the pipeline says. Raises StateError if it is another one now.
        """
        table = read_state_file(os.fspath(path))
        return cls._from_portable(table, os.fspath(path))

    def __reduce__(self) -> tuple[Any, ...]:
        with self._turn.lock:
            if self._scorer is None:
                return type(self), (self.config,)
            return Pipeline._from_portable, (self._portable(), "the pickled pipeline")

    def _portable(self) -> pa.Table:
        """The state table, with what it takes to go on from it in its metadata."""
        table = self.state.to_arrow()
        assert self._scorer is not None
        session = {
            "config": self.config.model_dump_json(exclude_unset=True),
            "schema": base64.b64encode(self._scorer.bound.schema.serialize()).decode(),
            "rows": self._scorer.rows_read,
            "rejected": self._scorer.rejected,
        }
        metadata = {**table.schema.metadata, _SESSION: json.dumps(session).encode()}
        return table.replace_schema_metadata(metadata)

    @staticmethod
    def _from_portable(table: pa.Table, where: str) -> Pipeline:
        text = (table.schema.metadata or {}).get(_SESSION)
        if text is None:
            raise StateError(
                f"{where}: not a checkpoint of a pipeline. A state table alone is named in "
                "[state] init."
            )
        config, schema, counters = _read_session(text, where)
        pipeline = Pipeline(config)
        bound = pipeline.loaded.bind(schema, where)
        pipeline._scorer = Scorer(bound, starting_table(bound, table, where))
        pipeline._scorer.count_on(counters)
        return pipeline

    @property
    def state(self) -> StateTable:
        """The state that `process` carries. Raises ConfigError before the first call.

        Its arrays go on changing with it; `to_arrow()`, or `pyarrow.table` of it, is a copy that
        belongs to one moment, whatever other threads do.
        """
        with self._turn.lock:
            if self._scorer is None:
                raise ConfigError("there is no state before the first call of process()")
            len(self._scorer.table)  # completes what an interrupt left
            return self._scorer.table

    def validate(self) -> list[str]:
        """Check model, config and the schemas of all source files; notes on what is noteworthy."""
        return validate(self.loaded)

    def explain(self) -> dict[str, Any]:
        """What a run would do: files, rows, outputs, memory, and where it would go on from."""
        return explain(self.loaded)

    def _bound_scorer(self, schema: pa.Schema) -> Scorer:
        bound = self.loaded.bind(schema, _BATCH)
        if self._scorer is None:
            return Scorer(bound, _initial_table(bound))
        for field in self._scorer.bound.schema:
            if bound.schema.field(field.name).type != field.type:
                raise DTypeError(
                    f"{_BATCH}: column {field.name!r}: expected {field.type} as in the first "
                    f"one, received {bound.schema.field(field.name).type}"
                )
        return self._scorer


def _initial_table(bound: BoundPipeline) -> StateTable:
    """The state to start from; what of `[state] init` is not delta over is logged."""
    notes: list[str] = []
    table = starting_table(bound, None, "", notes)
    for note in notes:
        _LOGGER.warning("[state] init: %s", note)
    return table


def _read_session(text: bytes, where: str) -> tuple[Config, pa.Schema, dict[str, int]]:
    """What `_portable` put beside the state: the config, the schema of the rows, the counters."""
    try:
        session = json.loads(text)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(session["schema"])))
        counters = {"rows_read": session["rows"], "rejected": session.get("rejected", 0)}
        config = Config.parse(dict(json.loads(session["config"])))
    except (
        ValueError,
        LookupError,
        TypeError,
        OSError,
        RecursionError,
        pa.ArrowException,
    ) as error:
        found = f"{type(error).__name__}: {error}"
        raise StateError(f"{where}: the checkpoint is damaged: {found}. {_AGAIN}") from error
    if not all(type(n) is int and n >= 0 for n in counters.values()):
        raise StateError(f"{where}: the checkpoint is damaged: counters are {counters}. {_AGAIN}")
    return config, schema, counters


def _table(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return pa.table(data)
    raise DTypeError(
        "process: expected a RecordBatch, a Table, or an object with the Arrow PyCapsule "
        f"interface, received {type(data).__name__}"
    )


def _batches(data: Any) -> tuple[list[pa.RecordBatch], pa.Schema]:
    """One record batch, or none, and the schema. (More where text takes over 2 GiB.)"""
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    table = _table(data).combine_chunks()
    return table.to_batches(), table.schema


def _rejects_of(scored: list[Scored]) -> pa.RecordBatch | None:
    """The rejected rows of a call; None if there are none."""
    rejects = [each.rejects for each in scored if each.rejects is not None]
    if not rejects:
        return None
    return pa.Table.from_batches(rejects).combine_chunks().to_batches()[0]
