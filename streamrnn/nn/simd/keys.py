"""The search in a hash table of keys, and hashes of rows (see `kernels.rows`)."""

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import (
    DONE,
    FILLED,
    KNOWN,
    MOVED,
    PLACED,
    Strings,
    StringTable,
)
from streamrnn.nn.simd.jit import I1, U1, Inlined, inline_always

AHEAD = 64
"""Rows whose cells are looked up together."""

PACE = 4
"""Older cells that are moved per row; each call moves `AHEAD` more. This is fast enough: a table
that doubled has room for one more string per two older cells, a table that kept its size for one
per four."""

TABLE_TYPE = types.NamedTuple((U1, U1, U1, I1, I1, U1, I1), StringTable)
_WORDS = types.Array(types.uint64, 1, "A", aligned=False)

_FACTOR, _OTHER = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT, _HALF, _LOW = np.uint64(33), np.uint64(32), np.uint64(0xFFFFFFFF)


@inline_always
def _string_word(words, start, size, k):
    left, place = size - 8 * k, start + 8 * k
    if left >= 8:
        return words[place]
    beyond = np.uint64(64 - 8 * left)
    if place < len(words):
        return words[place] & (~np.uint64(0) >> beyond)
    return words[place + left - 8] >> beyond  # the word that ends with the string


