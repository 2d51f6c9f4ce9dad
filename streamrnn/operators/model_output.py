"""What an operator gives for a record batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamrnn.arrays import Bools, Floats, Ints


@dataclass
class ModelOutput:
    """Values of K rows of a record batch.

    `row_K` int64 is the row of each, `step_K` its number since the stream began fresh,
    `values_KU` float32 the model's outputs side by side; `there_KU` bool (None: all) says which of
    them the model gives for that row. `commit_states` moves the streams' states on, and may be
    called again where it was cut short; until it is called the state table is as it was.
    """

    row_K: Ints
    step_K: Ints
    values_KU: Floats
    there_KU: Bools | None = None
    commit_states: Callable[[], None] = lambda: None
