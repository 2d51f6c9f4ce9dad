"""The natural logarithm of each element."""

import functools

import numpy as np
from numba import types

from streamrnn.simd import jit
from streamrnn.simd.arguments import Kernel
from streamrnn.simd.functions import log
from streamrnn.simd.vector import load, make_copy, store


@functools.cache
def log_entry() -> Kernel:
    """Return the kernel of log, of normal positive numbers: (x, out)."""
    n = jit.width()

    def build() -> Kernel:
        copy = make_copy(n)

        @jit.kernel
        def run(x, out):
            whole = x.size - x.size % n
            for i in range(0, whole, n):
                store(out, i, log(load(x, i, n)))
            if whole < x.size:
                rest = np.ones(n, np.float32)
                copy(x, whole, rest, 0, x.size - whole)
                store(rest, 0, log(load(rest, 0, n)))
                copy(rest, 0, out, whole, x.size - whole)

        return run

    f1 = types.Array(types.float32, 1, "C")
    return jit.compiled(f"log-{n}", build, types.void(f1, f1))
