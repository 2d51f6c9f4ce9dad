"""Windows of staged rows."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.stream.windows import Placement


class TrainingWindow:
    """B lanes x T steps; lanes without steps are left out.

    `lanes` (B,): the numbers of the lanes. `inputs`: (B, T, F) float32 or (B, T) int64; zero after
    the last step of a lane. `label` and `now` (B, T, K), `weight` (B, T). `lengths` (B,). Only
    steps from `counted` on have a weight. With `at_end`, labels and weights are of the last step of
    each lane, without the axis T.
    """

    def __init__(
        self,
        staged: Staged,
        placement: Placement,
        counted: Ints | None = None,
        *,
        at_end: bool = False,
    ) -> None:
        self._at_end = at_end
        self.lanes = np.flatnonzero(placement.length_B)
        self.begin = placement.begin_B[self.lanes]
        self.lengths = placement.length_B[self.lanes]
        self.inputs = [self._cut(array) for array in staged.inputs]
        labels = self._cut(staged.labels)
        if counted is not None:
            later = np.arange(labels.shape[1]) + self.begin[:, np.newaxis] >= counted[:, np.newaxis]
            labels[..., -1] *= later
        labels = self._judged(labels)
        targets = staged.targets
        self.weight = np.ascontiguousarray(labels[..., -1])
        counts = self.counts[..., np.newaxis]
        self.label = np.where(counts, labels[..., :targets], np.float32(0))
        self.now = labels[..., targets : 2 * targets]

    def cut(self, array: Array) -> Array:
        """Return values (M, K) of staged steps in the shape of `label`."""
        return self._judged(self._cut(array))

    def _judged(self, array: Array) -> Array:
        return array[np.arange(len(array)), self.lengths - 1] if self._at_end else array

    def _cut(self, array: Array) -> Array:
        shape = (len(self.lanes), int(self.lengths.max()))
        padded = np.zeros((*shape, *array.shape[1:]), array.dtype)
        for lane, (begin, length) in enumerate(
            zip(self.begin.tolist(), self.lengths.tolist(), strict=True)
        ):
            padded[lane, :length] = array[begin : begin + length]
        return padded

    @property
    def steps(self) -> int:
        """The number of steps of all lanes."""
        return int(self.lengths.sum())

    @cached_property
    def counts(self) -> Bools:
        """Which steps count in the loss, in the shape of `weight`."""
        counts: Bools = self.weight > 0
        return counts

    @cached_property
    def mask(self) -> Bools | None:
        """Which steps (B, T) exist; None if all do."""
        steps = self.inputs[0].shape[1]
        if (self.lengths == steps).all():
            return None
        mask: Bools = np.arange(steps) < self.lengths[:, np.newaxis]
        return mask

    @property
    def ragged_lengths(self) -> Ints | None:
        """The lengths, None if all lanes have all steps."""
        return None if self.mask is None else self.lengths


class Scale(NamedTuple):
    """The scale of labels of K columns: (label - offset) / deviation is standardized.

    Outputs (…, U) beyond these columns have an offset and a deviation of their own (`of_moments`).
    """

    offset: Floats
    deviation: Floats

    def standardized(self, label: Floats) -> Floats:
        """Return labels (…, K) standardized for training."""
        columns = label.shape[-1]
        return (label - self.offset[:columns]) / self.deviation[:columns]

    def restored(self, output: Floats) -> Floats:
        """Return outputs (…, U) of the model on the scale of the target, as `Rescaling` does."""
        return output * self.deviation + self.offset

    def of_moments(self) -> "Scale":
        """Return the scale of 2 K outputs, which are means of the labels, and deviations."""
        offset = np.concatenate([self.offset, np.zeros_like(self.offset)])
        return Scale(offset, np.concatenate([self.deviation, self.deviation]))
