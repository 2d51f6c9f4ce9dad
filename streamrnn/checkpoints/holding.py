"""The folders that a run holds: locked, and made if they were not there."""

from contextlib import suppress

from streamrnn.checkpoints.area import INSIDE, LOCK, STAGING, Area
from streamrnn.checkpoints.lock import Lock
from streamrnn.errors import SinkError


class Holding:
    """Areas with their locks, in the order in which they were taken."""

    def __init__(self) -> None:
        self._locks: list[tuple[Area, Lock]] = []
        self._new: list[Area] = []

    def __contains__(self, area: Area) -> bool:
        return any(held is area for held in self.areas)

    @property
    def areas(self) -> list[Area]:
        """All that are held."""
        return [area for area, _ in self._locks]

    def take(self, area: Area) -> None:
        """Make the folder if it is not there, and lock it, unless that is done.

        Raises CheckpointError when another run has it, SinkError.
        """
        if area in self:
            return
        if not area.files.entries(""):
            self._new.append(area)
        area.prepare()
        self._locks.append((area, Lock(area.files, LOCK)))

    def renew(self) -> None:
        """Say where locks are a courtesy that this run still lives."""
        for _, lock in self._locks:
            lock.renew()

    def release(self, *, unused: bool) -> None:
        """Let others in. `unused`: nothing was ever committed, so what is new is removed."""
        while self._locks:
            area, lock = self._locks.pop()
            remove = unused and any(new is area for new in self._new)
            with suppress(SinkError):
                try:
                    if remove:
                        empty(area)
                finally:
                    lock.release(remove=remove)
            if remove:
                for folder in (STAGING, INSIDE, ""):
                    area.files.clear(folder)


def empty(area: Area) -> None:
    """Remove all parts, and all that is inside but the lock."""
    area.settle(())
    for name in sorted(area.files.sizes(INSIDE).keys() - {"lock"}):
        area.files.delete(f"{INSIDE}/{name}")
