"""What a job loads before it reads a row: the table of [state] init, and a model file in memory."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.errors import ConfigError, MissingFileError
from streamrnn.jobs.outputs import read_states
from streamrnn.nn.formats import file_name, on_disk
from streamrnn.stream.scoring import BoundPipeline, starting_table
from streamrnn.stream.states import StateTable

IN_MEMORY = "memory:"
"""What the name of a state in memory begins with, in [state] init."""
_LOGGER = logging.getLogger("streamrnn.pipeline")


def reader(state_table: pa.Table | None) -> Callable[[str], pa.Table]:
    """Return a reader of the table that [state] init names; `state_table` is a table in memory."""

    def read(name: str) -> pa.Table:
        if not name.startswith(IN_MEMORY):
            return read_states(name, seen=True)
        if state_table is None:
            raise ConfigError(
                f"[state] init: {name} is a state that was passed in memory. A checkpoint does not "
                "keep it; pass it again as state= of Pipeline.from_toml or from_dict"
            )
        return state_table

    return read


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
