"""Embedding: rows of a table."""

import numpy as np

from streamrnn.arrays import Floats, Ints


def run(table_VE: Floats, ids_N: Ints, y_NE: Floats) -> None:
    """Set `y_NE`[n] = `table_VE`[`ids_N`[n]]. The ids must be rows of the table: layers check."""
    # mode="clip" only lets numpy write straight into y_NE; "raise" goes through a copy.
    np.take(table_VE, ids_N, axis=0, out=y_NE, mode="clip")
