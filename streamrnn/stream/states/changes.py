"""Atomic changes of a state, one at a time."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_Call = Callable[[], object]


class OwnLock:
    """A reentrant lock that is free in a forked process."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    @property
    def lock(self) -> threading.RLock:
        """The lock of this process. In `with own.lock:`, no interrupt leaves it locked."""
        process = os.getpid()
        lock = self._locks.get(process)
        return self._locks.setdefault(process, threading.RLock()) if lock is None else lock

    def __reduce__(self) -> "tuple[type[OwnLock], tuple[()]]":
        return OwnLock, ()


class Changes:
    """The log of the current change; after an interrupt, the next user completes or undoes it.

    An interrupt (a KeyboardInterrupt, or an exception raised by another thread) may occur between
    any two operations, also during recovery. So a change takes effect by one assignment, which
    replaces the call that undoes it by the call that writes it. Either is repeated, by the next
    user, until it completes. `renew` repairs data that a fork copied while another thread was
    changing it.
    """

    def __init__(self, renew: _Call) -> None:
        self._own = OwnLock()
        self._left: _Call | None = None
        self._renew = renew
        self._process = os.getpid()

    @property
    def lock(self) -> threading.RLock:
        """The lock to hold while reading or changing."""
        return self._own.lock

    def complete(self) -> None:
        """Restore the state before or after the last change. The caller holds the lock."""
        if self._process != os.getpid():
            self._renew()
            self._process = os.getpid()
        if self._left is not None:
            self._left()
            self._left = None

    def make(self, undo: Callable[[], _Call], work: Callable[[], tuple[T, _Call]]) -> T:
        """Make one change and return its result.

        `undo()` is called first and returns the call that restores the current state. `work`
        returns the result and the call that writes the change from values that it holds. Both calls
        must be idempotent, also after an interrupt. An error or an interrupt in `work` undoes the
        change; a later one does not.
        """
        with self._own.lock:
            self.complete()
            try:
                self._left = undo()
                result, self._left = work()
                self.complete()
            except BaseException:
                self.complete()
                raise
            return result

    def __reduce__(self) -> "tuple[type[Changes], tuple[_Call]]":
        return Changes, (self._renew,)
