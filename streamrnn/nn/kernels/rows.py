"""Rows of a source: from keys of streams to numbers, whether all rows are plain, and their hash.

The search for a key is a kernel, so that it costs less than the model. With Arrow and NumPy
operations over whole columns it took an eighth of a run with 100,000 streams in each record batch
(0.29 s for 2,000,000 rows); this loop takes 0.03 s. It is bound by memory latency, so it

- looks up the cells of the next rows together, so that their latencies overlap (a million streams
  in random order: 210 -> 150 ns a row)
- first tries the key that was added right after the previous row's key: streams that are logged in
  turns mostly repeat their order, and while they do, no hash is needed (100,000 streams: 26 -> 8 ns
  a row)
- moves the entries of its cells a few at a time when the cells double, and searches both tables
  meanwhile: with a million streams, a call that moves all of them would take 0.2 s
"""

import ctypes
import mmap
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Ints, Words
from streamrnn.nn import simd
from streamrnn.nn.simd.arguments import (
    DONE,
    FILLED,
    KNOWN,
    MOVED,
    LastTimes,
    PlainColumns,
    PlainRows,
    Strings,
    StringTable,
)

__all__ = [
    "LastTimes", "PlainColumns", "PlainRows", "StringIndex", "add_strings", "add_words", "digest",
    "grown", "read_plain", "small_pages",
]  # fmt: skip

T = TypeVar("T", bound=np.generic)

_SMALL = 1 << 16
"""Bytes up to which an array is copied when it grows."""
_HUGE = 4 << 20
"""Bytes at the beginning of an array that stay in small pages: huge pages would take more memory
than a small table needs."""


def grown(array: npt.NDArray[T], rows: int) -> npt.NDArray[T]:
    """Return an array with at least `rows` rows: first `array`, then zeros.

    A large array reserves address space for as many rows as half of the machine's memory holds, and
    takes memory only for written pages. So it grows without a copy, and shares the rows of `array`.
    A small array, or one of Python objects, is copied, as is any array where address space counts
    as memory.
    """
    rows = max(rows, len(array))  # an interrupt may have left it longer than the others
    whole = array.base
    if not isinstance(whole, np.ndarray) or len(whole) < rows:
        shape, dtype = array.shape[1:], array.dtype
        width = int(np.prod(shape)) * dtype.itemsize
        most = _address_space() // width if rows * width > _SMALL and not dtype.hasobject else 0
        if most < rows:
            whole = np.zeros((rows, *shape), dtype)
        else:
            memory = small_pages(most * width)
            with suppress(AttributeError, OSError):  # a system without huge pages
                memory.madvise(mmap.MADV_HUGEPAGE, _HUGE)
            whole = np.ndarray((most, *shape), dtype, memory)
        whole[: len(array)] = array
    return whole[:rows]


