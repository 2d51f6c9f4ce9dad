"""Sine and cosine of the parts of a time: the columns that `time_features` adds.

The values are constants, so that no bit depends on the C library: in float64, a library that uses
fused multiply-add computes other sines than one that does not. tests/stream/sources/test_angles.py
recomputes them.
"""

import base64
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Floats


def _table(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32).reshape(-1, 2)


# Row n: sine and cosine of n * (2 pi / period), rounded from float64 to float32; base64 of the
# little-endian bytes. Periods: 24, 7 and 366. Days of the year count from 1; row 0 is for null.
_HOUR = """
AAAAAAAAgD/ug4Q+6kZ3PwAAAD/Xs10/8wQ1P/MENT/Xs10/AAAAP+pGdz/ug4Q+AACAPzIxjSTqRnc/7oOEvtezXT8AAAC/
8wQ1P/MENb8AAAA/17Ndv+6DhD7qRne/MjENJQAAgL/ug4S+6kZ3vwAAAL/Xs12/8wQ1v/MENb/Xs12/AAAAv+pGd7/ug4S+
AACAv8rJU6XqRne/7oOEPtezXb8AAAA/8wQ1v/MENT8AAAC/17NdP+6DhL7qRnc/
"""
_DAY_OF_WEEK = """
AAAAAAAAgD8cJkg/B50fP+CUeT+H3GO+AibePuWlZr8CJt6+5aVmv+CUeb+H3GO+HCZIvwedHz8=
"""
_DAY_OF_YEAR = """
AAAAAAAAgD9noIw8WPZ/PxmbDD1g2X8/Y9tSPRupfz/ihYw9jGV/P3mTrz24Dn8/0ZPSPaekfj9FhPU9Xyd+PxoxDD7qln0/
fpUdPlTzfD/+7S4+qDx8P0w5QD71cns/GXZRPkmWej8Yo2I+tqZ5P/++cz5MpHg/QWSCPiGPdz8s34o+SGd2P51Pkz7ZLHU/
8LSbPurfcz+FDqQ+lIByP7lbrD70DnE/7Ju0PiOLbz9/zrw+QPVtP9PyxD5pTWw/SwjNPr+Taj9MDtU+YchoPzkE3T5062Y/
eunkPhv9ZD92vew+e/1iP5V/9D677GA/Qy/8PgPLXj/15QE/fZhcP3uqBT9RVVo/7GQJP60BWD//FA0/vZ1VP266ED+vKVM/
8VQUP7KlUD9D5Bc/+BFOPyBoGz+ybks/Q+AePxO8SD9qTCI/T/pFP1KsJT+cKUM/u/8oPy9KQD9jRiw/QFw9PwyALz8IYDo/
eKwyP8BVNz9pyzU/oz00P6LcOD/uFzE/6d87P9zkLT8E1T4/q6QqP7m7QT+bVyc/0JNEP+r9Iz8TXUc/2pcgP0sXSj+tJR0/
RMJMP6WnGT/KXU8/BR4WP6vpUT8RiRI/tmVUPxDpDj+70VY/Rj4LP4stWT/7iAc/+XhbP3bJAz/Xs10/AAAAP/zdXz/EWfg+
PfdhP8ug8D5y/2M/qtXoPnP2ZT/5+OA+GtxnP08L2T5EsGk/RA3RPsxyaz90/8g+kSNtP3riwD5ywm4/87a4PlBPcD98fbA+
DMpxP7U2qD6KMnM/PeOfPq+IdD+0g5c+Ysx1P74Yjz6J/XY/+6KGPg4ceD8hRnw+2yd5P0Mzaz7bIHo/pw5aPv0Gez+X2Ug+
L9p7P2CVNz5gmnw/T0MmPoNHfT+z5BQ+iuF9P9x6Az5paH4/Mg7kPRfcfj93FcE9ijx/PysOnj28iX8/5vV1PafDfz/mvC89
Rup/P0rt0jyW/X8/u6EMPJb9fz+7oQy8Rup/P0rt0rynw38/5rwvvbyJfz/m9XW9ijx/PysOnr0X3H4/dxXBvWlofj8yDuS9
iuF9P9x6A76DR30/s+QUvmCafD9PQya+L9p7P2CVN779Bns/l9lIvtsgej+nDlq+2yd5P0Mza74OHHg/IUZ8von9dj/7ooa+
Ysx1P74Yj76viHQ/tIOXvooycz8945++DMpxP7U2qL5QT3A/fH2wvnLCbj/ztri+kSNtP3riwL7Mcms/dP/IvkSwaT9EDdG+
GtxnP08L2b5z9mU/+fjgvnL/Yz+q1ei+PfdhP8ug8L783V8/xFn4vtezXT8AAAC/+XhbP3bJA7+LLVk/+4gHv7vRVj9GPgu/
tmVUPxDpDr+r6VE/EYkSv8pdTz8FHha/RMJMP6WnGb9LF0o/rSUdvxNdRz/alyC/0JNEP+r9I7+5u0E/m1cnvwTVPj+rpCq/
6d87P9zkLb+i3Dg/7hcxv2nLNT+jPTS/eKwyP8BVN78MgC8/CGA6v2NGLD9AXD2/u/8oPy9KQL9SrCU/nClDv2pMIj9P+kW/
Q+AePxO8SL8gaBs/sm5Lv0PkFz/4EU6/8VQUP7KlUL9uuhA/rylTv/8UDT+9nVW/7GQJP60BWL97qgU/UVVav/XlAT99mFy/
Qy/8PgPLXr+Vf/Q+u+xgv3a97D57/WK/eunkPhv9ZL85BN0+dOtmv0wO1T5hyGi/SwjNPr+Tar/T8sQ+aU1sv3/OvD5A9W2/
7Ju0PiOLb7+5W6w+9A5xv4UOpD6UgHK/8LSbPurfc7+dT5M+2Sx1vyzfij5IZ3a/QWSCPiGPd7//vnM+TKR4vxijYj62pnm/
GXZRPkmWer9MOUA+9XJ7v/7tLj6oPHy/fpUdPlTzfL8aMQw+6pZ9v0WE9T1fJ36/0ZPSPaekfr95k689uA5/v+KFjD2MZX+/
Y9tSPRupf78Zmww9YNl/v2egjDxY9n+/MjENJQAAgL9noIy8WPZ/vxmbDL1g2X+/Y9tSvRupf7/ihYy9jGV/v3mTr724Dn+/
0ZPSvaekfr9FhPW9Xyd+vxoxDL7qln2/fpUdvlTzfL/+7S6+qDx8v0w5QL71cnu/GXZRvkmWer8Yo2K+tqZ5v/++c75MpHi/
QWSCviGPd78s34q+SGd2v51Pk77ZLHW/8LSbvurfc7+FDqS+lIByv7lbrL70DnG/7Ju0viOLb79/zry+QPVtv9PyxL5pTWy/
SwjNvr+Tar9MDtW+YchovzkE3b5062a/eunkvhv9ZL92vey+e/1iv5V/9L677GC/Qy/8vgPLXr/15QG/fZhcv3uqBb9RVVq/
7GQJv60BWL//FA2/vZ1Vv266EL+vKVO/8VQUv7KlUL9D5Be/+BFOvyBoG7+ybku/Q+AevxO8SL9qTCK/T/pFv1KsJb+cKUO/
u/8ovy9KQL9jRiy/QFw9vwyAL78IYDq/eKwyv8BVN79pyzW/oz00v6LcOL/uFzG/6d87v9zkLb8E1T6/q6Qqv7m7Qb+bVye/
0JNEv+r9I78TXUe/2pcgv0sXSr+tJR2/RMJMv6WnGb/KXU+/BR4Wv6vpUb8RiRK/tmVUvxDpDr+70Va/Rj4Lv4stWb/7iAe/
+Xhbv3bJA7/Xs12/AAAAv/zdX7/EWfi+Pfdhv8ug8L5y/2O/qtXovnP2Zb/5+OC+Gtxnv08L2b5EsGm/RA3Rvsxya790/8i+
kSNtv3riwL5ywm6/87a4vlBPcL98fbC+DMpxv7U2qL6KMnO/PeOfvq+IdL+0g5e+Ysx1v74Yj76J/Xa/+6KGvg4ceL8hRny+
2yd5v0Mza77bIHq/pw5avv0Ge7+X2Ui+L9p7v2CVN75gmny/T0MmvoNHfb+z5BS+iuF9v9x6A75paH6/Mg7kvRfcfr93FcG9
ijx/vysOnr28iX+/5vV1vafDf7/mvC+9Rup/v0rt0ryW/X+/u6EMvJb9f7+7oQw8Rup/v0rt0jynw3+/5rwvPbyJf7/m9XU9
ijx/vysOnj0X3H6/dxXBPWlofr8yDuQ9iuF9v9x6Az6DR32/s+QUPmCafL9PQyY+L9p7v2CVNz79Bnu/l9lIPtsger+nDlo+
2yd5v0Mzaz4OHHi/IUZ8Pon9dr/7ooY+Ysx1v74Yjz6viHS/tIOXPooyc789458+DMpxv7U2qD5QT3C/fH2wPnLCbr/ztrg+
kSNtv3riwD7Mcmu/dP/IPkSwab9EDdE+Gtxnv08L2T5z9mW/+fjgPnL/Y7+q1eg+Pfdhv8ug8D783V+/xFn4PtezXb8AAAA/
+Xhbv3bJAz+LLVm/+4gHP7vRVr9GPgs/tmVUvxDpDj+r6VG/EYkSP8pdT78FHhY/RMJMv6WnGT9LF0q/rSUdPxNdR7/alyA/
0JNEv+r9Iz+5u0G/m1cnPwTVPr+rpCo/6d87v9zkLT+i3Di/7hcxP2nLNb+jPTQ/eKwyv8BVNz8MgC+/CGA6P2NGLL9AXD0/
u/8ovy9KQD9SrCW/nClDP2pMIr9P+kU/Q+AevxO8SD8gaBu/sm5LP0PkF7/4EU4/8VQUv7KlUD9uuhC/rylTP/8UDb+9nVU/
7GQJv60BWD97qgW/UVVaP/XlAb99mFw/Qy/8vgPLXj+Vf/S+u+xgP3a97L57/WI/eunkvhv9ZD85BN2+dOtmP0wO1b5hyGg/
SwjNvr+Taj/T8sS+aU1sP3/OvL5A9W0/7Ju0viOLbz+5W6y+9A5xP4UOpL6UgHI/8LSbvurfcz+dT5O+2Sx1Pyzfir5IZ3Y/
QWSCviGPdz//vnO+TKR4PxijYr62pnk/GXZRvkmWej9MOUC+9XJ7P/7tLr6oPHw/fpUdvlTzfD8aMQy+6pZ9P0WE9b1fJ34/
0ZPSvaekfj95k6+9uA5/P+KFjL2MZX8/Y9tSvRupfz8Zmwy9YNl/P2egjLxY9n8/MjGNpQAAgD8=
"""


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


