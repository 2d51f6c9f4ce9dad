"""From keys to slots: each stream has one row of the state table, in order of appearance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]


class KeyIndex:
    """Slots of keys of one or more columns; equal values are one stream, null is not allowed."""

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        self.fields = tuple(fields)
        self._slots: dict[Any, int] = {}
        self._columns: list[list[pa.Array]] = [[] for _ in self.fields]

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, arrays: Sequence[pa.Array], add: bool = True) -> Ints:
        """The slot (N,) of each of N keys; new ones are added, or are -1 if `add` is false."""
        codes, first = _distinct(arrays)
        uniques = [array.take(first) for array in arrays]
        values = _hashable(uniques)
        slots = self._slots
        found = np.fromiter((slots.get(v, -1) for v in values), np.int64, len(values))
        new = np.flatnonzero(found < 0)
        if add and len(new):
            start = len(slots)
            for i, row in enumerate(new.tolist()):
                slots[values[row]] = start + i
            found[new] = np.arange(start, start + len(new))
            for column, unique in zip(self._columns, uniques, strict=True):
                column.append(unique.take(pa.array(new)))
        return found[codes]

    def truncate(self, size: int) -> None:
        """Forget the keys that were added last, down to `size`."""
        if size == len(self._slots):
            return
        arrays = [array.slice(0, size) for array in self.arrays()]
        self._slots = dict(list(self._slots.items())[:size])
        self._columns = [[array] for array in arrays]

    def arrays(self) -> list[pa.Array]:
        """The key columns, one value a slot."""
        columns = []
        for i, field in enumerate(self.fields):
            chunks = [c.cast(field.type) for c in self._columns[i]]
            whole = pa.chunked_array(chunks, field.type).combine_chunks()
            if isinstance(whole, pa.ChunkedArray):
                whole = pa.concat_arrays(whole.chunks)
            self._columns[i] = [whole]
            columns.append(whole)
        return columns


def _distinct(arrays: Sequence[pa.Array]) -> tuple[Ints, pa.Array]:
    """A code for each row, and the first row of each code in order of first appearance."""
    codes = np.zeros(0, np.int64)
    for i, array in enumerate(arrays):
        indices = array.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
        if i == 0:
            codes = indices
        else:
            width = int(indices.max(initial=0)) + 1
            codes = _dense(codes * width + indices)
    first = _first_rows(codes)
    return codes, pa.array(first)


def _dense(codes: Ints) -> Ints:
    """The same codes numbered in order of first appearance."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]


def _first_rows(codes: Ints) -> Ints:
    if not len(codes):
        return codes
    first = np.empty(int(codes.max()) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first


def _hashable(arrays: Sequence[pa.Array]) -> list[Any]:
    columns = [_plain(array).to_pylist() for array in arrays]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _plain(array: pa.Array) -> pa.Array:
    """Times as integers: Python's own would lose nanoseconds."""
    kind = array.type
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return array.cast(pa.int32())
    if pa.types.is_temporal(kind):
        return array.cast(pa.int64())
    return array
