"""Counter-based random numbers, and the orthonormal factor of a matrix."""

import functools
import math

import numpy as np
from numba import config, types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.jit import D2, U1, inline


@inline
def _mixed(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@jit.on_demand("random", types.void(types.uint64, U1))
def random_kernel(key, out):
    """Set out[i] to random number i of a key: 64 bits that depend on the key and i alone.

    The finalizer of SplitMix64 (Steele, Lea, Flood 2014) is applied to key + i * 2**64/phi, and
    again to the result plus the key.
    """
    for i in range(out.size):
        x = _mixed(key + np.uint64(i) * np.uint64(0x9E3779B97F4A7C15))
        out[i] = _mixed(x + key)


@inline
def _reflect(a, i):
    """Replace column i, from row i on, by the v of the reflection that zeroes it below row i.

    v[i] is 1. Return the factor of v v' in the reflection, and the sign of the element in row i.
    """
    first, square, rest = a[i, i], 0.0, False
    for r in range(i, a.shape[0]):
        square += a[r, i] * a[r, i]
        rest = rest or (r > i and a[r, i] != 0.0)
    a[i, i] = 1.0
    if not rest:
        return 0.0, math.copysign(1.0, first)
    left = -math.copysign(math.sqrt(square), first)
    for r in range(i + 1, a.shape[0]):
        a[r, i] /= first - left
    return (left - first) / left, math.copysign(1.0, left)


@inline
def _apply(v, i, scale, a, begin, total):
    """Reflect the columns of `a` from `begin` on by column i of `v`. `total`: space for a row."""
    total[begin:] = 0.0
    for r in range(i, a.shape[0]):
        for c in range(begin, a.shape[1]):
            total[c] += v[r, i] * a[r, c]
    for c in range(begin, a.shape[1]):
        total[c] *= scale
    for r in range(i, a.shape[0]):
        for c in range(begin, a.shape[1]):
            a[r, c] -= v[r, i] * total[c]


@functools.cache
def orthonormal_kernel() -> Kernel:
    """Return the kernel (a, q), which writes to q the Q of a = Q R; R has a positive diagonal.

    Both arrays are (n, k) with k <= n; `a` has full rank, and is overwritten. Sums are in float64
    and run over rows in their order. The kernel uses Householder reflections (Golub & Van Loan,
    Matrix Computations, 5.1 and 5.2). With Numba's compiler disabled, as for debugging a
    custom cell, it runs in Python, with the same bits.
    """

    @jit.kernel
    def run(a, q):
        count = a.shape[1]
        scales, signs, total = np.empty(count), np.empty(count), np.empty(count)
        for i in range(count):
            scales[i], signs[i] = _reflect(a, i)
            _apply(a, i, scales[i], a, i + 1, total)
        q[:, :] = 0.0
        for i in range(count):
            q[i, i] = 1.0
        for i in range(count - 1, -1, -1):
            _apply(a, i, scales[i], q, i, total)
        for r in range(q.shape[0]):
            for c in range(count):
                q[r, c] *= signs[c]

    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return run
    return jit.compiled("orthogonal", lambda: run, types.void(D2, D2))
