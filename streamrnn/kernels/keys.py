"""Keys to numbers: a hash table whose search is a kernel, so that it costs less than the model.

As operations of Arrow and numpy over whole columns it took an eighth of a run that meets 100,000
streams in each record batch (0.29 s of 2,000,000 rows); this loop takes 0.03 s. It waits for memory
above all, and so

- looks up the cells of the next rows together, so that these wait at the same time (a million
  streams in random order: 210 -> 150 ns a row)
- first tries the key that came after the one before, as streams that are logged in turns mostly
  come in the same order again (100,000 of them: 26 -> 16 ns a row)
"""

import functools
from typing import Any

import numpy as np

KNOWN, PLACED, DONE = range(3)
AHEAD = 64
"""Rows whose cells are looked up together."""

_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


class Table:
    """Distinct byte strings, numbered in the order in which they came.

    `cells` is a hash table with open addressing: half a hash and the number plus one, 0 if empty.
    Hashes only find a candidate; all of its bytes are compared. They are kept as whole words,
    filled up with zeros: `words[begin[k]:begin[k + 1]]`, `size[k]` bytes of them.
    """

    def __init__(self) -> None:
        self._cells = np.zeros(1024, np.uint64)
        self._hashes, self._size = np.zeros(512, np.uint64), np.zeros(512, np.int64)
        self._begin, self._words = np.zeros(513, np.int64), np.zeros(1024, np.uint64)
        self._counts = np.zeros(3, np.int64)

    def __len__(self) -> int:
        return int(self._counts[KNOWN])

    def find(self, words: Any, start_N: Any, size_N: Any, add: bool) -> tuple[Any, Any]:
        """The number of each of N strings (N,) int64, and the rows of those that were added.

        String n is `size_N[n]` bytes; `words[start_N[n] + k]` is the word (uint64, little-endian)
        that begins at its byte k. Without `add` an unknown one is -1.
        """
        rows = len(start_N)
        found, added = np.empty(rows, np.int64), np.empty(rows if add else 0, np.int64)
        before, counts = len(self), self._counts
        counts[DONE] = 0
        while True:
            _find()(
                words, start_N, size_N, add, before, self._cells, self._hashes, self._size,
                self._begin, self._words, counts, found, added,
            )  # fmt: skip
            if counts[DONE] == rows:
                return found, added[: len(self) - before].copy()
            self._grow(int(size_N[counts[DONE]]))

    def truncate(self, size: int) -> None:
        """Forget all from number `size` on."""
        if size < len(self):
            self._empty_cells(len(self._cells), known=size)

    def rebuild(self) -> None:
        """Find places for all strings anew: for a copy that was made amid a `find`."""
        self._empty_cells(len(self._cells), known=len(self))

    def _grow(self, size: int) -> None:
        """Make room for one more of `size` bytes, and as many again as there are."""
        known = len(self)
        if 2 * (known + 1) > len(self._cells):
            self._empty_cells(2 * len(self._cells), known)
        # The kernel asks for room in `size`, which grows last: an interrupt leaves no array short.
        if known + 2 > len(self._begin):
            self._begin = np.append(self._begin, np.zeros(len(self._begin) - 1, np.int64))
        if known + 1 > len(self._hashes):
            self._hashes = _doubled(self._hashes)
        if known + 1 > len(self._size):
            self._size = _doubled(self._size)
        while self._begin[known] + (size + 7) // 8 > len(self._words):
            self._words = _doubled(self._words)

    def _empty_cells(self, size: int, known: int) -> None:
        # In one statement: an interrupt comes before both or after both.
        self._cells, self._counts[:2] = np.zeros(size, np.uint64), (known, 0)


def _doubled(array: Any) -> Any:
    return np.append(array, np.zeros_like(array))


@functools.cache
def _find() -> Any:
    from streamrnn.kernels import jit

    return jit.compiled("keys", _kernel, _signature())


def _signature() -> Any:
    from numba import types

    any_words = types.Array(types.uint64, 1, "A", aligned=False)
    u, i = types.Array(types.uint64, 1, "C"), types.Array(types.int64, 1, "C")
    return types.void(any_words, i, i, types.boolean, types.intp, u, u, i, i, u, i, i, i)


def _kernel() -> Any:
    from streamrnn.kernels.jit import kernel, merge

    @merge
    def word(words, start, size, k):
        """Word k of a string, zeros behind its end."""
        left = size - 8 * k
        value = words[start + 8 * k]
        return value if left >= 8 else value & (~np.uint64(0) >> np.uint64(64 - 8 * left))

    @merge
    def hashed(words, start, size):
        value = np.uint64(size) * _FACTOR
        for k in range((size + 7) // 8):
            value = (value ^ word(words, start, size, k)) * _FACTOR
            value ^= value >> _HALF
        return value

    @merge
    def content(value, number):
        return (value & ~_LOW) | np.uint64(number + 1)

    @merge
    def free_cell(cells, value):
        mask = np.uint64(len(cells) - 1)
        cell = value & mask
        while cells[cell] != 0:
            cell = (cell + np.uint64(1)) & mask
        return cell

    @merge
    def equal(words, start, size, own, first):
        for k in range((size + 7) // 8):  # noqa: SIM110 - Numba has no generators
            if word(words, start, size, k) != own[first + k]:
                return False
        return True

    @kernel
    def find(
        words, start_N, size_N, add, before, cells, hashes, sizes, begin, own, counts, found, added
    ):
        """Stops early, with counts[DONE] < N, where there is no room for one more."""
        known = counts[KNOWN]
        for old in range(counts[PLACED], known):
            cells[free_cell(cells, hashes[old])] = content(hashes[old], old)
        mask = np.uint64(len(cells) - 1)
        value_A, inside_A = np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.uint64)
        row = ahead_from = ahead_to = counts[DONE]
        number = np.int64(-1)
        while row < len(start_N):
            if row == ahead_to:
                ahead_from, ahead_to = row, min(row + AHEAD, len(start_N))
                for a in range(ahead_to - row):
                    value_A[a] = hashed(words, start_N[row + a], size_N[row + a])
                for a in range(ahead_to - row):
                    inside_A[a] = cells[value_A[a] & mask]
            start, size, value = start_N[row], size_N[row], value_A[row - ahead_from]
            follows = number + 1
            number = np.int64(-1)
            if (
                follows < known
                and hashes[follows] == value
                and sizes[follows] == size
                and equal(words, start, size, own, begin[follows])
            ):
                number = follows
            if number < 0:
                cell, inside = value & mask, inside_A[row - ahead_from]
                if inside == 0:  # it may have been filled since
                    inside = cells[cell]
                while inside != 0 and number < 0:
                    if (inside ^ value) >> _HALF == 0:
                        other = np.int64(inside & _LOW) - 1
                        if sizes[other] == size and equal(words, start, size, own, begin[other]):
                            number = other
                    cell = (cell + np.uint64(1)) & mask
                    inside = cells[cell]
            if number < 0 and add:
                first, count = begin[known], (size + 7) // 8
                full = 2 * (known + 1) > len(cells) or known + 1 > len(sizes)
                if full or first + count > len(own):
                    break
                for k in range(count):
                    own[first + k] = word(words, start, size, k)
                hashes[known], sizes[known], begin[known + 1] = value, size, first + count
                cells[cell] = content(value, known)
                added[known - before] = row
                number = known
                known += 1
            found[row] = number
            row += 1
        counts[KNOWN], counts[PLACED], counts[DONE] = known, known, row

    return find
