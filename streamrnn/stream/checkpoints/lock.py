"""One run at a time on an output folder.

On a disk, the lock is an OS lock (flock), which the system releases when the owner's process dies.
An object store has no locks: a file names the owner and is renewed at every commit. This detects a
second run only if that run starts some seconds later; `OutputFolder.commit` checks again.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import FileIO
from typing import Any

from streamrnn.base.storage.files import Files, sink_errors
from streamrnn.base.storage.local import HAS_LOCKS, LocalFiles, lock_file
from streamrnn.errors import CheckpointError, SinkError, UnsupportedError
from streamrnn.stream.checkpoints.directory import INSIDE, LOCK, STAGING, PartDirectory, name_inside

if not HAS_LOCKS:
    raise UnsupportedError(
        "streamrnn runs pipelines on Linux and macOS only: it locks an output folder with flock, "
        "which this system lacks (on Windows, use WSL)."
    )

# A run on an object store counts as dead if it renewed its lock longer ago than this.
STALE_SECONDS = 300


def now() -> str:
    """Return the time in UTC, as in 2013-01-05T08:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Lock:
    """The lock of a folder, held until `release`.

    Raises CheckpointError if another run holds it.
    """

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self._name = name
        self._since = now()
        self._locked: FileIO | None = None
        try:
            if isinstance(files, LocalFiles):
                try:
                    self._locked = lock_file(files.show(name))
                except BlockingIOError:
                    raise self._refusal(self._read(), "Wait until it ends, or stop it.") from None
                self._locked.truncate(0)
                with sink_errors("write", files.show(name)):
                    self._locked.write(json.dumps(self._owner()).encode())
            else:
                self._refuse_owner()
                self.renew()
        except BaseException:
            self._close()
            raise

    def _owner(self) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self._since,
            "seen": time.time(),
        }

    def _read(self) -> dict[str, Any]:
        """Return the owner that the file names; {} if it names none."""
        with suppress(FileNotFoundError, ValueError):
            owner = json.loads(self._files.read(self._name))
            if isinstance(owner, dict):
                return owner
        return {}

    def _refusal(self, owner: dict[str, Any], advice: str) -> CheckpointError:
        return CheckpointError(
            f"{self._files.show('')} is in use by another run (host {owner.get('host', '?')}, "
            f"pid {owner.get('pid', '?')}, since {owner.get('since', '?')}). {advice}"
        )

    def _refuse_owner(self) -> None:
        """Raise CheckpointError if the object names another owner that seems to be alive."""
        owner = self._read()
        advice = f"If that run is dead, delete {self._files.show(self._name)}"
        if owner.get("host") == socket.gethostname():
            in_use = owner.get("pid") != os.getpid() and _is_alive(owner.get("pid"))
        else:
            in_use = time.time() - owner.get("seen", 0) < STALE_SECONDS
            advice += f" or wait {STALE_SECONDS // 60} minutes"
        if in_use:
            raise self._refusal(owner, f"{advice}.")

    def renew(self) -> None:
        """Renew the lock on an object store; on a disk, do nothing."""
        if not self._files.local:
            self._files.put(self._name, json.dumps(self._owner()).encode())

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; with `remove`, or on an object store, also delete its file."""
        try:
            if remove or not self._files.local:
                self._files.delete(self._name)
        finally:
            self._close()

    def _close(self) -> None:
        if self._locked is not None:
            self._locked.close()


def _is_alive(pid: Any) -> bool:
    with suppress(PermissionError, TypeError, ValueError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
    return True


class LockSet:
    """The folders that a run has locked, in the order of locking; missing ones are created."""

    def __init__(self) -> None:
        self._locks: dict[PartDirectory, Lock] = {}
        self._new: list[PartDirectory] = []

    def __contains__(self, directory: PartDirectory) -> bool:
        return directory in self._locks

    def __iter__(self) -> Iterator[PartDirectory]:
        return iter(self._locks)

    def acquire(self, directory: PartDirectory) -> None:
        """Create the folder if it is missing, and lock it, once.

        Raises CheckpointError if another run has locked it; SinkError if it cannot be written.
        """
        if directory in self:
            return
        if not directory.files.entries(""):
            self._new.append(directory)
        directory.prepare()
        self._locks[directory] = Lock(directory.files, LOCK)

    def renew(self) -> None:
        """Renew advisory locks (on object stores)."""
        for lock in self._locks.values():
            lock.renew()

    def release(self, *, unused: bool) -> None:
        """Release all locks; if they were `unused` (nothing was committed), remove new folders.

        A folder is new if it was missing or empty.
        """
        with ExitStack() as stack:  # if one fails, the others are released all the same
            for directory, lock in self._locks.items():
                stack.callback(_release, directory, lock, unused and directory in self._new)
            self._locks = {}


def _release(directory: PartDirectory, lock: Lock, remove: bool) -> None:
    with suppress(SinkError):
        try:
            if remove:
                empty(directory)
        finally:
            lock.release(remove=remove)
    if remove:
        for folder in (STAGING, INSIDE, ""):
            directory.files.clear(folder)


def empty(directory: PartDirectory) -> None:
    """Remove all parts, and all internal files except the lock."""
    directory.reconcile(())
    for name in sorted(directory.files.sizes(INSIDE).keys() - {name_inside(LOCK)}):
        directory.files.delete(f"{INSIDE}/{name}")
