"""The log of `streamrnn serve`, whose rows go into the output before anything else does."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from streamrnn.base.storage import LocalFiles
from streamrnn.base.storage.local import lock_file
from streamrnn.base.storage.store import open_files
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.config import Config, side_folder, value_of
from streamrnn.stream.sources import canonical_name

_LOCK, _AHEAD, _OUTPUT = "_lock", "_ahead", "_output"
_owned: set[str] = set()
"""The logs of servers in this process."""


def log_folder(config: Config) -> str:
    """Return the folder of the log of a pipeline's server."""
    return config.serve.log or side_folder(str(config.sink.folder), "accepted")


@contextmanager
def own_log(folder: str, output: str) -> Iterator[None]:
    """Lock a log for the server of an output, which may then call `put_ahead`.

    A block that ends without an error must leave no row in the log that the output does not have.
    Raises ConfigError if another server has the log, or if the log has rows of another output.
    """
    files = LocalFiles(folder)
    files.make("")
    try:
        lock = lock_file(files.show(_LOCK))
    except BlockingIOError:
        raise ConfigError(
            f"[serve] log: {folder} is in use by another server. End that server, or set another "
            "folder"
        ) from None
    # The log records where it is, and its output; a log that was moved or copied is taken over.
    place, own = os.path.realpath(folder), canonical_name(output)
    then, other = place, own
    with lock:
        with suppress(FileNotFoundError, ValueError), files.open(_OUTPUT) as file:
            then, other = json.loads(file.read())
        if then == place and other != own and open_files(other).entries(""):
            raise ConfigError(
                f"[serve] log: {folder} has the rows of another output, {other}. Each output needs "
                "a log of its own: set another folder"
            )
        files.put(_OUTPUT, json.dumps([place, own]).encode())
        _owned.add(place)
        try:
            yield
        finally:
            _owned.remove(place)
        files.delete(_AHEAD)


def put_ahead(files: LocalFiles) -> None:
    """Record that a log may have rows that the output lacks; call this before a row is logged."""
    if _AHEAD not in files.entries(""):
        files.put(_AHEAD, b"")


def refuse_behind(output: str, last: Manifest | None, *logs: str) -> None:
    """Raise CheckpointError if a server has ended without adding the rows of its log to the output.

    Checks the log of the `last` commit, and other `logs`. A log that a server in this process
    has locked may be behind: the server is about to add its rows.
    """
    then = None if last is None else value_of("serve.log", last.config)
    for folder in dict.fromkeys([*logs, then or side_folder(output, "accepted")]):
        behind = "://" not in folder and _AHEAD in LocalFiles(folder).entries("")
        if behind and os.path.realpath(folder) not in _owned:
            raise CheckpointError(
                f"{output}: a server ended without a commit: rows of requests that it answered may "
                f"be only in its log, {folder}. Start `streamrnn serve` once (with [serve] durable "
                f'= "log" and log = "{folder}") to add them, and stop it again; or move the log '
                "away to give the rows up"
            )
