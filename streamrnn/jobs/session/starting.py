"""Where the first call of `process` starts: from the initial state, or from its own output."""

import json
import logging
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import pyarrow as pa

from streamrnn.base.display import count, location
from streamrnn.errors import ConfigError, DataError, MissingFileError, StreamRNNError
from streamrnn.jobs.preflight import IN_MEMORY, logged_table, open_source, run_config
from streamrnn.jobs.session.data import BATCH
from streamrnn.stream.checkpoints import (
    Manifest,
    check_same_pipeline,
    check_schema,
    has_manifest,
    load_state,
    read_manifest,
)
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import LoadedPipeline, Scorer, starting_table
from streamrnn.stream.sources import canonical_name, in_earlier_types
from streamrnn.stream.sources.casts import type_named
from streamrnn.stream.states import StateTable, as_table, key_names, state_digest
from streamrnn.stream.states.positions import from_json

_LOGGER = logging.getLogger("streamrnn.pipeline")


GivenState: TypeAlias = pa.Table | StateTable | str | os.PathLike[str]
"""A state table, "output", or the path of an exported table or of an output folder."""
Start = Literal["init", "given", "output"]
"""Where `process` starts: as set in the pipeline file, from `state=`, or from its own output."""


class InitialState(NamedTuple):
    """Where `process` starts, with the name and the table of the state if it is given.

    `table` is None if the name is a path.
    """

    start: Start
    name: str = ""
    table: pa.Table | None = None

    @classmethod
    def of(cls, state: Any) -> Self:
        """Return what `state=` says. Raises DTypeError, and DataError for a damaged table.

        A table in memory is named by its content, so that an output folder refuses a rerun with
        another table, as it refuses one with another path.
        """
        if state is None:
            return cls("init")
        if isinstance(state, str) and state == "output":
            return cls("output")
        if isinstance(state, str | os.PathLike):
            return cls("given", os.fspath(state))
        table = as_table(state, "state")
        return cls("given", f"{IN_MEMORY}{state_digest(table)[:16]}", table)

    @property
    def overrides(self) -> list[str]:
        """The overrides of a pipeline file that name this state."""
        name = json.dumps(self.name, ensure_ascii=False)
        return [f"state.init={name}"] if self.start == "given" else []

    def set_in(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the tables of a pipeline file with this state in place of the one they name."""
        if self.start != "given" or not isinstance(state := data.get("state", {}), Mapping):
            return data
        return {**data, "state": {**state, "init": self.name}}


def require_output(config: Config, what: str, advice: str = "") -> None:
    """Raise ConfigError if there can be no output, which `what` needs."""
    if config.sink.folder is None:
        path = "none" if config.sink.path is None else repr(config.sink.path)
        raise ConfigError(
            f"{what}: expected [sink] path to name the folder of an output, received {path}{advice}"
        )


def first_scorer(loaded: LoadedPipeline, schema: pa.Schema, start: Start) -> Scorer:
    """Return the scorer of the first call of `process`, whose data has this schema.

    Raises the errors of a run that cannot start, or resume, from that state.
    """
    folder = loaded.config.sink.folder
    if start == "output" and folder is not None:
        if has_manifest(folder):
            return scorer_after(loaded, schema, read_manifest(folder), load_state(folder))
        _LOGGER.warning(
            "%s has no commit yet: streams start from the initial state", location(folder)
        )
    bound = loaded.bind(schema, BATCH)
    return Scorer(bound, logged_table(bound))


def scorer_after(
    loaded: LoadedPipeline,
    schema: pa.Schema,
    last: Manifest,
    state: pa.Table | None,
    *,
    quiet: bool = False,
) -> Scorer:
    """Return a scorer with the state and the column types of the output's last commit.

    Unless it is to be `quiet`, log what a user should know of the state. Raises the errors of a run
    that cannot resume from it.
    """
    place = location(str(loaded.config.sink.folder))
    bound = loaded.bind(in_earlier_types(schema, last.config.get("source.schema", {})), BATCH)
    on_change, folder = loaded.config.model.on_change, str(loaded.config.sink.folder)
    may_differ = on_change != "error"
    check_same_pipeline(last, loaded.fingerprint, run_config(bound), folder, new_model=may_differ)
    notes = [str(loaded.choice.note)] if loaded.choice.kept else []
    table = starting_table(
        bound,
        state,
        f"the state of {place}",
        notes,
        on_change=on_change,
        earlier_map=last.config.get("state.map", {}),
    )
    scorer = Scorer(bound, table)
    scorer.position = from_json(last.positions)
    for note in () if quiet else notes:
        _LOGGER.warning("%s: %s", place, note)
    return scorer


def check_first(loaded: LoadedPipeline, last: Manifest | None, state: pa.Table | None) -> None:
    """Raise what `scorer_after` or the first commit of rows would raise, before there are rows."""
    if last is None:
        return
    none = None if state is None else state.slice(0, 0)
    scorer = scorer_after(loaded, schema_before_rows(loaded, last), last, none, quiet=True)
    check_schema(last, scorer.bound.emitter.schema, str(loaded.config.sink.folder))


def schema_before_rows(loaded: LoadedPipeline, last: Manifest | None) -> pa.Schema:
    """Return the columns in use; a type that is unknown before the first rows is null.

    Types come from the last commit, else from the source's files, else from [state] init.
    """
    contract, config = loaded.contract, loaded.config
    path, init = config.source.path, config.state.init
    types = {f.name: pa.float64() for f in contract.floats if f.vocabulary is None}
    if contract.reset is not None:
        types[contract.reset] = pa.bool_()
    if last is not None:
        recorded = last.config["source.schema"].items()
        types |= {name: type_named(text) or pa.null() for name, text in recorded}
    else:
        if path is not None and not config.source.piped:
            with suppress(MissingFileError):
                return open_source(loaded).schema
        if init is not None:
            table = loaded.read_init(init)
            types |= {key: table.schema.field(key).type for key in key_names(table, init)}
            if contract.time is not None and "last_time" in table.column_names:
                types[contract.time] = table.schema.field("last_time").type
    names = loaded.columns or list(dict.fromkeys([*contract.columns(), *types]))
    return pa.schema([(name, types.get(name, pa.null())) for name in names])


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


def initial_table(loaded: LoadedPipeline) -> StateTable:
    """Return the state that `process`, or a first run, starts from.

    Without [state] init, raises ConfigError if there are no source files either, and DataError or
    MissingFileError if they cannot be opened.
    """
    bound = loaded.bind(*_schema(loaded))
    return starting_table(bound, None, "", on_change=loaded.config.model.on_change)


def _schema(loaded: LoadedPipeline) -> tuple[pa.Schema, str]:
    """Find a schema with the types that a state table depends on, and the name of its origin."""
    config = loaded.config
    init = config.state.init
    if config.source.path is not None and not config.source.piped:
        try:
            source = open_source(loaded)
        except (DataError, MissingFileError):
            if init is None:
                raise
        else:
            return source.schema, source.name
    if init is None:
        raise ConfigError(
            "there is no state before the first call of process(), whose data has the types of the "
            "key columns. Call it with a batch without rows (batch.slice(0, 0)), or name a source "
            "or an initial state"
        )
    return _assumed_schema(loaded, loaded.read_init(init), init), init


def _assumed_schema(loaded: LoadedPipeline, table: pa.Table, name: str) -> pa.Schema:
    """Return the columns in use with their types in a state table, else with any valid types."""
    contract = loaded.contract
    features = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}
    types = {feature.name: features[feature.kind] for feature in contract.features}
    types |= {contract.reset: pa.bool_()} if contract.reset else {}
    carried = list(loaded.columns or ())
    if "pending" in table.column_names:  # an output row: copied columns and the model's outputs
        outputs = {*loaded.names, loaded.config.output.model_column}
        fields = [f for f in table.schema.field("pending").type if f.name not in outputs][:-2]
        carried = carried or [field.name for field in fields]
        types |= {field.name: field.type for field in fields}
    types |= {key: table.schema.field(key).type for key in key_names(table, name)}
    if contract.time is not None and "last_time" in table.column_names:
        types[contract.time] = table.schema.field("last_time").type
    columns = contract.columns(carried)
    return pa.schema([(column, types.get(column, pa.timestamp("us"))) for column in columns])
