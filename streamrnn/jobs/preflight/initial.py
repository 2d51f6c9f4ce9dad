"""The state that a pipeline starts from: from [state] init, memory (`state=`) or its output."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.errors import ConfigError, DataError, MissingFileError, UnsupportedError
from streamrnn.jobs.outputs import read_states
from streamrnn.jobs.preflight.checks import open_source
from streamrnn.nn.formats import file_name, on_disk
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline, RunOptions, starting_table
from streamrnn.stream.states import StateTable, as_table, key_names, state_digest

GivenState: TypeAlias = pa.Table | StateTable | str | os.PathLike[str]
"""A state table, "output", or the path of an exported table or of an output folder."""

_IN_MEMORY = "memory:"
_LOGGER = logging.getLogger("streamrnn.pipeline")


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
        """Name the path or the table of `state=`. Raises DTypeError; DataError if it is damaged.

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
        return cls("given", f"{_IN_MEMORY}{state_digest(table)[:16]}", table)

    @property
    def overrides(self) -> list[str]:
        """The overrides of a pipeline file that name this state."""
        name = json.dumps(self.name, ensure_ascii=False)
        return [f"state.init={name}"] if self.start == "given" else []

    def set_in(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the tables of a pipeline file with this state in place of the state they name."""
        if self.start != "given" or not isinstance(state := data.get("state", {}), Mapping):
            return data
        return {**data, "state": {**state, "init": self.name}}


def reader(state_table: pa.Table | None) -> Callable[[str], pa.Table]:
    """Return a reader of the table that [state] init names; `state_table` is a table in memory."""

    def read(name: str) -> pa.Table:
        if not name.startswith(_IN_MEMORY):
            return read_states(name, seen=True)
        if state_table is None:
            raise ConfigError(
                f"[state] init: {name} is a state that was passed in memory. A checkpoint does not "
                "keep it; pass it again as state= of Pipeline.from_toml or from_dict"
            )
        return state_table

    return read


def initial_table(loaded: LoadedPipeline) -> StateTable:
    """Return the state that `process`, or a first run, starts from.

    Raises ConfigError if neither [state] init nor a source of files has the types of the keys.
    """
    bound = loaded.bind(*_schema(loaded))
    return starting_table(bound, None, "", on_change=loaded.config.model.on_change)


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


def logged_table(bound: BoundPipeline) -> StateTable:
    """Return the state to start from; log which parts of `[state] init` are ignored."""
    notes: list[str] = []
    table = starting_table(bound, None, "", notes, on_change=bound.loaded.config.model.on_change)
    for note in notes:
        _LOGGER.warning("[state] init: %s", note)
    return table


@dataclass(frozen=True)
class ModelFile:
    """A model file in memory: its name and its bytes."""

    name: str
    content: bytes

    @classmethod
    def read(cls, path: str) -> "ModelFile":
        """Read a model file, or the object of a URI. Raises MissingFileError."""
        try:
            with on_disk(path) as file:
                return cls(file_name(path), file.read_bytes())
        except FileNotFoundError as error:
            raise MissingFileError(f"[model] path: {location(path)}: no such file") from error

    @contextmanager
    def on_disk(self) -> Iterator[str]:
        """Write the file to a temporary folder, which is removed afterwards; yield its path."""
        with tempfile.TemporaryDirectory(prefix="streamrnn-") as folder:
            path = Path(folder) / self.name
            path.write_bytes(self.content)
            yield str(path)


def included_model(loaded: LoadedPipeline, folder: str) -> ModelFile:
    """Read the model file of a loaded pipeline; a relative path is resolved from `folder`.

    Raises MissingFileError; UnsupportedError if the file has another model now.
    """
    path = loaded.config.model.path
    if "://" not in path:
        path = os.path.join(folder, path)
    file = ModelFile.read(path)
    with file.on_disk() as copy:
        if LoadedPipeline(loaded.config, model_path=copy).fingerprint != loaded.fingerprint:
            raise UnsupportedError(
                f"[model] path: {location(path)}: the file is not the model that was loaded. "
                "Load the pipeline again, or leave out include_model."
            )
    return file
