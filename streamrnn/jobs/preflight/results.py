"""Where a report or an evaluation may be written, so that no other file is lost or read as rows."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage import open_store
from streamrnn.errors import ConfigError, SinkError
from streamrnn.stream.checkpoints import refuse_inside_output
from streamrnn.stream.config import is_pipe, value_of
from streamrnn.stream.sources import canonical_name


def refuse_result(
    path: str,
    command: str,
    example: str,
    config: Mapping[str, Any],
    is_earlier: Callable[[BinaryIO], bool],
) -> None:
    """Refuse a path at which the file that a command writes would do harm.

    `example`: a name for such a file; `config` has the values of a pipeline by key; `is_earlier`
    says whether a file was written by the command. Raises ConfigError if a file that it did not
    write is there, if `path` is the model, or lies in the source or an output; SinkError if it
    cannot be read.
    """
    noun = example.partition(".")[0]
    if not path:
        raise ConfigError(
            f"{command}: expected the path of a file to write, received an empty path"
        )
    refuse_inside_output(path, command)
    place = canonical_name(path)
    for table in ("model", "source"):
        other = value_of(f"{table}.path", config)
        if not other or is_pipe(other):
            continue
        name = canonical_name(other).rstrip("/")
        inside = place.startswith(f"{name}/") or fnmatchcase(place, name)
        if place == name or (table == "source" and inside):
            raise ConfigError(
                f"{command}: {location(path)} is, or lies inside, [{table}] path "
                f"{location(other)}. Choose a path beside it."
            )
    try:
        store, place = open_store(path)
        if store.local and store.is_folder(place):
            raise ConfigError(
                f"{command}: {location(path)} is a folder: add the name of a file, such as "
                f"{location(path).rstrip('/')}/{example}"
            )
        if store.entry(place) is None:
            return
        with store.open(place) as file:
            earlier = is_earlier(file)
    except (OSError, pa.ArrowException) as error:
        raise SinkError(f"{location(path)}: cannot write the {noun}: {error}") from error
    if not earlier:
        raise ConfigError(
            f"{command}: {location(path)} exists, and is not an earlier {noun}: no other file is "
            "replaced. Choose another path, or delete that file."
        )
