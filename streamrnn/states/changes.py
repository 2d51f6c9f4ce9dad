"""Changes of a state that count whole or not at all, one at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Call = Callable[[], object]


class OwnLock:
    """A lock for one thread at a time, which may take it again; free in a forked process."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    @property
    def lock(self) -> threading.RLock:
        """Use it as `with own.lock:`, which no interrupt leaves locked."""
        process = os.getpid()
        found = self._locks.get(process)
        return self._locks.setdefault(process, threading.RLock()) if found is None else found

    def __reduce__(self) -> tuple[type[OwnLock], tuple[()]]:
        return OwnLock, ()


class Changes:
    """What is left to do of a change that did not come to its end.

    An interrupt (a KeyboardInterrupt, or an exception that another thread sends) may come between
    any two operations, also while the last one is dealt with. So a change does not count by being
    written, but by one assignment, from the call that undoes it to the call that writes it; and
    either is made again, by whoever comes next, until it went through. `renew` repairs what a fork
    amid another thread's change may have copied half written.
    """

    def __init__(self, renew: Call) -> None:
        self._own = OwnLock()
        self._left: Call | None = None
        self._renew = renew
        self._process = os.getpid()

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever changes or reads."""
        return self._own.lock

    def complete(self) -> None:
        """Bring what is changed to the state before or after the last change. Hold the lock."""
        if self._process != os.getpid():
            self._renew()
            self._process = os.getpid()
        if self._left is not None:
            self._left()
            self._left = None

    def make(self, undo: Callable[[], Call], work: Callable[[], tuple[T, Call]]) -> T:
        """Make one change; its result.

        `undo()` is called first, and gives the call that brings back the state of then. `work`
        returns the result and the call that writes the change, from values that it holds: both
        calls may be made any number of times, also after having been cut short. An error or an
        interrupt in `work` undoes the change; one that comes later leaves it made.
        """
        with self.lock:
            self.complete()
            try:
                self._left = undo()
                result, self._left = work()
                self.complete()
            except BaseException:
                self.complete()
                raise
            return result

    def __reduce__(self) -> tuple[type[Changes], tuple[Call]]:
        return Changes, (self._renew,)
