"""The rows of a source that a replay reads: those since a time, or the last of each stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Bools, Ints
from streamrnn.stream.sources import SourceBatch
from streamrnn.stream.states import KeyIndex

_EARLIEST = -(2**63)


def rows_since(batches: Iterator[SourceBatch], time: str, first: int) -> Iterator[SourceBatch]:
    """Yield the rows whose time is `first` or later, in ticks; not those without a time."""
    for item in batches:
        yield _kept(item, _ticks(item.batch.column(time)) >= first)


class LastRows:
    """The last `most` rows of each stream, of batches that are read twice.

    What is kept between the rounds, one number per stream, does not grow with the rows.
    """

    def __init__(self, keys: Sequence[pa.Field], most: int) -> None:
        self._index = KeyIndex(keys)
        self._names = [field.name for field in keys]
        self._most = most
        self._left = np.zeros(0, np.int64)

    def count(self, batches: Iterator[SourceBatch]) -> None:
        """Count the rows of each stream, in the first round."""
        for item in batches:
            slots = self._slots(item, add=True)
            counts = np.bincount(slots, minlength=len(self._index))
            counts[: len(self._left)] += self._left
            self._left = counts

    def least(self, keys: Sequence[pa.Array]) -> int:
        """Return the smallest number of rows of these streams; 0 if one of them has none."""
        slots = self._index.find(keys, add=False)
        counts = np.where(slots >= 0, self._left[slots], 0) if len(self._left) else slots * 0
        return int(counts.min(initial=2**62))

    def of(self, batches: Iterator[SourceBatch]) -> Iterator[SourceBatch]:
        """Yield the last rows of each stream, in the second round, of the same batches."""
        for item in batches:
            slots = self._slots(item, add=False)
            keep = np.zeros(len(slots), bool)
            valid = np.flatnonzero(slots >= 0)
            keep[valid] = self._left[slots[valid]] - _earlier(slots[valid]) <= self._most
            self._left -= np.bincount(slots[valid], minlength=len(self._left))
            yield _kept(item, keep)

    def _slots(self, item: SourceBatch, add: bool) -> Ints:
        """Return the slot of each row of a batch; only those with a key, or -1 without one."""
        keys = [item.batch.column(name) for name in self._names]
        valid = np.ones(len(item.batch), bool)
        for key in keys:
            valid &= key.is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(valid)
        found = self._index.find([key.take(pa.array(rows)) for key in keys], add=add)
        if add:
            return found
        slots = np.full(len(item.batch), -1)
        slots[rows] = found
        return slots


def _earlier(slots: Ints) -> Ints:
    """Return how many rows before each one have the same slot."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    within = np.arange(len(slots)) - np.repeat(begins, np.diff(begins, append=len(slots)))
    earlier = np.empty(len(slots), np.int64)
    earlier[order] = within
    return earlier


def _kept(item: SourceBatch, keep_N: Bools) -> SourceBatch:
    """Return a batch with the rows to keep; its position is the same."""
    if keep_N.all():
        return item
    rows = np.flatnonzero(keep_N)
    return replace(item, batch=item.batch.take(pa.array(rows)), origin=item.origin.take(rows))


def _ticks(times: pa.Array) -> Ints:
    if pa.types.is_temporal(times.type):
        times = times.view(pa.int64() if times.type.bit_width == 64 else pa.int32())
    ticks: Ints = pc.fill_null(times.cast(pa.int64()), _EARLIEST).to_numpy(zero_copy_only=False)
    return ticks
