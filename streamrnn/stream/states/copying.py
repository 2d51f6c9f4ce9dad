"""Copy arrays in slices while other threads change them."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from streamrnn.base.arrays import Array, Ints
from streamrnn.nn.kernels.growing import small_pages

_SLICE = 1 << 20
"""Number of bytes that are copied while the lock is held, which takes less than 1 ms."""
PAUSE = 1e-4
"""Seconds to wait after each slice: a lock that is free for less time goes to its last holder."""


class SlicedCopy:
    """A copy of the first `rows` rows of arrays as they are when it is created, with the lock held.

    With `which`, in ascending order, only these rows. `columns` returns the arrays, which growth
    may replace. Whoever writes rows must call `keep` first. `arrays` is the copy; rows that are not
    copied yet are undefined.
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
        """Set aside the rows among these that are not copied yet.

        After an interrupt, call it again. These rows are few, and `finish` writes them to their
        places: writing them here would wait for the pages of all arrays, ten times as long.
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
