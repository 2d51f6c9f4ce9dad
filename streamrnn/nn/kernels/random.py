"""Counter-based random numbers, the same in whatever order they are drawn; orthonormal columns."""

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints, Words
from streamrnn.nn import simd

_MASK = (1 << 64) - 1


def key_of(*numbers: int) -> int:
    """Return one key made from several numbers, such as (seed, layer, step)."""
    key = 0
    for number in numbers:
        drawn = _draw((key ^ (number * 0x9E3779B97F4A7C15)) & _MASK, 1)
        key = int(drawn[0])
    return key


def factors(key: int, shape: tuple[int, ...], rate: float) -> Floats:
    """Return factors of dropout: 0 with probability `rate`, else 1 / (1 - rate).

    Element (lane, unit) depends on the key and its flat index alone.
    """
    if rate >= 1:
        return np.zeros(shape, np.float32)
    bits = _draw(key, int(np.prod(shape))) >> np.uint64(40)
    kept = bits.astype(np.float32) * np.float32(2**-24) >= np.float32(rate)
    drawn: Floats = kept.astype(np.float32).reshape(shape) / np.float32(1 - rate)
    return drawn


def permutation(key: int, count: int) -> Ints:
    """Return the numbers below `count` in the random order of a key."""
    order: Ints = np.argsort(_draw(key, count), kind="stable")
    return order


def _draw(key: int, count: int) -> Words:
    out = np.empty(count, np.uint64)
    simd.random.random_kernel()(np.uint64(key), out)
    return out


def orthonormal(a: Array) -> Array:
    """Return the orthonormal Q of a = Q R, where R has a positive diagonal.

    It is computed without LAPACK, so its bits are the same on any CPU. a: (n, k) float64, k <= n,
    of full rank; it is overwritten.
    """
    q = np.empty_like(a)
    simd.random.orthonormal_kernel()(a, q)
    return q
