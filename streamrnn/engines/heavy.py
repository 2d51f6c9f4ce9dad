"""The streams with the most rows: one stream is scored by one worker, however many there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamrnn.arrays import Words
from streamrnn.sources import shown

_BUCKETS = 1 << 16
_KEPT = 4
Heavy = dict[int, tuple[int, str]]
"""Bucket of the key's hash -> rows, and the key as text."""


class KeyCounts:
    """Counts rows by a part of the hash of their keys.

    A bucket holds other streams too: of many streams, about a 65,536th of the rows.
    """

    def __init__(self, fields: Sequence[pa.Field]) -> None:
        self._fields = fields
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._last: tuple[Sequence[pa.Array], Words] | None = None

    def add(self, keys: Sequence[pa.Array], hash_N: Words) -> None:
        """Count N rows with these key columns and hashes."""
        bucket_N = hash_N & np.uint64(_BUCKETS - 1)
        self._counts += np.bincount(bucket_N.astype(np.int64), minlength=_BUCKETS)
        if len(bucket_N):
            self._last = keys, bucket_N

    def heaviest(self) -> Heavy:
        """Return the buckets with the most rows that have a row among those added last."""
        if self._last is None:
            return {}
        keys, bucket_N = self._last
        found: Heavy = {}
        for bucket in np.argsort(self._counts)[-_KEPT:].tolist():
            rows = np.flatnonzero(bucket_N == bucket)
            if len(rows):
                found[bucket] = int(self._counts[bucket]), self._text(keys, int(rows[0]))
        return found

    def _text(self, keys: Sequence[pa.Array], row: int) -> str:
        named = zip(self._fields, keys, strict=True)
        return ", ".join(f"{field.name}={shown(array, row)}" for field, array in named)


def merged(parts: Sequence[Heavy]) -> Heavy:
    """Add the rows of equal buckets.

    >>> merged([{7: (30, "id=a")}, {7: (50, "id=a"), 9: (10, "id=b")}])
    {7: (80, 'id=a'), 9: (10, 'id=b')}
    """
    found: Heavy = {}
    for part in parts:
        for bucket, (rows, key) in part.items():
            before, first = found.get(bucket, (0, key))
            found[bucket] = before + rows, first
    return found
