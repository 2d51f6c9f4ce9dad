"""Keys to numbers: a hash table whose search is a kernel, so that it costs less than the model.

With Arrow and NumPy operations over whole columns it took an eighth of a run with 100,000 streams
in each record batch (0.29 s of 2,000,000 rows); this loop takes 0.03 s. It is bound by memory
latency, so it

- looks up the cells of the next rows together, so that their latencies overlap (a million streams
  in random order: 210 -> 150 ns a row)
- first tries the key that followed the previous one before, as streams that are logged in turns
  mostly repeat their order (100,000 of them: 26 -> 16 ns a row)
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Ints, Words
from streamrnn.nn import simd
from streamrnn.nn.simd.arguments import DONE, KNOWN, Strings, StringTable

T = TypeVar("T", bound=np.generic)


class StringIndex:
    """Distinct byte strings, numbered in the order in which they were added.

    `cells` is a hash table with open addressing: half a hash and the number plus one, 0 if empty.
    Hashes only find a candidate; all of its bytes are compared. Strings are stored as whole words,
    padded with zeros: `words[begin[k]:begin[k + 1]]`, `size[k]` bytes of them.
    """

    def __init__(self) -> None:
        self._cells = np.zeros(1024, np.uint64)
        self._hashes, self._size = np.zeros(512, np.uint64), np.zeros(512, np.int64)
        self._begin, self._words = np.zeros(513, np.int64), np.zeros(1024, np.uint64)
        self._counts = np.zeros(3, np.int64)

    def __len__(self) -> int:
        return int(self._counts[KNOWN])

    def find(self, words: Words, start_N: Ints, size_N: Ints, add: bool) -> tuple[Ints, Ints]:
        """Return the number of each of N strings (N,) int64, and the rows of those added.

        String n has `size_N[n]` bytes; `words[start_N[n] + k]` is the word (uint64, little-endian)
        that begins at its byte k. Without `add` the number of an unknown string is -1.
        """
        rows, strings = len(start_N), Strings(words, start_N, size_N)
        found, added = np.empty(rows, np.int64), np.empty(rows if add else 0, np.int64)
        before, counts = len(self), self._counts
        counts[DONE] = 0
        while True:
            table = StringTable(
                self._cells, self._hashes, self._size, self._begin, self._words, counts
            )
            simd.keys.find_entry()(strings, add, before, table, found, added)
            if counts[DONE] == rows:
                return found, added[: len(self) - before].copy()
            self._grow(int(size_N[counts[DONE]]))

    def truncate(self, size: int) -> None:
        """Remove all strings from number `size` on."""
        if size < len(self):
            self._empty_cells(len(self._cells), known=size)

    def rebuild(self) -> None:
        """Insert all strings into the cells again: for a copy made during a `find`."""
        self._empty_cells(len(self._cells), known=len(self))

    def _grow(self, size: int) -> None:
        """Make room for one more string of `size` bytes; arrays that are full double."""
        known = len(self)
        if 2 * (known + 1) > len(self._cells):
            self._empty_cells(2 * len(self._cells), known)
        # The kernel checks the room in `size`, which grows last: an interrupt leaves no array
        # short.
        if known + 2 > len(self._begin):
            self._begin = np.append(self._begin, np.zeros(len(self._begin) - 1, np.int64))
        if known + 1 > len(self._hashes):
            self._hashes = _doubled(self._hashes)
        if known + 1 > len(self._size):
            self._size = _doubled(self._size)
        while self._begin[known] + (size + 7) // 8 > len(self._words):
            self._words = _doubled(self._words)

    def _empty_cells(self, size: int, known: int) -> None:
        # In one statement: an interrupt happens before both or after both.
        self._cells, self._counts[:2] = np.zeros(size, np.uint64), (known, 0)


def _doubled(array: npt.NDArray[T]) -> npt.NDArray[T]:
    return np.append(array, np.zeros_like(array))
