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
from streamrnn.errors import ConfigError, DTypeError, StateError
from streamrnn.pipeline.explain import explain, validate
from streamrnn.pipeline.preflight import source_files
from streamrnn.pipeline.run import Job
from streamrnn.scoring import starting_table
from streamrnn.scoring.bind import Bound, Parts
from streamrnn.scoring.options import RunOptions
from streamrnn.scoring.scorer import Scorer
from streamrnn.scoring.summary import Progress, Summary
from streamrnn.sources import by_time, select, used_schema
from streamrnn.states import StateTable, read_state_file, write_state_file

_LOGGER = logging.getLogger("streamrnn.state")
_AGAIN = "Restore it from a backup, or write it again."
_BATCH = "the batch"
_SESSION = b"streamrnn.session"


class Pipeline:
    """A pipeline file with its model loaded and checked.

    `run` reads the source and writes the sink; `process` scores Arrow data that the caller has,
    with the state carried inside. One pipeline is for one thread at a time.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._scorer: Scorer | None = None
        self._rows = 0
        self.rejects: pa.RecordBatch | None = None

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

    @cached_property
    def parts(self) -> Parts:
        """Model, contract and outputs, checked against each other when first asked for."""
        return Parts(self.config)

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
        return Job(self.parts, options).run()

    def preview(self, limit: int) -> pa.Table:
        """What the first `limit` rows of the source give, from the initial state, as a table.

        Nothing is written, and what an earlier run committed is not looked at.
        """
        self.config.require_run()
        if self.config.source.piped:
            raise ConfigError("--limit needs a source that can be read again, not stdin")
        files = source_files(self.parts, RunOptions())
        rows = min(limit, self.config.source.batch_rows)
        source = self.parts.source(files, rows)
        if self.config.source.order == "time":
            source.files = by_time(source, files)
        bound = self.parts.bind(source.schema, source.files[0].path)
        scorer = Scorer(bound, _initial_table(bound))
        outputs, left = [], limit
        for each in source.batches():
            batch = each.batch.slice(0, left)
            read = self.parts.contract.read(batch, each.file, each.first_row)
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
        nothing of `data` has counted. Not for kind whole.
        """
        if self.config.window.kind == "whole":
            raise ConfigError('process: kind "whole" needs all rows at once: use run()')
        batches = _batches(data)
        schema = batches[0].schema if batches else _table(data).schema
        scorer = self._bound_scorer(schema)
        outputs, rejects = [], []
        for batch in batches:
            used = used_schema(batch.schema, scorer.bound.parts.columns, _BATCH)
            rows = self.parts.contract.read(select(batch, used), _BATCH, self._rows)
            scored = scorer.score(rows)
            self._rows += batch.num_rows
            outputs.append(scored.output)
            rejects += [scored.rejects] if scored.rejects is not None else []
        self.rejects = rejects[-1] if rejects else None
        if isinstance(data, pa.RecordBatch):
            return outputs[0]
        return pa.Table.from_batches(outputs, scorer.bound.emitter.schema)

    def finish(self) -> pa.RecordBatch | None:
        """The rows that emit "final" holds back: each stream's last, since the last `finish`."""
        if self._scorer is None:
            return None
        return next(iter(self._scorer.finish()), None)

    def checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write the state that `process` carries, and this pipeline, to one Arrow file.

        It is there whole or not at all, and also a state table that `streamrnn state` reads.
        Raises ConfigError before the first call of `process`, SinkError.
        """
        write_state_file(self._portable(), os.fspath(path))

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> Pipeline:
        """The pipeline of a `checkpoint`, going on from its state.

        The model is read from where the pipeline says. Raises StateError if it is another one now.
        """
        table = read_state_file(os.fspath(path))
        return cls._from_portable(table, os.fspath(path))

    def __reduce__(self) -> tuple[Any, ...]:
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
            "rows": self._rows,
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
        bound = pipeline.parts.bind(schema, where)
        pipeline._scorer = Scorer(bound, starting_table(bound, table, where))
        pipeline._scorer.count_on(counters)
        pipeline._rows = pipeline._scorer.rows_read
        return pipeline

    @property
    def state(self) -> StateTable:
        """The state that `process` carries. Raises ConfigError before the first call."""
        if self._scorer is None:
            raise ConfigError("there is no state before the first call of process()")
        return self._scorer.table

    def validate(self) -> list[str]:
        """Check model, config and the schemas of all source files; notes on what is noteworthy."""
        return validate(self.parts)

    def explain(self) -> dict[str, Any]:
        """What a run would do: files, rows, outputs, memory, and where it would go on from."""
        return explain(self.parts)

    def _bound_scorer(self, schema: pa.Schema) -> Scorer:
        if self._scorer is None:
            bound: Bound = self.parts.bind(schema, _BATCH)
            self._scorer = Scorer(bound, _initial_table(bound))
        else:
            self.parts.bind(schema, _BATCH)
            used = used_schema(schema, self.parts.columns, _BATCH)
            for field in self._scorer.bound.schema:
                if used.field(field.name).type != field.type:
                    raise DTypeError(
                        f"{_BATCH}: column {field.name!r}: expected {field.type} as in the first "
                        f"one, received {used.field(field.name).type}"
                    )
        return self._scorer


def _initial_table(bound: Bound) -> StateTable:
    """The state to start from; what of `[state] init` is not taken over is logged."""
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


def _batches(data: Any) -> list[pa.RecordBatch]:
    if isinstance(data, pa.RecordBatch):
        return [data]
    batches: list[pa.RecordBatch] = _table(data).combine_chunks().to_batches()
    return batches
