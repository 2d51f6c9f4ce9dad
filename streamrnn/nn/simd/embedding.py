"""Rows of a table by their numbers, without the GIL: with np.take, threads wait for it."""

import functools

from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.vector import make_copy


@functools.cache
def entry(n: int) -> Kernel:
    """Return the kernel for vectors of `n` floats: (table_VE, ids_N, y_NE, first, last).

    It writes the rows first..last of `y_NE`. All arrays must be C-contiguous.
    """
    copy = make_copy(n)

    def build() -> Kernel:
        @jit.kernel
        def take(table_VE, ids_N, y_NE, first, last):
            table, y, width = table_VE.reshape(-1), y_NE.reshape(-1), y_NE.shape[1]
            for row in range(first, last):
                copy(table, ids_N[row] * width, y, row * width, width)

        return take

    f2, ids = types.Array(types.float32, 2, "C"), types.Array(types.int64, 1, "C")
    signature = types.void(f2, ids, f2, types.intp, types.intp)
    return jit.compiled(f"embedding-{n}", build, signature)
