"""What all metrics share: names, sums that can be saved, weights and masks."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from streamrnn.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.kernels import losses as kernel
from streamrnn.training.loss import truth_array, weights_of


class Metric:
    """The base of metrics: the weighted mean of a value of each sample.

    `direction`: "up" if more is better, "down" if less is; None if that is not known.
    """

    own_name: ClassVar[str]
    direction: ClassVar[str | None] = None

    def __init__(self, name: str | None = None, dtype: object = None) -> None:
        self.name = name or self.own_name
        if dtype not in (None, "float32"):
            raise ArgumentError(f"metric {self.name!r}: dtype must be 'float32'")
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all samples."""
        self._total = self._weight = 0.0

    @property
    def sums(self) -> tuple[float, ...]:
        """The weighted sum of all values, and that of the weights; it may be set, to resume."""
        return self._total, self._weight

    @sums.setter
    def sums(self, sums: tuple[float, ...]) -> None:
        self._total, self._weight = sums

    def result(self) -> Any:
        """Return the mean over all samples so far, 0 without any; of some metrics an array."""
        return self._total / self._weight if self._weight else 0.0

    def update_state(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        *,
        mask: Array | None = None,
    ) -> None:
        """Add samples; those with the weight 0, or masked, do not count."""
        pred = np.ascontiguousarray(y_pred, np.float32)
        value = self.values(y_true, pred)
        weight = self._weights(value.shape, sample_weight, mask)
        value = np.where(weight == 0, np.float32(0), value)
        self._total += kernel.dot(value, weight)
        self._weight += kernel.dot(weight, np.ones_like(weight))

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        """Return the value of each sample."""
        raise NotImplementedError(f"{type(self).__name__} must implement `values`")

    def _weights(
        self, shape: tuple[int, ...], sample_weight: npt.ArrayLike | None, mask: Array | None
    ) -> Floats:
        """Return the weight of each sample, 0 where it is masked."""
        weight = weights_of(f"metric {self.name!r}", shape, sample_weight)
        if mask is not None:
            weight = weight * mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
        return weight

    def _fitted(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return truth_array(f"metric {self.name!r}", y_true, y_pred)


class SummedMetric(Metric):
    """A metric of several sums in float64, added element after element: no cut changes a bit."""

    def reset_state(self) -> None:
        self._sums = np.zeros(0)

    @property
    def sums(self) -> tuple[float, ...]:
        """All sums, none before the first sample; they may be set, to resume."""
        return tuple(self._sums.tolist())

    @sums.setter
    def sums(self, sums: tuple[float, ...]) -> None:
        self._sums = np.array(sums, np.float64)

    def update_state(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        *,
        mask: Array | None = None,
    ) -> None:
        pred = np.ascontiguousarray(y_pred, np.float32)
        truth = self._fitted(y_true, pred)
        weight = self._weights(pred.shape[:-1], sample_weight, mask).reshape(-1)
        counts = weight != 0
        if counts.any():
            t, p = (array.reshape(-1, pred.shape[-1])[counts] for array in (truth, pred))
            self.add(t, p, weight[counts])

    def add(self, t: Floats, p: Floats, weight: Floats) -> None:
        """Add N samples that count: truth and prediction (N, U), weight (N,)."""
        raise NotImplementedError(f"{type(self).__name__} must implement `add`")

    def _add_at(self, size: int, places: Array, values: Array) -> None:
        """Add values to the sums at these places, in order; `size`: how many sums there are."""
        if not len(self._sums):
            self._sums = np.zeros(size)
        kernel.add_at(self._sums, places, values)

    def _add_rows(self, rows: Array) -> None:
        """Add rows (N, S) to S sums, row after row."""
        size = rows.shape[1]
        self._add_at(size, np.tile(np.arange(size), len(rows)), rows.reshape(-1))
