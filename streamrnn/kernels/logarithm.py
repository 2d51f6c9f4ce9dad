"""The natural logarithm of whole arrays."""

import numpy as np

from streamrnn import simd
from streamrnn.arrays import Floats

_SMALLEST = np.float32(1.1754944e-38)
_SCALE = np.float32(2.0**24)
_OF_SCALE = np.float32(16.635532)
"""log(2**24)"""


def natural_log(x: Floats) -> Floats:
    """Return log of every element (float32): -inf for 0, nan below."""
    small, beyond = x < _SMALLEST, ~(x < np.float32(np.inf))
    scaled = np.where(small, x, np.float32(1)) * _SCALE  # subnormal numbers are not for the kernel
    normal = np.where(beyond | (x <= 0), np.float32(1), np.where(small, scaled, x))
    y = np.empty(normal.shape, np.float32)
    if y.size:
        flat = np.ascontiguousarray(normal, np.float32).reshape(-1)
        simd.logarithm.log_entry()(flat, y.reshape(-1))
    y = np.where(small, y - _OF_SCALE, y)
    y = np.where(x == 0, np.float32(-np.inf), np.where(x < 0, np.float32(np.nan), y))
    made: Floats = np.where(beyond, x, y)
    return made