_FEATURES: dict[str, tuple[Floats, Callable[[pa.Array], pa.Array]]] = {
    "hour": (_table(_HOUR), _hour),
    "day_of_week": (_table(_DAY_OF_WEEK), pc.day_of_week),
    "day_of_year": (_table(_DAY_OF_YEAR), pc.day_of_year),
}


def sine_and_cosine(name: str, times: pa.Array) -> Floats:
    """Return the sine and the cosine of an angle for N timestamps or dates: (N, 2) float32.

    The angle of `hour` is 2 pi hour / 24, with the hour of the day from 0 to 23, without minutes;
    the angle of `day_of_week` is 2 pi day / 7, with Monday as 0; the angle of `day_of_year` is
    2 pi day / 366, with days from 1 to 366. Hours and days are in the time zone of the column,
    which [source] time_zone replaces; a null has the angle 0.
    """
    table, part_of = _FEATURES[name]
    if getattr(times.type, "tz", None) == "UTC":
        # Without this, Arrow would look up the offset of each time.
        times = times.view(pa.timestamp(times.type.unit))
    part = part_of(times)
    if part.null_count:
        part = pc.fill_null(part, 0)
    values: Floats = table.take(part.to_numpy(zero_copy_only=False), axis=0, mode="clip")
    return values
