"""The streams with the most rows: one stream is scored by one worker, however many there are."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Words
from streamrnn.stream.sources import shown

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
        self._keys: dict[int, str] = {}

    def add(self, keys: Sequence[pa.Array], hash_N: Words) -> None:
        """Count N rows with these key columns and hashes."""
        bucket_N = (hash_N & np.uint64(_BUCKETS - 1)).astype(np.int64)
        counts = np.bincount(bucket_N, minlength=_BUCKETS)
        self._counts += counts
        largest = int(counts.argmax())
        if counts[largest] and largest not in self._keys:
            self._keys[largest] = self._text(keys, int(np.argmax(bucket_N == largest)))

    def heaviest(self) -> Heavy:
        """Return the buckets with the most rows among the largest of each record batch."""
        found: Heavy = {
            bucket: (int(self._counts[bucket]), key) for bucket, key in self._keys.items()
        }
        return dict(sorted(found.items(), key=lambda item: -item[1][0])[:_KEPT])

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
