"""Quantiles of values by bucket, in bounded memory."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Doubles, Floats, Ints

MOST = 2000
_GOLDEN = 0.6180339887498949
"""Its multiples modulo 1 fill [0, 1) evenly, whatever the period of the rows."""


class BucketSample:
    """Rows of V values, in buckets. Of a bucket of up to 2 `most` rows all are kept.

    Of more, a share of 1/2, 1/4, … is kept, so that at least `most` stay; which ones depends on the
    numbers of the rows alone. NaN is no value.
    """

    def __init__(self, buckets: int, series: int, most: int = MOST) -> None:
        self._most = most
        self._rows = 0
        self._share = np.ones(buckets)
        self.counts = np.zeros(buckets, np.int64)
        self._kept: list[tuple[Ints, Floats, Floats]] = []
        self._size = 0
        self._series = series

    @property
    def sampled(self) -> bool:
        """Whether rows of a bucket were left out."""
        return bool((self._share < 1).any())

    def add(self, bucket_N: Ints, value_NV: Floats) -> None:
        """Add N rows."""
        count = len(bucket_N)
        draw = (np.arange(self._rows, self._rows + count) * _GOLDEN % 1.0).astype(np.float32)
        self._rows += count
        self.counts += np.bincount(bucket_N, minlength=len(self.counts))
        while (over := self.counts * self._share > 2 * self._most).any():
            self._share[over] /= 2
        chosen = draw < self._share[bucket_N]
        if chosen.all():
            self._kept.append((bucket_N, draw, value_NV))
        else:
            self._kept.append((bucket_N[chosen], draw[chosen], value_NV[chosen]))
        self._size += len(self._kept[-1][0])
        if self._size > 4 * self._most * len(self.counts):
            self._compact()

    def _compact(self) -> None:
        if not self._kept:
            return
        bucket, draw, value = (np.concatenate(items) for items in zip(*self._kept, strict=True))
        chosen = draw < self._share[bucket]
        self._kept = [(bucket[chosen], draw[chosen], value[chosen])]
        self._size = len(self._kept[0][0])

    def quantiles(self, shares: Sequence[float]) -> Doubles:
        """Return quantiles (buckets, V, len(shares)), linear between two values; NaN for none."""
        self._compact()
        found = np.full((len(self.counts), self._series, len(shares)), np.nan)
        if self._kept:
            bucket, _, value = self._kept[0]
            for series in range(self._series):
                present = np.isfinite(value[:, series])
                found[:, series] = _quantiles(
                    bucket[present], value[present, series], len(self.counts), shares
                )
        return found


def _quantiles(bucket: Ints, value: Floats, buckets: int, shares: Sequence[float]) -> Doubles:
    ordered = value[np.lexsort((value, bucket))].astype(np.float64)
    count = np.bincount(bucket, minlength=buckets)
    start = np.cumsum(count) - count
    some = count > 0
    found = np.full((buckets, len(shares)), np.nan)
    for column, share in enumerate(shares):
        place = (count[some] - 1) * share
        low = place.astype(np.int64)
        high = np.minimum(low + 1, count[some] - 1)
        below, above = ordered[start[some] + low], ordered[start[some] + high]
        found[some, column] = below + (above - below) * (place - low)
    return found
