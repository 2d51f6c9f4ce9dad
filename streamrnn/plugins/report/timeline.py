"""The horizontal axis of a report, in buckets of one width, and quantiles of the values in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Doubles, Floats, Ints
from streamrnn.stream.sources import ticks, with_clock

MOST_BUCKETS = 400
_DAY = 86400
_WIDTHS = {
    60: "minute",
    600: "10 minutes",
    3600: "hour",
    _DAY: "day",
    7 * _DAY: "week",
    28 * _DAY: "4 weeks",
    364 * _DAY: "52 weeks",
}
_MONDAY = 4 * _DAY  # 1970-01-05


def positions(column: pa.Array, zone: str = "") -> Ints:
    """Return the place (N,) of each time on the axis: seconds of its wall clock since 1970.

    The clock shows the time in `zone` ([source] time_zone), else in the zone of the column.
    Integers are returned as they are; null is 0.
    """
    kind = column.type
    if pa.types.is_date(kind):
        column = column.cast(pa.timestamp("s"))
    elif pa.types.is_timestamp(kind):
        column = with_clock(column, zone)
        if column.type.tz not in (None, "UTC"):
            column = pc.local_timestamp(column)
        column = column.cast(pa.timestamp("s"), safe=False)
    return ticks(column)


@dataclass(frozen=True)
class Timeline:
    """`buckets` of `width` places each, from the place `first` on.

    `unit` is the width in words. Without `clock`, places are integers: values of an integer time
    column, or row numbers if the output is not `timed`.
    """

    clock: bool
    first: int
    width: int
    buckets: int
    unit: str
    timed: bool = field(default=True, repr=False)

    @classmethod
    def of(
        cls, first: int, last: int, *, clock: bool, most: int = MOST_BUCKETS, timed: bool = True
    ) -> "Timeline":
        """Return the finest timeline from the place `first` to `last` with at most `most` buckets.

        >>> Timeline.of(0, 3 * 86400, clock=True, most=100)
        Timeline(clock=True, first=0, width=3600, buckets=73, unit='hour')
        >>> Timeline.of(3, 950, clock=False, most=10)
        Timeline(clock=False, first=0, width=100, buckets=10, unit='100')
        """
        width = next(
            width for width in _widths(clock) if _bucket(last, width) - _bucket(first, width) < most
        )
        start = _bucket(first, width)
        unit = _WIDTHS.get(width) or (f"{width // (364 * _DAY)} x 52 weeks" if clock else "")
        return cls(
            clock,
            start * width + _shift(width),
            width,
            _bucket(last, width) - start + 1,
            unit or f"{width:,}",
            timed,
        )

    def coarser(self, most: int) -> "Timeline":
        """Return a timeline over the same places, with at most `most` buckets."""
        last = self.first + self.width * self.buckets - 1
        return Timeline.of(self.first, last, clock=self.clock, most=most, timed=self.timed)

    def bucket(self, place_N: Ints) -> Ints:
        """Return the bucket (N,) of each place; beyond the ends, the first or the last bucket."""
        bucket_N: Ints = ((place_N - self.first) // self.width).clip(0, self.buckets - 1)
        return bucket_N

    def name(self, place: int) -> str | int:
        """Return a place as a number, a date, or (if a bucket is less than a day) a time."""
        if not self.clock:
            return place
        return text_of(place, "m" if self.width < _DAY else "D")

    @property
    def column(self) -> str:
        """The name of the column that has the starts of the buckets."""
        return "time" if self.timed else "row_number"

    def starts(self) -> dict[str, Any]:
        """Return the column of a table that has the starts of the buckets."""
        return {self.column: [self.name(self.first + i * self.width) for i in range(self.buckets)]}

    @property
    def per(self) -> str:
        """How values are grouped, in words: by day, by 100 rows."""
        if self.clock:
            return f"by {self.unit}"
        one, several = ("unit of time", "units of time") if self.timed else ("row", "rows")
        return f"by {self.unit} {one if self.width == 1 else several}"

    def axis(self) -> dict[str, Any]:
        """Return what a picture needs to know about its horizontal axis."""
        return {
            "x_field": self.column,
            "x_title": self.unit if self.clock else self.column.removesuffix("_number"),
            "clock": self.clock,
            "step": self.width,
        }


def text_of(place: int, unit: str = "m") -> str:
    """Return a place as a date and, in the unit "m", its hour and minute.

    >>> text_of(86400 + 3600), text_of(86400 + 3600, "D")
    ('1970-01-02T01:00', '1970-01-02')
    """
    return str(np.datetime64(place, "s").astype(f"M8[{unit}]"))


def _widths(clock: bool) -> Iterator[int]:
    if clock:
        yield from _WIDTHS
        yield from (364 * _DAY << doublings for doublings in count(1))
    yield from (first * 10**zeros for zeros in count() for first in (1, 2, 5))


def _shift(width: int) -> int:
    return _MONDAY if width % (7 * _DAY) == 0 else 0


def _bucket(place: int, width: int) -> int:
    return (place - _shift(width)) // width


MOST = 2000


class BucketSample:
    """Rows of V values, in buckets.

    A bucket of up to 2 `most` rows keeps all of them. A larger one keeps a share of 1/2, 1/4, …:
    between about `most` and 2 `most` rows. The rows to keep are drawn at random, with a fixed seed:
    every second row, say, could coincide with a period of the streams. Quantiles are of finite
    values.
    """

    def __init__(self, buckets: int, series: int, most: int = MOST) -> None:
        self._most = most
        self._draws = np.random.default_rng(0)
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
        draw = self._draws.random(len(bucket_N), np.float32)
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

    def bands(self) -> list[dict[str, Doubles]]:
        """Return the quantiles 0.1, 0.5 and 0.9 (buckets,) of each of the V values, by name."""
        quantiles = self.quantiles((0.1, 0.5, 0.9)).transpose(1, 2, 0)
        return [dict(zip(("low", "median", "high"), band, strict=True)) for band in quantiles]

    def quantiles(self, shares: Sequence[float]) -> Doubles:
        """Return quantiles (buckets, V, len(shares)), interpolated linearly; NaN without values."""
        self._compact()
        result = np.full((len(self.counts), self._series, len(shares)), np.nan)
        if self._kept:
            bucket, _, value = self._kept[0]
            for series in range(self._series):
                present = np.isfinite(value[:, series])
                result[:, series] = _quantiles(
                    bucket[present], value[present, series], len(self.counts), shares
                )
        return result


def _quantiles(bucket: Ints, value: Floats, buckets: int, shares: Sequence[float]) -> Doubles:
    ordered = value[np.lexsort((value, bucket))].astype(np.float64)
    size = np.bincount(bucket, minlength=buckets)
    start = np.cumsum(size) - size
    some = size > 0
    result = np.full((buckets, len(shares)), np.nan)
    for column, share in enumerate(shares):
        place = (size[some] - 1) * share
        low = place.astype(np.int64)
        high = np.minimum(low + 1, size[some] - 1)
        below, above = ordered[start[some] + low], ordered[start[some] + high]
        result[some, column] = below + (above - below) * (place - low)
    return result
