"""Plain rows of an Arrow record batch, read in place by one call.

For a few rows, the equivalent Arrow and NumPy calls would take longer than the model.
"""

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import KNOWN, MOVED, LastTimes, PlainColumns, PlainRows
from streamrnn.nn.simd.jit import F1, F2, I1, Inlined, inline, intrinsic
from streamrnn.nn.simd.keys import TABLE_TYPE, make_search

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_NULLS, _OFFSET, _BUFFERS, _CHILDREN = 8, 16, 40, 48
"""Offsets of these fields, in bytes, in a struct ArrowArray (the Arrow C data interface)."""


_B1 = types.Array(types.boolean, 1, "C")
_SIGNATURE = types.boolean(
    types.int64,
    types.NamedTuple((*[types.int64] * 4, I1, I1, F1, F1), PlainColumns),
    TABLE_TYPE,
    types.NamedTuple((I1, _B1), LastTimes),
    types.uint64,
    types.NamedTuple((I1, I1, F2), PlainRows),
)


def _loader(kind: types.Type) -> Inlined:
    """Make the function that loads a number from an address, aligned or not."""

    @intrinsic
    def load(typingctx, address):
        def emit(context, builder, sig, args):
            pointer = builder.inttoptr(args[0], context.get_value_type(kind).as_pointer())
            return builder.load(pointer, align=1)

        return kind(types.int64), emit

    return load


_byte, _int32, _int64 = (_loader(kind) for kind in (types.uint8, types.int32, types.int64))
_word, _float32, _float64 = (_loader(k) for k in (types.uint64, types.float32, types.float64))


@inline
def _column(batch, place, rows):
    """Return the address of a column's buffers, its first row in them, and whether it has nulls."""
    child = _int64(_int64(batch + _CHILDREN) + 8 * place)
    buffers, first = _int64(child + _BUFFERS), _int64(child + _OFFSET) + _int64(batch + _OFFSET)
    valid, null = _int64(buffers), False
    if valid != 0 and _int64(child + _NULLS) != 0:  # -1: not counted yet
        for row in range(first, first + rows):
            null |= (_byte(valid + row // 8) >> (row % 8)) & 1 == 0
    return buffers, first, null


@inline
def _string_word(values, start, size, k):
    left, at = size - 8 * k, values + start + 8 * k
    if left >= 8:
        return _word(at)
    word = np.uint64(0)
    for i in range(left):
        word |= np.uint64(_byte(at + i)) << np.uint64(8 * i)
    return word


_hashed, _, _search = make_search(_string_word)


@inline
def _find(batch, columns, table, slots):
    """Find the stream of each row; return whether all have one."""
    rows, width, held = len(slots), columns.key_width, table.counts[KNOWN]
    cells, older = table.cells, table.older
    mask, old = np.uint64(len(cells) - 1), np.uint64(len(older) - 1)
    buffers, first, null = _column(batch, columns.key, rows)
    if null:
        return False
    limits, values = _int64(buffers + 8), _int64(buffers + (8 if width > 0 else 16))
    for row in range(rows):
        if width > 0:
            start, size = (first + row) * width, width
        else:
            at = limits - (first + row) * width
            start = _int64(at) if width == -8 else np.int64(_int32(at))
            size = (_int64(at + 8) if width == -8 else np.int64(_int32(at + 4))) - start
        value = _hashed(values, start, size)
        cell = value & mask
        slot, _ = _search(cells, cell, cells[cell], values, start, size, value, table, held)
        if slot < 0 and table.counts[MOVED] < len(older):
            cell = value & old
            slot, _ = _search(older, cell, older[cell], values, start, size, value, table, held)
        if slot < 0:
            return False
        slots[row] = slot
    return True


@inline
def _read_times(batch, columns, time):
    """Read the times; return whether one is null."""
    buffers, first, null = _column(batch, columns.time, len(time))
    values, width = _int64(buffers + 8), columns.time_width
    for row in range(len(time)):
        at = values + (first + row) * width
        time[row] = _int64(at) if width == 8 else np.int64(_int32(at))
    return null


@inline
def _read_features(batch, columns, features):
    """Read the features; return whether all are numbers within their limits."""
    rows, good = len(features), True
    for f in range(len(columns.features)):
        buffers, first, null = _column(batch, columns.features[f], rows)
        values, width = _int64(buffers + 8), columns.widths[f]
        low, high = columns.low[f], columns.high[f]
        zero = low == 0 or high == 0
        good &= not null
        for row in range(rows):
            at = values + (first + row) * width
            value = np.float32(_float64(at)) if width == 8 else _float32(at)
            good &= low <= value <= high
            if zero and value == 0:
                good &= np.float32(1) / value > 0  # a limit of 0 changes -0
            features[row, f] = value
    return good


@inline
def _distinct(slots):
    """Return whether all slots are distinct."""
    bits = np.uint64(1)
    while (1 << bits) < 2 * len(slots):
        bits += np.uint64(1)
    cells, mask = np.zeros(1 << bits, np.int64), (np.uint64(1) << bits) - np.uint64(1)
    for slot in slots:
        cell = (np.uint64(slot) * _FACTOR) >> (np.uint64(64) - bits)
        while cells[cell] != 0:
            if cells[cell] == slot + 1:
                return False
            cell = (cell + np.uint64(1)) & mask
        cells[cell] = slot + 1
    return True


@inline
def _follow(time, slots, last, most):
    """Return whether each row comes after the last one of its stream, by at most `most` ticks."""
    for row in range(len(slots)):
        slot, now = slots[row], time[row]
        before = last.time[slot]
        if not last.seen[slot] or now <= before or np.uint64(now - before) > most:
            return False
    return True


@jit.on_demand("plain_rows", _SIGNATURE)
def read_kernel(batch, columns, table, last, most, rows):
    """Return whether all rows are plain; if so, they have been written to `rows`.

    See `kernels.rows.read_plain`; `batch` is the address of a struct ArrowArray.
    """
    time, slots, features = rows
    if not _read_features(batch, columns, features):
        return False
    if columns.time >= 0 and _read_times(batch, columns, time):
        return False
    if not (_find(batch, columns, table, slots) and _distinct(slots)):
        return False
    return columns.time < 0 or _follow(time, slots, last, most)
