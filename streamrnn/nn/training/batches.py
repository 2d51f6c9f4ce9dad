"""Batch: rows of a model's inputs with their truths and weights, checked."""

from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats


class Batch(NamedTuple):
    """Rows of a model's inputs and their masks; truths and weights of samples for each output.

    reset: rows whose states are initial before the batch. labelled: 1 where a step has a label, 0
    where it has none and counts for no metric.
    """

    inputs: list[Array]
    masks: list[Array | None]
    y: list[Any]
    weights: list[Array | None]
    reset: Bools | None = None
    labelled: Floats | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.inputs[0])

    def take(self, rows: Any) -> "Batch":
        """Return some of the rows: a slice, or their numbers."""
        return Batch(
            [array[rows] for array in self.inputs],
            [None if mask is None else np.ascontiguousarray(mask[rows]) for mask in self.masks],
            [None if y is None else y[rows] for y in self.y],
            [None if weight is None else weight[rows] for weight in self.weights],
        )
