"""The state that a pipeline starts from: of [state] init, in memory (`state=`), of its output."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Self

import pyarrow as pa

from streamrnn.base.display import count, location
from streamrnn.errors import ConfigError, DataError, MissingFileError, StreamRNNError
from streamrnn.jobs.outputs import read_states
from streamrnn.jobs.pipeline.arrow_data import BATCH
from streamrnn.jobs.pipeline.preflight import open_source, run_config
from streamrnn.stream.checkpoints import (
    check_same_pipeline,
    has_manifest,
    load_state,
    read_manifest,
)
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import (
    BoundPipeline,
    LoadedPipeline,
    RunOptions,
    Scorer,
    starting_table,
)
from streamrnn.stream.sources import canonical_name, in_earlier_types
from streamrnn.stream.states import StateTable, as_table, key_names, state_digest
from streamrnn.stream.states.positions import from_json

GivenState = pa.Table | StateTable | str | os.PathLike[str]
"""A state table, "output", or the path of an exported table or of an output folder."""
Start = Literal["init", "given", "output"]
"""Where `process` starts: as the pipeline file says, from `state=`, from its own output."""

_IN_MEMORY = "memory:"
_LOGGER = logging.getLogger("streamrnn.pipeline")


def start_of(state: object) -> Start:
    """Return where a pipeline with this `state=` starts."""
    if state is None:
        return "init"
    return "output" if isinstance(state, str) and state == "output" else "given"


def require_output(config: Config) -> None:
    """Raise ConfigError if there can be no output to start from."""
    if config.sink.folder is None:
        path = "none" if config.sink.path is None else repr(config.sink.path)
        raise ConfigError(
            f'state="output": expected [sink] path to name the folder of an output, received {path}'
            '. A state in a folder with the name output is state="./output"'
        )


class InitialState(NamedTuple):
    """A state by the name that [state] init has for it; `table` is None where that is a path."""

    name: str
    table: pa.Table | None

    @classmethod
    def of(cls, state: Any) -> Self:
        """Name a path or a table. Raises DTypeError, and DataError for a damaged table.

        A table in memory is named by its content, so that an output folder refuses a rerun with
        another table, as it refuses one with another path.
        """
        if isinstance(state, str | os.PathLike):
            return cls(os.fspath(state), None)
        table = as_table(state, "state")
        return cls(f"{_IN_MEMORY}{state_digest(table)[:16]}", table)

    @property
    def override(self) -> str:
        """The override of a pipeline file that names it."""
        return f"state.init={json.dumps(self.name, ensure_ascii=False)}"

    def set_in(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tables of a pipeline file with this state in place of theirs."""
        state = data.get("state", {})
        return {**data, "state": {**state, "init": self.name}} if _is_table(state) else dict(data)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def reader(given: pa.Table | None) -> Callable[[str], pa.Table]:
    """Make a reader of the table that [state] init names; `given` is one in memory."""

    def read(name: str) -> pa.Table:
        if not name.startswith(_IN_MEMORY):
            return read_states(name, seen=True)
        if given is None:
            raise ConfigError(
                f"[state] init: {name} is a state that was given in memory. A checkpoint does not "
                "keep it; pass it again as state= of Pipeline.from_toml or from_dict"
            )
        return given

    return read


def initial_table(loaded: LoadedPipeline) -> StateTable:
    """Return the state that `process`, or a first run, starts from.

    Raises ConfigError if neither [state] init nor a source of files has the types of its keys.
    """
    bound = loaded.bind(*_schema(loaded))
    return starting_table(bound, None, "", carry=loaded.config.model.carries)


