"""The folders that a run has locked, and created if missing."""

from contextlib import ExitStack, suppress

from streamrnn.errors import SinkError
from streamrnn.stream.checkpoints.directory import INSIDE, LOCK, STAGING, PartDirectory, name_inside
from streamrnn.stream.checkpoints.lock import Lock


class Holding:
    """Part directories with their locks, in locking order."""

    def __init__(self) -> None:
        self._locks: list[tuple[PartDirectory, Lock]] = []
        self._new: list[PartDirectory] = []

    def __contains__(self, directory: PartDirectory) -> bool:
        return any(held is directory for held in self.directories)

    @property
    def directories(self) -> list[PartDirectory]:
        """All directories that are locked."""
        return [directory for directory, _ in self._locks]

    def take(self, directory: PartDirectory) -> None:
        """Create the folder if missing, and lock it if not done yet.

        Raises CheckpointError if another run has locked it; SinkError.
        """
        if directory in self:
            return
        if not directory.files.entries(""):
            self._new.append(directory)
        directory.prepare()
        self._locks.append((directory, Lock(directory.files, LOCK)))

    def renew(self) -> None:
        """Renew advisory locks (on object stores)."""
        for _, lock in self._locks:
            lock.renew()

    def release(self, *, unused: bool) -> None:
        """Release all locks. `unused`: nothing was ever committed, so new folders are removed."""
        with ExitStack() as stack:  # one that fails does not keep the others
            for directory, lock in self._locks:
                remove = unused and any(new is directory for new in self._new)
                stack.callback(_release, directory, lock, remove)
            self._locks = []


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
