"""Rows that are held until the end of a run."""

from typing import NamedTuple

import pyarrow as pa

from streamrnn.base.arrays import Ints


class Held(NamedTuple):
    """Rows to write at the end of the run: row i belongs to `slots[i]`; None for no rows."""

    slots: Ints
    rows: pa.RecordBatch | None
