"""Hashes of Arrow values: equal values of one type have equal hashes, whatever array holds them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_START = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(32)


def hash_rows(arrays: list[pa.Array]) -> Hashes:
    """One hash (N,) uint64 a row of N values in one or more columns without nulls."""
    hashes = np.full(len(arrays[0]), _START)
    for array in arrays:
        data, start, size = _bytes(array)
        hashes = _mix(hashes ^ size.astype(np.uint64))
        shortest = int(size.min()) if len(size) else 0
        for done in range(0, int(size.max(initial=0)), 8):
            rows = slice(None) if shortest > done else np.flatnonzero(size > done)
            words = data[start[rows] + done]
            if shortest < done + 8:
                words &= _mask(size[rows] - done)
            hashes[rows] = _mix(hashes[rows] ^ words)
    return hashes


def _mix(hashes: Hashes) -> Hashes:
    hashes = hashes * _FACTOR
    return hashes ^ (hashes >> _HALF)


def _mask(left: Ints) -> Hashes:
    """The bits of a word that belong to the value, where `left` bytes of it are left."""
    unused = np.uint64(8) * (8 - np.minimum(left, 8)).astype(np.uint64)
    return np.uint64(0xFFFFFFFFFFFFFFFF) >> unused


def _bytes(array: pa.Array) -> tuple[Hashes, Ints, Ints]:
    """The word at each byte of the values' memory, and where each value begins and its size."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    rows = slice(array.offset, array.offset + len(array))
    buffers = array.buffers()
    if len(buffers) == 3:
        wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
        kind = np.int64 if wide else np.int32
        ends = np.frombuffer(buffers[1], kind)[: rows.stop + 1].astype(np.int64)
        start, size = ends[rows], np.diff(ends[rows.start :])
    else:
        width = array.type.bit_width // 8
        start = np.arange(rows.start, rows.stop) * width
        size = np.full(len(array), width)
    low = int(start[0]) if len(start) else 0
    high = int(start[-1] + size[-1]) if len(start) else 0
    padded = np.zeros(high - low + 8, np.uint8)
    if high > low:
        padded[: high - low] = np.frombuffer(buffers[-1], np.uint8)[low:high]
    words = np.ndarray(high - low + 1, "<u8", padded, strides=(1,))
    return words, start - low, size
