"""Atomic changes of a state, one at a time, and copies of arrays that change meanwhile."""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from streamrnn.base.arrays import Array, Ints
from streamrnn.nn.kernels.growing import small_pages

_SLICE = 1 << 20
"""Number of bytes that are copied while the lock is held, which takes less than 1 ms."""
PAUSE = 1e-4
"""Seconds to wait after each slice: a lock that is free for less time goes to its last holder."""


class SlicedCopy:
    """A copy of the first `rows` rows of arrays as they are when it is created, with the lock held.

    With `which`, in ascending order, only these rows are copied. `columns` returns the current
    arrays: when they grow, they may be replaced. Whoever writes rows must call `keep` first.
    `arrays` is the copy; rows that are not copied yet are undefined.
    """

    def __init__(
        self, columns: Callable[[], list[Array]], rows: int, which: Ints | None = None
    ) -> None:
        size = rows if which is None else len(which)
        self.arrays = [_undefined(array, size) for array in columns()]
        self._columns = columns
        self._which = which
        self._left = np.ones(size, bool)
        self._aside: list[tuple[Ints, list[Array]]] = []

    def keep(self, rows: Ints) -> None:
        """Set aside all `rows` that are not copied yet. Call it again after an interrupt.

        These rows are few. `finish` writes them to their places: writing them here would wait for
        the pages of all arrays, which takes ten times as long.
        """
        places = rows if self._which is None else np.searchsorted(self._which, rows)
        inside = places < len(self._left)
        rows, places = rows[inside], places[inside]
        missing = self._left[places]
        if self._which is not None:
            missing &= self._which[places] == rows
        rows, places = rows[missing], places[missing]
        if len(rows):
            self._aside.append((places, [array[rows] for array in self._columns()]))
            self._left[places] = False

    def finish(self, locked: Callable[[Callable[[], object]], object]) -> None:
        """Copy the missing rows, a slice in each call that `locked` makes with the lock held."""
        width = sum(kept[:1].nbytes for kept in self.arrays)
        rows = max(1, _SLICE // max(1, width))  # without streams there are no bytes
        for first in range(0, len(self._left), rows):
            locked(partial(self._take, first, first + rows))
            time.sleep(PAUSE)
        for places, values in self._aside:
            for kept, value in zip(self.arrays, values, strict=True):
                kept[places] = value

    def _take(self, first: int, last: int) -> None:
        left = self._left[first:last]
        places: Ints | slice = slice(first, first + len(left))
        if not left.all():
            places = first + np.flatnonzero(left)
        rows = places if self._which is None else self._which[places]
        for kept, array in zip(self.arrays, self._columns(), strict=True):
            kept[places] = array[rows]
        left[:] = False


def _undefined(array: Array, rows: int) -> Array:
    """Return an uninitialized array for a copy."""
    shape = rows, *array.shape[1:]
    size = int(np.prod(shape)) * array.itemsize
    if array.dtype.hasobject or not size:
        return np.empty(shape, array.dtype)
    return np.ndarray(shape, array.dtype, small_pages(size))


T = TypeVar("T")
_Call = Callable[[], object]


def do_nothing() -> None:
    """Write or undo a change of nothing."""


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
    replaces the call that undoes it by the call that writes it. Either call is repeated, by the
    next user, until it completes. `renew` repairs data that a fork copied while another thread was
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

    def make(
        self, work: Callable[[], tuple[T, _Call]], undo: Callable[[], _Call] = lambda: do_nothing
    ) -> T:
        """Make one change and return its result.

        `undo()` is called first and returns the call that restores the current state (default:
        `work` itself changes nothing). `work` returns the result and the call that writes the
        change from values that it holds. Both calls must be idempotent, also after an interrupt. An
        error or an interrupt in `work` undoes the change; a later one does not.
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
