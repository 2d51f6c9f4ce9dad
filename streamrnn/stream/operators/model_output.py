"""The result of an operator for a record batch."""

from collections.abc import Callable
from dataclasses import dataclass

from streamrnn.base.arrays import Bools, Floats, Ints


@dataclass
class ModelOutput:
    """Values of K rows of a record batch.

    `row_K` int64 is the row of each, `step_K` its step number since the stream's last reset,
    `values_KU` float32 the model's outputs side by side; `valid_KU` bool marks those that the model
    has for that row (None: all). `commit_states` writes the streams' new states, and may be called
    again after an interrupt; until it is called the state table is unchanged.
    """

    row_K: Ints
    step_K: Ints
    values_KU: Floats
    valid_KU: Bools | None = None
    commit_states: Callable[[], None] = lambda: None
