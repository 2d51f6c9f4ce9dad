"""Rows that are held until the end of a run."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints


class Held(NamedTuple):
    """Rows to write at the end of the run: row i belongs to `slots[i]`; None for no rows."""

    slots: Ints
    rows: pa.RecordBatch | None

    def taken(self, slots: Ints) -> "Held":
        """Return the rows of these slots, in ascending order, by their numbers among them."""
        chosen = np.flatnonzero(np.isin(self.slots, slots))
        rows = None if self.rows is None else self.rows.take(pa.array(chosen))
        return Held(np.searchsorted(slots, self.slots[chosen]), rows)
