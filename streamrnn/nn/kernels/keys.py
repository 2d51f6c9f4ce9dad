"""Keys to numbers: a hash table whose search is a kernel, so that it costs less than the model.

With Arrow and NumPy operations over whole columns the search took an eighth of a run with 100,000
streams in each record batch (0.29 s for 2,000,000 rows); this loop takes 0.03 s. It is bound by
memory latency, so it

- looks up the cells of the next rows together, so that their latencies overlap (a million streams
  in random order: 210 -> 150 ns a row)
- first tries the key that was added right after the previous row's key: streams that are logged in
  turns mostly repeat their order, and while they do, no hash is needed (100,000 streams: 26 -> 8 ns
  a row)
- moves the entries of its cells a few at a time when the cells double, and searches both tables
  meanwhile: with a million streams, a call that moves all of them would take 0.2 s
"""

from collections.abc import Callable

import numpy as np

from streamrnn.base.arrays import Ints, Words
from streamrnn.nn import simd
from streamrnn.nn.kernels.growing import grown, small_pages
from streamrnn.nn.simd.arguments import DONE, FILLED, KNOWN, MOVED, Strings, StringTable

_NONE, _HALF = np.zeros(0, np.uint64), np.uint64(32)
_NO_ROWS: Ints = np.zeros(0, np.int64)


class StringIndex:
    """Distinct byte strings, numbered in the order in which they were added.

    `cells` is a hash table with open addressing: half a hash and the number plus one, 0 if empty.
    Hashes only find a candidate; then all bytes are compared. `older` has the cells from before the
    last growth, of which each call moves some. Strings are stored as whole words, padded with
    zeros: `words[begin[k]:begin[k + 1]]`, `size[k]` bytes of them.
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

        The strings are as `simd.arguments.Strings` has them. Without `add` an unknown string gets
        the number -1.
        """
        rows, strings = len(start_N), Strings(words, start_N, size_N)
        numbers, added = np.empty(rows, np.int64), np.empty(rows if add else 0, np.int64)
        counts = self._counts
        before, counts[DONE] = int(counts[KNOWN]), 0
        while True:
            simd.keys.find_entry()(strings, add, before, self.table(), numbers, added)
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
        """Replace all cells by empty ones, which the next `find` fills.

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
