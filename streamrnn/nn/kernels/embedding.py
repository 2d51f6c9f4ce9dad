"""Embedding: rows of a table."""

import numpy as np

from streamrnn.base.arrays import Floats, Ints
from streamrnn.nn import simd
from streamrnn.nn.kernels import threads

PRODUCTS_A_FLOAT = 8
"""Number of products that take as long as copying one float: 4096 rows of 128 take 41 µs."""


def run(table_VE: Floats, ids_N: Ints, y_NE: Floats) -> None:
    """Set `y_NE`[n] = `table_VE`[`ids_N`[n]]. Layers check that the ids are rows of the table."""
    if not threads.pays(PRODUCTS_A_FLOAT * y_NE.size):
        # mode="clip" merely lets NumPy write directly into y_NE; "raise" goes through a copy.
        np.take(table_VE, ids_N, axis=0, out=y_NE, mode="clip")
        return
    take = simd.embedding.entry(simd.jit.width())
    table, ids = np.ascontiguousarray(table_VE), np.ascontiguousarray(ids_N)
    threads.by_lanes(lambda first, last: take(table, ids, y_NE, first, last), len(ids))


def add_rows(gradient_VE: Floats, ids_N: Ints, dy_NE: Floats) -> None:
    """Add each row of `dy_NE` to the row of its id, in the order of the rows."""
    simd.sums.add_rows_entry()(gradient_VE, ids_N, dy_NE)