def _schema(loaded: LoadedPipeline) -> tuple[pa.Schema, str]:
    """Find a schema with the types that a state table depends on, and the name of its origin."""
    config = loaded.config
    init = config.state.init
    if config.source.path is not None and not config.source.piped:
        try:
            source = open_source(loaded, RunOptions())
        except (DataError, MissingFileError):
            if init is None:
                raise
        else:
            return source.schema, source.name
    if init is None:
        raise ConfigError(
            "no state before the first call of process(), which has the types of the key columns. "
            "Call it with a batch without rows (batch.slice(0, 0)), or name a source or an initial "
            "state"
        )
    return _assumed_schema(loaded, loaded.read_init(init), init), init


def _assumed_schema(loaded: LoadedPipeline, table: pa.Table, name: str) -> pa.Schema:
    """Return the columns in use, with the types in a state table, else any valid ones."""
    contract = loaded.contract
    features = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}
    types = {feature.name: features[feature.kind] for feature in contract.features}
    types |= {contract.reset: pa.bool_()} if contract.reset else {}
    carried = list(loaded.columns or ())
    if "pending" in table.column_names:  # an output row, whose columns are carried or the model's
        made = {*loaded.names, loaded.config.output.model_column}
        fields = [f for f in table.schema.field("pending").type if f.name not in made][:-2]
        carried = carried or [field.name for field in fields]
        types |= {field.name: field.type for field in fields}
    types |= {key: table.schema.field(key).type for key in key_names(table, name)}
    if contract.time is not None and "last_time" in table.column_names:
        types[contract.time] = table.schema.field("last_time").type
    columns = contract.columns(carried)
    return pa.schema([(column, types.get(column, pa.timestamp("us"))) for column in columns])


def first_scorer(loaded: LoadedPipeline, schema: pa.Schema, start: Start) -> Scorer:
    """Return the scorer of the first call of `process`, whose data has this schema.

    Raises what a run raises that cannot start, or resume, from that state.
    """
    folder = loaded.config.sink.folder
    if start == "output" and folder is not None:
        if has_manifest(folder):
            return _output_scorer(loaded, schema, folder)
        _LOGGER.warning(
            "%s has no commit yet: streams start from the initial state", location(folder)
        )
    bound = loaded.bind(schema, BATCH)
    return Scorer(bound, logged_table(bound))


def _output_scorer(loaded: LoadedPipeline, schema: pa.Schema, folder: str) -> Scorer:
    """Return a scorer with the state, and the types of columns, of the last commit of an output."""
    last, notes = read_manifest(folder), list[str]()
    bound = loaded.bind(in_earlier_types(schema, last.config.get("source.schema", {})), BATCH)
    carries = loaded.config.model.carries
    check_same_pipeline(last, loaded.fingerprint, run_config(bound), folder, new_model=carries)
    table = starting_table(
        bound,
        load_state(folder),
        f"the state of {location(folder)}",
        notes,
        new_model=last.model != loaded.fingerprint,
        earlier_map=last.config.get("state.map", {}),
    )
    for note in notes:
        _LOGGER.warning("%s: %s", location(folder), note)
    scorer = Scorer(bound, table)
    scorer.position = from_json(last.positions)
    return scorer


def warn_of_output(config: Config) -> None:
    """Warn the caller of `process` that it does not start from the state of the output."""
    folder, init = config.sink.folder, config.state.init
    if folder is None or (init is not None and canonical_name(init) == canonical_name(folder)):
        return
    with suppress(StreamRNNError, OSError, pa.ArrowException):
        last = read_manifest(folder)
        if last.state_rows:
            warnings.warn(
                f"process starts from {'the initial state' if init is None else '[state] init'}: "
                f"{location(folder)}, the output of this pipeline, has the state of "
                f"{count(last.state_rows, 'stream')} after commit {last.commit}. To start from "
                'it, load the pipeline with state="output".',
                UserWarning,
                stacklevel=3,
            )


def logged_table(bound: BoundPipeline) -> StateTable:
    """Return the state to start from; log which parts of `[state] init` are ignored."""
    notes: list[str] = []
    table = starting_table(bound, None, "", notes, carry=bound.loaded.config.model.carries)
    for note in notes:
        _LOGGER.warning("[state] init: %s", note)
    return table
