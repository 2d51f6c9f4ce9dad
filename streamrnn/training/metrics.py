"""Metrics, with the names and formulas of Keras 3: means over samples and unmasked steps.

A metric sums in float64, in one order: `update_state(y_true, y_pred)`, then `result()`.
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from streamrnn.arrays import Array, Floats
from streamrnn.display import closest
from streamrnn.errors import ArgumentError
from streamrnn.kernels import losses as kernel
from streamrnn.training.loss import Loss, categories, truth_array, weights_of
from streamrnn.training.losses import SparseCategoricalCrossentropy

__all__ = [
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "SparseCategoricalAccuracy",
    "metric_of",
]


class Metric:
    """The base of metrics: the weighted mean of a value of each sample."""

    own_name: ClassVar[str]

    def __init__(self, name: str | None = None, dtype: object = None) -> None:
        self.name = name or self.own_name
        if dtype not in (None, "float32"):
            raise ArgumentError(f"metric {self.name!r}: dtype must be 'float32'")
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all samples."""
        self._total = self._weight = 0.0

    @property
    def sums(self) -> tuple[float, float]:
        """The weighted sum of all values, and that of the weights; it may be set, to resume."""
        return self._total, self._weight

    @sums.setter
    def sums(self, sums: tuple[float, float]) -> None:
        self._total, self._weight = sums

    def result(self) -> float:
        """Return the mean over all samples so far, 0 without any."""
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
        weight = weights_of(f"metric {self.name!r}", value.shape, sample_weight)
        if mask is not None:
            weight = weight * mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))
        value = np.where(weight == 0, np.float32(0), value)
        self._total += kernel.dot(value, weight)
        self._weight += kernel.dot(weight, np.ones_like(weight))

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        """Return the value of each sample."""
        raise NotImplementedError(f"{type(self).__name__} must implement `values`")

    def _fitted(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return truth_array(f"metric {self.name!r}", y_true, y_pred)


class MeanSquaredError(Metric):
    """The mean of (y_true - y_pred)**2."""

    own_name = "mean_squared_error"

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        value, _ = kernel.elementwise("squared", y_pred, self._fitted(y_true, y_pred))
        return kernel.means_of_rows(value)


class MeanAbsoluteError(Metric):
    """The mean of |y_true - y_pred|."""

    own_name = "mean_absolute_error"

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        value, _ = kernel.elementwise("absolute", y_pred, self._fitted(y_true, y_pred))
        return kernel.means_of_rows(value)


class BinaryAccuracy(Metric):
    """The share of elements on the right side of the threshold."""

    own_name = "binary_accuracy"

    def __init__(
        self, name: str | None = None, dtype: object = None, threshold: float = 0.5
    ) -> None:
        super().__init__(name, dtype)
        self.threshold = threshold

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        said = (y_pred > np.float32(self.threshold)).astype(np.float32)
        equal = (said == self._fitted(y_true, y_pred)).astype(np.float32)
        return kernel.means_of_rows(equal)


class CategoricalAccuracy(Metric):
    """The share of samples whose largest prediction is that of the truth, one-hot."""

    own_name = "categorical_accuracy"

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        t = self._fitted(y_true, y_pred)
        equal: Floats = (t.argmax(axis=-1) == y_pred.argmax(axis=-1)).astype(np.float32)
        return equal


class SparseCategoricalAccuracy(Metric):
    """The share of samples whose largest prediction is category y_true."""

    own_name = "sparse_categorical_accuracy"

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        ids = categories(f"metric {self.name!r}", y_true, y_pred)
        equal: Floats = (ids == y_pred.argmax(axis=-1)).astype(np.float32)
        return equal


_NAMES: dict[str, type[Metric]] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
} | {
    cls.own_name: cls
    for cls in (
        MeanSquaredError,
        MeanAbsoluteError,
        BinaryAccuracy,
        CategoricalAccuracy,
        SparseCategoricalAccuracy,
    )
}


def metric_of(identifier: Any, loss: Loss, units: int) -> Metric:
    """Return the metric of a name or class, or itself. Raises ArgumentError.

    "accuracy" is the one that fits the loss and the number of units of the output. A metric by name
    has this name in reports.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if identifier in ("accuracy", "acc"):
        if units == 1:
            return BinaryAccuracy(name=identifier)
        if isinstance(loss, SparseCategoricalCrossentropy):
            return SparseCategoricalAccuracy(name=identifier)
        return CategoricalAccuracy(name=identifier)
    found = _NAMES.get(identifier) if isinstance(identifier, str) else None
    if found is not None:
        return found(name=identifier)
    known = [*_NAMES, "accuracy"]
    near = closest(identifier, known) if isinstance(identifier, str) else None
    raise ArgumentError(
        f"metric {identifier!r} is not supported{f'; did you mean {near!r}' if near else ''}"
        f"{'? Supported' if near else '; supported'}: {', '.join(sorted(known))}"
    )