def make_search(word: Inlined) -> tuple[Inlined, Inlined, Inlined]:
    """Make the functions that hash a string, compare it with a stored one, and search cells for it.

    `word(words, start, size, k)` returns word k of a string, with zeros past its end.
    """

    @inline_always
    def hashed(words, start, size):
        value = np.uint64(size) * _FACTOR
        for k in range((size + 7) // 8):
            value = (value ^ word(words, start, size, k)) * _FACTOR
            value ^= value >> _HALF
        return value

    @inline_always
    def equal(words, start, size, own, first):
        for k in range((size + 7) // 8):  # noqa: SIM110 - Numba has no generators
            if word(words, start, size, k) != own[first + k]:
                return False
        return True

    @inline_always
    def search(cells, cell, inside, words, start, size, value, table, held):
        """Return the number of a string in these cells, -1 if it is not there, and the next cell.

        The search begins at `cell`, which holds `inside`. If the string is not there, the next
        cell is the empty one that ends the search. Entries of removed strings stay in the cells:
        their numbers are out of use, or belong to other strings now.
        """
        mask = np.uint64(len(cells) - 1)
        number = np.int64(-1)
        while inside != 0 and number < 0:
            if (inside ^ value) >> _HALF == 0:
                other = np.int64(inside & _LOW) - 1
                if (
                    other < held
                    and table.size[other] == size
                    and equal(words, start, size, table.words, table.begin[other])
                ):
                    number = other
            cell = (cell + np.uint64(1)) & mask
            inside = cells[cell]
        return number, cell

    return hashed, equal, search


_hashed, _equal, _search = make_search(_string_word)


@inline_always
def _content(value, number):
    return (value & ~_LOW) | np.uint64(number + 1)


@inline_always
def _free_cell(cells, value):
    mask = np.uint64(len(cells) - 1)
    cell = value & mask
    while cells[cell] != 0:
        cell = (cell + np.uint64(1)) & mask
    return cell


@inline_always
def _move(table, begin, end, held):
    """Copy the entries of strings from the older cells `begin`..`end`; return how many they are."""
    cells, hashes = table.cells, table.hashes
    strings = 0
    for cell in range(begin, end):
        inside = table.older[cell]
        number = np.int64(inside & _LOW) - 1
        if inside != 0 and number < held and (inside ^ hashes[number]) >> _HALF == 0:
            cells[_free_cell(cells, hashes[number])] = inside
            strings += 1
    return strings


@jit.on_demand(
    "keys",
    types.void(
        types.NamedTuple((_WORDS, I1, I1), Strings), types.boolean, types.intp, TABLE_TYPE, I1, I1
    ),
)
def find_kernel(strings, add, before, table, number_N, added):
    """Find N strings, and insert new ones if `add`.

    If the table is full, stop early, with counts[DONE] < N.
    """
    words, start_N, size_N = strings.words, strings.start, strings.size
    cells, older, hashes, sizes = table.cells, table.older, table.hashes, table.size
    begin, own, counts = table.begin, table.words, table.counts
    held = counts[KNOWN]
    for old in range(counts[PLACED], held):
        cells[_free_cell(cells, hashes[old])] = _content(hashes[old], old)
    filled = counts[FILLED] + held - counts[PLACED]
    row = ahead_from = ahead_to = counts[DONE]
    moved = min(len(older), counts[MOVED] + PACE * (len(start_N) - row) + AHEAD)
    filled += _move(table, counts[MOVED], moved, held)
    mask = np.uint64(len(cells) - 1)
    value_A, inside_A = np.empty(AHEAD, np.uint64), np.empty(AHEAD, np.uint64)
    number = np.int64(-1)
    in_turn = False
    while row < len(start_N):
        start, size = start_N[row], size_N[row]
        follows = number + 1
        in_turn = (
            in_turn
            and follows < held
            and sizes[follows] == size
            and _equal(words, start, size, own, begin[follows])
        )
        if in_turn:
            number_N[row] = number = follows
            row += 1
            continue
        if row >= ahead_to:
            ahead_from, ahead_to = row, min(row + AHEAD, len(start_N))
            for a in range(ahead_to - row):
                value_A[a] = _hashed(words, start_N[row + a], size_N[row + a])
            for a in range(ahead_to - row):
                inside_A[a] = cells[value_A[a] & mask]
        value = value_A[row - ahead_from]
        number = np.int64(-1)
        if (
            follows < held
            and hashes[follows] == value
            and sizes[follows] == size
            and _equal(words, start, size, own, begin[follows])
        ):
            number, in_turn = follows, True
        if number < 0:
            cell, inside = value & mask, inside_A[row - ahead_from]
            if inside == 0:  # it may have been filled since
                inside = cells[cell]
            number, cell = _search(cells, cell, inside, words, start, size, value, table, held)
            if number < 0 and moved < len(older):
                home = value & np.uint64(len(older) - 1)
                number, _ = _search(
                    older, home, older[home], words, start, size, value, table, held
                )
        if number < 0 and add:
            first, count = begin[held], (size + 7) // 8
            full = 2 * (filled + 1) > len(cells) or held + 1 > len(sizes)
            if full or first + count > len(own):
                break
            for k in range(count):
                own[first + k] = _string_word(words, start, size, k)
            hashes[held], sizes[held], begin[held + 1] = value, size, first + count
            cells[cell] = _content(value, held)
            added[held - before] = row
            number = held
            held += 1
            filled += 1
        number_N[row] = number
        row += 1
    counts[KNOWN], counts[PLACED], counts[DONE] = held, held, row
    counts[MOVED], counts[FILLED] = moved, filled


@jit.on_demand("digest-halves", types.void(U1, types.Array(types.uint32, 1, "C"), types.uint64))
def add_halves_kernel(h_N, word_N, factor):
    """Add a column of words of 32 bits to the hashes of N rows."""
    for n in range(len(word_N)):
        h_N[n] += np.uint64(word_N[n]) * factor


@jit.on_demand("digest-words", types.void(U1, U1, types.uint64))
def add_words_kernel(h_N, word_N, factor):
    """Add a column of words of 64 bits to the hashes of N rows."""
    for n in range(len(word_N)):
        h_N[n] += word_N[n] * factor


@jit.on_demand("digest-strings", types.void(U1, _WORDS, I1, I1, types.uint64))
def add_strings_kernel(h_N, words, start_N, size_N, factor):
    """Add a column of strings to the hashes of N rows."""
    for n in range(len(start_N)):
        h_N[n] += _hashed(words, start_N[n], size_N[n]) * factor


@jit.on_demand("digest-total", types.uint64(U1))
def total_kernel(h_N):
    """Return the sum of the hashes of N rows; each hash is mixed first."""
    total = np.uint64(0)
    for n in range(len(h_N)):
        value = h_N[n]
        value = (value ^ (value >> _SHIFT)) * _FACTOR
        value = (value ^ (value >> _SHIFT)) * _OTHER
        total += value ^ (value >> _SHIFT)
    return total
