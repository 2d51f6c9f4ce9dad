"""Random numbers by counter: number i of a key, whoever draws it and in whatever order.

The finalizer of SplitMix64 (Steele, Lea, Flood 2014) is applied to key + i * 2**64/phi, and again
to the result plus the key.
"""

import functools

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel


@jit.inline
def _mixed(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.cache
def entry() -> Kernel:
    """Return the kernel that sets out[i] to number i of a key, 64 random bits: (key, out)."""

    def build() -> Kernel:
        @jit.kernel
        def draw(key, out):
            for i in range(out.size):
                x = _mixed(key + np.uint64(i) * np.uint64(0x9E3779B97F4A7C15))
                out[i] = _mixed(x + key)

        return draw

    u1 = types.Array(types.uint64, 1, "C")
    return jit.compiled("random", build, types.void(types.uint64, u1))