def small_pages(size: int) -> mmap.mmap:
    """Return this many zero bytes, in separate pages that take memory only when written."""
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _address_space() -> int:
    """Return the bytes that one array may reserve; 0 where address space counts as memory."""
    limits = {resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    strict = overcommit.exists() and overcommit.read_text().strip() == "2"
    if strict or limits != {resource.RLIM_INFINITY}:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


_NONE, _HALF = np.zeros(0, np.uint64), np.uint64(32)
_NO_ROWS: Ints = np.zeros(0, np.int64)


class StringIndex:
    """Distinct byte strings, numbered in the order in which they were added.

    `cells` is a hash table with open addressing: half a hash and the number plus one, 0 if empty.
    Hashes only find a candidate; then all bytes are compared. `older` has the cells from before the
    last growth, of which each call moves some. Strings are stored as whole words, padded with
    zeros: string k is the first `size[k]` bytes of `words[begin[k]:begin[k + 1]]`.
    """

    def __init__(self) -> None:
        self._cells, self._older = np.zeros(1024, np.uint64), _NONE
        self._hashes, self._size = np.zeros(512, np.uint64), np.zeros(512, np.int64)
        self._begin, self._words = np.zeros(513, np.int64), np.zeros(1024, np.uint64)
        self._counts = np.zeros(5, np.int64)
        self._table: StringTable | None = None

    def __len__(self) -> int:
        return int(self._counts[KNOWN])

    def find(self, words: Words, start_N: Ints, size_N: Ints, add: bool) -> tuple[Ints, Ints]:
        """Return the number of each of N strings (N,) int64, and the rows of added strings.

        The strings are passed as in `simd.arguments.Strings`. Without `add` an unknown string gets
        the number -1.
        """
        rows, strings = len(start_N), Strings(words, start_N, size_N)
        numbers, added = np.empty(rows, np.int64), np.empty(rows if add else 0, np.int64)
        counts = self._counts
        before, counts[DONE] = int(counts[KNOWN]), 0
        while True:
            simd.keys.find_kernel()(strings, add, before, self.table(), numbers, added)
            if counts[DONE] == rows:
                if len(self._older) and counts[MOVED] == len(self._older):
                    self._table = None
                    self._older, counts[MOVED] = _NONE, 0
                new = int(counts[KNOWN]) - before
                return numbers, added[:new].copy() if new else _NO_ROWS
            self._grow(int(size_N[counts[DONE]]))

    def table(self) -> StringTable:
        """Return the arrays that kernels search in."""
        if self._table is None:
            arrays = self._cells, self._older, self._hashes, self._size, self._begin, self._words
            self._table = StringTable(*arrays, self._counts)
        return self._table

    def truncate(self, size: int) -> None:
        """Remove all strings from number `size` on; entries left in the cells are no longer found.

        `size` must not be below the `size` of the last `moving`: new strings would overwrite words
        of strings that stay.
        """
        self._counts[:2] = np.minimum(self._counts[:2], size)

    def moving(self, source: Ints, to: Ints, size: int) -> Callable[[], None]:
        """Return the call that gives the strings `source` the numbers `to`; `size` strings stay.

        `source` are all strings from number `size` on that stay; the strings that had the numbers
        `to` are removed. The call may be repeated. Words of removed strings stay where they are.
        """
        hashes, sizes, begins = self._hashes[source], self._size[source], self._begin[source]
        end, contents = self._begin[len(self)], _contents(hashes, to)
        tables = [(cells, _places(cells, hashes, source)) for cells in (self._cells, self._older)]

        def move() -> None:
            self._hashes[to], self._size[to], self._begin[to] = hashes, sizes, begins
            for cells, place in tables:
                cells[place[place >= 0]] = contents[place >= 0]
            self._begin[size] = end
            self.truncate(size)

        return move

    def rebuild(self) -> None:
        """Replace all cells with empty ones, which the next `find` fills.

        A copy that was made during a `find` needs this.
        """
        cells, self._table = _empty_cells(len(self._cells)), None
        # In one statement: an interrupt happens before all or after all.
        self._cells, self._older, self._counts[:] = cells, _NONE, (len(self), 0, 0, 0, 0)

    def _grow(self, size: int) -> None:
        """Make room for one more string of `size` bytes, or let `find` move more of the cells."""
        strings, cells, counts = len(self), self._cells, self._counts
        self._table = None  # before the change: an interrupt leaves no outdated table
        if 2 * (counts[FILLED] + 1) > len(cells) and counts[MOVED] == len(self._older):
            # Cells that mostly hold removed strings need no more room.
            larger = _empty_cells(2 * len(cells) if 4 * strings > len(cells) else len(cells))
            self._cells, self._older, counts[MOVED:] = larger, cells, 0
        # For one more string, the kernel checks the room in `size`, which grows after `begin` and
        # `hashes`: an interrupt leaves none of them short.
        if strings + 2 > len(self._begin):
            self._begin = grown(self._begin, 2 * len(self._begin) - 1)
        if strings + 1 > len(self._hashes):
            self._hashes = grown(self._hashes, 2 * len(self._hashes))
        if strings + 1 > len(self._size):
            self._size = grown(self._size, 2 * len(self._size))
        while self._begin[strings] + (size + 7) // 8 > len(self._words):
            self._words = grown(self._words, 2 * len(self._words))


def _contents(hashes: Words, numbers: Ints) -> Words:
    return hashes >> _HALF << _HALF | (numbers + 1).astype(np.uint64)


def _places(cells: Words, hashes: Words, numbers: Ints) -> Ints:
    """Return the cell of each string with these hashes and numbers, -1 if there is none."""
    places, left = np.full(len(numbers), -1), np.arange(len(numbers) if len(cells) else 0)
    wanted, mask = _contents(hashes, numbers), np.uint64(max(1, len(cells)) - 1)
    cell = hashes & mask
    while len(left):
        inside = cells[cell[left]]
        there = inside == wanted[left]
        places[left[there]] = cell[left[there]]
        left = left[~there & (inside != 0)]
        cell[left] = (cell[left] + np.uint64(1)) & mask
    return places


def _empty_cells(size: int) -> Words:
    """Return empty cells. In huge pages, the first strings would touch all pages in one call."""
    return np.frombuffer(small_pages(8 * size), np.uint64)


_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def read_plain(
    batch: Any, columns: PlainColumns, streams: StringIndex, last: LastTimes, most: int
) -> PlainRows | None:
    """Return the rows of a record batch of at least one row; None unless all are plain.

    batch: of any library with Arrow's PyCapsule interface. Nothing has to be decided about plain
    rows: every value is present, and every feature within its limits; the key is one of `streams`,
    and occurs once; the time, if there is a time column, is after the stream's time in `last`, by
    at most `most` ticks.
    """
    rows = batch.num_rows
    plain = PlainRows(
        np.empty(rows if columns.time >= 0 else 0, np.int64),
        np.empty(rows, np.int64),
        np.empty((rows, len(columns.features)), np.float32),
    )
    _schema, arrays = batch.__arrow_c_array__()  # the capsules are released together with this name
    address = _capsule_pointer(arrays, b"arrow_array")
    all_are = simd.plain_rows.read_kernel()(address, columns, streams.table(), last, most, plain)
    return plain if all_are else None


def add_words(h_N: Words, word_N: Words | npt.NDArray[np.uint32], factor: int) -> None:
    """Add a column of N words (uint32 or uint64, contiguous) to `h_N` (N,) uint64, in place."""
    add = simd.keys.add_words_kernel if word_N.dtype == np.uint64 else simd.keys.add_halves_kernel
    add()(h_N, word_N, np.uint64(factor))


def add_strings(h_N: Words, words: Words, start_N: Ints, size_N: Ints, factor: int) -> None:
    """Add a column of N byte strings, passed as to `StringIndex.find`, to `h_N`, in place."""
    simd.keys.add_strings_kernel()(h_N, words, start_N, size_N, np.uint64(factor))


def digest(h_N: Words) -> int:
    """Return the hash of the content of N rows, from the hash h of each row.

    The result does not depend on the order of the rows or on how they are cut: the hashes of parts
    of the rows add up to it, modulo 2**64. h[n] = sum over columns c of word[n, c] * factor[c],
    with odd factors, is the multilinear hash of Lemire and Kaser (https://arxiv.org/abs/1202.4961);
    the result is the sum of the mixed h[n]. As all numbers are integers, it is the same on any
    machine.
    """
    return int(simd.keys.total_kernel()(h_N))
