"""Orthonormal columns, without LAPACK: the same bits on any CPU."""

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.nn import simd


def orthonormal(a: Array) -> Array:
    """Return the orthonormal Q of a = Q R, where R has a positive diagonal.

    a: (n, k) float64, k <= n, of full rank; it is overwritten.
    """
    q = np.empty_like(a)
    simd.orthogonal.entry()(a, q)
    return q
