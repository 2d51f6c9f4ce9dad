"""Rows that are held until the end of a run."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from streamrnn.base.arrays import Ints


class Held(NamedTuple):
    """Rows to write at the end of the run: row i belongs to `slots[i]`; None for no rows."""

    slots: Ints
    rows: pa.RecordBatch | None
