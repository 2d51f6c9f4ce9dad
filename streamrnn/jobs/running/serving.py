"""The log of `streamrnn serve`: one server owns it; its rows go into the output before a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from streamrnn.base.storage import LocalFiles
from streamrnn.base.storage.local import lock_file
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.stream.config import Config

_LOCK, _AHEAD = "_lock", "_ahead"
_owned: set[str] = set()
"""The logs of servers in this process."""


def log_folder(config: Config) -> str:
    """Return the folder of the log of a pipeline's server."""
    return config.serve.log or f"{str(config.sink.folder).rstrip('/')}.accepted"


@contextmanager
def own_log(folder: str) -> Iterator[None]:
    """Lock a log for a server, which may `put_ahead`. Raises ConfigError if another one has it.

    A block that ends without an error has left no row in the log alone.
    """
    files = LocalFiles(folder)
    files.make("")
    try:
        lock = lock_file(files.show(_LOCK))
    except BlockingIOError:
        raise ConfigError(
            f"[serve] log: {folder} is in use by another server. End it, or set another folder"
        ) from None
    place = os.path.realpath(folder)
    with lock:
        _owned.add(place)
        try:
            yield
        finally:
            _owned.remove(place)
        files.delete(_AHEAD)


def put_ahead(files: LocalFiles) -> None:
    """Record, before a row is logged, that a log may have rows that the output has not."""
    if _AHEAD not in files.entries(""):
        files.put(_AHEAD, b"")


def refuse_behind(config: Config) -> None:
    """Raise CheckpointError if a server has ended without adding the rows of its log.

    The session of a server in this process may go on.
    """
    files = LocalFiles(log_folder(config))
    if "://" in files.root or _AHEAD not in files.entries(""):
        return
    if os.path.realpath(files.root) in _owned:
        return
    raise CheckpointError(
        f"{config.sink.folder}: a server ended without a commit, so that rows which it answered "
        f"may be in its log alone, {files.root}. Start `streamrnn serve` once (with [serve] "
        'durable = "log"), which adds them, and stop it; or move the log away, to give them up'
    )
