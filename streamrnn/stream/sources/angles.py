"""Sine and cosine of the parts of a time: the columns that `time_features` adds."""

import math
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Floats


@cache
def _table(period: int) -> Floats:
    """Return sine and cosine (period + 1, 2) of n * (2 pi / period), float64 rounded to float32.

    They are computed by their series, so that no bit depends on the C library: in float64, a
    library that uses fused multiply-add computes other sines than one that does not.
    """
    table = np.empty((period + 1, 2))
    with localcontext(Context(prec=40)):  # a caller's traps would raise
        for n in range(period + 1):
            angle, term, k = Decimal(n * (2 * math.pi / period)), Decimal(1), 0
            sums = [Decimal(0), Decimal(0)]
            while term > Decimal("1e-36"):
                sums[k % 2] += -term if k % 4 > 1 else term
                k += 1
                term *= angle / k
            table[n] = sums[::-1]
    return table.astype(np.float32)


_SECONDS = 9 * 10**11  # 28,500 years: Arrow's calendar ends in the year 32,767
MOST_TICKS = {
    "day": _SECONDS // 86_400,
    "s": _SECONDS,
    "ms": _SECONDS * 10**3,
    "us": _SECONDS * 10**6,
    "ns": 2**63 - 1,
}
"""The largest distance from 1970 of a time that has angles, in ticks, by the unit of its type."""


def _hour(times: pa.Array) -> pa.Array:
    return pc.hour(times) if pa.types.is_timestamp(times.type) else pa.repeat(0, len(times))


_FEATURES: dict[str, tuple[int, Callable[[pa.Array], pa.Array]]] = {
    "hour": (24, _hour),
    "day_of_week": (7, pc.day_of_week),
    "day_of_year": (366, pc.day_of_year),
}


def sine_and_cosine(name: str, times: pa.Array) -> Floats:
    """Return the sine and the cosine of an angle for N timestamps or dates: (N, 2) float32.

    The angle of `hour` is 2 pi hour / 24, with the hour of the day from 0 to 23, without minutes;
    the angle of `day_of_week` is 2 pi day / 7, with Monday as 0; the angle of `day_of_year` is
    2 pi day / 366, with days from 1 to 366. Hours and days are in the time zone of the column,
    which [source] time_zone replaces; a null has the angle 0.
    """
    period, part_of = _FEATURES[name]
    if getattr(times.type, "tz", None) == "UTC":
        # Without this, Arrow would look up the offset of each time.
        times = times.view(pa.timestamp(times.type.unit))
    part = part_of(times)
    if part.null_count:
        part = pc.fill_null(part, 0)
    values: Floats = _table(period).take(part.to_numpy(zero_copy_only=False), axis=0, mode="clip")
    return values
