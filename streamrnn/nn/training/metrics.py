"""Metrics, with the names and formulas of Keras 3: over samples and unmasked steps.

Call `update_state(y_true, y_pred)`, then `result()`. Sums are in float64, in a fixed order. Classes
of means are in this file: means of losses, and of right answers.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Floats
from streamrnn.base.display import not_one_of
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.layers.naming import snake_case
from streamrnn.nn.training import losses
from streamrnn.nn.training.band_metrics import OF_BANDS, band_metric
from streamrnn.nn.training.loss import Loss, categories, truth_array
from streamrnn.nn.training.metric import FunctionMetric, MeanMetric, Metric
from streamrnn.nn.training.summed_metrics import (
    AUC,
    F1Score,
    FBetaScore,
    Precision,
    R2Score,
    Recall,
)

__all__ = [
    "AUC", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy", "CategoricalCrossentropy",
    "CategoricalHinge", "CosineSimilarity", "F1Score", "FBetaScore", "Hinge", "KLDivergence",
    "LogCoshError", "LossMetric", "MeanAbsoluteError", "MeanAbsolutePercentageError",
    "MeanSquaredError", "MeanSquaredLogarithmicError", "Metric", "Poisson", "Precision", "R2Score",
    "Recall", "RootMeanSquaredError", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy", "SquaredHinge", "TopKCategoricalAccuracy", "metric_of",
]  # fmt: skip


class LossMetric(MeanMetric, direction="down"):
    """The mean of a loss."""

    def __init__(self, loss: Loss, name: str | None = None, dtype: object = None) -> None:
        self.loss = loss
        super().__init__(name or loss.name, dtype)

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return self.loss.values(self.loss.truth(y_true, y_pred), y_pred)[0]


class _OfLoss(LossMetric):
    """The base of metrics that take the names of their loss."""

    kind: type[Loss]

    def __init_subclass__(cls, of: type[Loss] | None = None, **others: Any) -> None:
        if of is not None:
            cls.kind = of
            others = {"name": of.own_name, "short": of.short_name} | others
        super().__init_subclass__(**others)

    def __init__(self, name: str | None = None, dtype: object = None) -> None:
        super().__init__(self.kind(), name or self.own_name, dtype)


class MeanSquaredError(_OfLoss, of=losses.MeanSquaredError):
    """The mean of (y_true - y_pred)**2."""


class RootMeanSquaredError(MeanSquaredError, name="root_mean_squared_error"):
    """The root of the mean of (y_true - y_pred)**2."""

    def result(self) -> float:
        return math.sqrt(self._total / self._weight) if self._weight else 0.0


class MeanAbsoluteError(_OfLoss, of=losses.MeanAbsoluteError):
    """The mean of |y_true - y_pred|."""


class MeanAbsolutePercentageError(_OfLoss, of=losses.MeanAbsolutePercentageError):
    """The mean error in percent of the truth."""


class MeanSquaredLogarithmicError(_OfLoss, of=losses.MeanSquaredLogarithmicError):
    """The mean of (log(1 + y_true) - log(1 + y_pred))**2."""


class LogCoshError(_OfLoss, of=losses.LogCosh, name="logcosh"):
    """The mean of the logarithm of cosh(y_pred - y_true)."""


class Poisson(_OfLoss, of=losses.Poisson):
    """The mean of y_pred - y_true * log(y_pred + 1e-7)."""


class CosineSimilarity(_OfLoss, of=losses.CosineSimilarity, direction="up"):
    """The mean cosine of the angle between truth and prediction (the loss is its negative)."""

    def __init__(self, name: str | None = None, dtype: object = None, axis: int = -1) -> None:
        losses.CosineSimilarity(axis)  # refuses another axis
        super().__init__(name, dtype)

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return -super().values(y_true, y_pred)


class KLDivergence(_OfLoss, of=losses.KLDivergence):
    """The mean Kullback-Leibler divergence."""


class Hinge(_OfLoss, of=losses.Hinge):
    """The mean hinge loss."""


class SquaredHinge(_OfLoss, of=losses.SquaredHinge):
    """The mean squared hinge loss."""


class CategoricalHinge(_OfLoss, of=losses.CategoricalHinge):
    """The mean hinge loss of categories."""


class BinaryCrossentropy(LossMetric, name="binary_crossentropy", short="bce"):
    """The mean cross-entropy of probabilities, or with from_logits of their logits."""

    def __init__(
        self,
        name: str | None = None,
        dtype: object = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        loss = losses.BinaryCrossentropy(from_logits, label_smoothing)
        super().__init__(loss, name or self.own_name, dtype)


class CategoricalCrossentropy(LossMetric, name="categorical_crossentropy"):
    """The mean cross-entropy of categories; y_true is one-hot."""

    def __init__(
        self,
        name: str | None = None,
        dtype: object = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        loss = losses.CategoricalCrossentropy(from_logits, label_smoothing, axis)
        super().__init__(loss, name or self.own_name, dtype)


class SparseCategoricalCrossentropy(LossMetric, name="sparse_categorical_crossentropy"):
    """The mean cross-entropy of categories; y_true has their numbers."""

    def __init__(
        self,
        name: str | None = None,
        dtype: object = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        loss = losses.SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis)
        super().__init__(loss, name or self.own_name, dtype)


class BinaryAccuracy(MeanMetric, name="binary_accuracy", direction="up"):
    """The share of elements on the right side of the threshold."""

    def __init__(
        self, name: str | None = None, dtype: object = None, threshold: float = 0.5
    ) -> None:
        super().__init__(name, dtype)
        self.threshold = threshold

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        said = (y_pred > np.float32(self.threshold)).astype(np.float32)
        equal = (said == truth_array(self, y_true, y_pred)).astype(np.float32)
        return kernel.means_of_rows(equal)


class CategoricalAccuracy(MeanMetric, name="categorical_accuracy", direction="up"):
    """The share of samples whose largest prediction is where the one-hot y_true has its 1."""

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        t = truth_array(self, y_true, y_pred)
        equal: Floats = (t.argmax(axis=-1) == y_pred.argmax(axis=-1)).astype(np.float32)
        return equal


class SparseCategoricalAccuracy(MeanMetric, name="sparse_categorical_accuracy", direction="up"):
    """The share of samples whose largest prediction is category y_true."""

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        ids = categories(self, y_true, y_pred)
        equal: Floats = (ids == y_pred.argmax(axis=-1)).astype(np.float32)
        return equal


class SparseTopKCategoricalAccuracy(
    MeanMetric, name="sparse_top_k_categorical_accuracy", direction="up"
):
    """The share of samples with fewer than k predictions above the one for category y_true."""

    def __init__(
        self,
        k: int = 5,
        name: str | None = None,
        dtype: object = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        if from_sorted_ids:
            raise ArgumentError(f"{self}: from_sorted_ids=True is not supported")
        self.k = k

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return self._hits(categories(self, y_true, y_pred), y_pred)

    def _hits(self, ids: npt.NDArray[np.int64], y_pred: Floats) -> Floats:
        chosen = np.take_along_axis(y_pred, ids[..., None], axis=-1)
        hits: Floats = ((y_pred > chosen).sum(axis=-1) < self.k).astype(np.float32)
        return hits * np.isfinite(chosen[..., 0])


class TopKCategoricalAccuracy(SparseTopKCategoricalAccuracy, name="top_k_categorical_accuracy"):
    """The share of samples with fewer than k predictions above the one where y_true is 1."""

    def __init__(self, k: int = 5, name: str | None = None, dtype: object = None) -> None:
        super().__init__(k, name, dtype)

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return self._hits(truth_array(self, y_true, y_pred).argmax(axis=-1), y_pred)


_METRICS: list[type[Metric]] = [
    globals()[name] for name in __all__ if name not in ("LossMetric", "Metric", "metric_of")
]
_NAMES = {name: cls for cls in _METRICS for name in (cls.short_name, cls.own_name) if name}
_ALSO = (
    {cls.__name__: cls for cls in _METRICS}
    | {snake_case(cls.__name__): cls for cls in _METRICS}
    | {name.upper(): cls for name, cls in _NAMES.items() if len(name) <= 4}
)
"""Other names that Keras accepts."""
_FITTING = ("accuracy", "acc", "crossentropy", "ce")
"""Names that stand for the metric that fits the loss and the number of units."""


def metric_of(identifier: Any, loss: Loss, units: int) -> Metric:
    """Return the metric for a name, class, loss, function or metric. Raises ArgumentError.

    "accuracy" and "crossentropy" stand for the metrics that fit the loss and the output's number of
    units, "crps" and "coverage" for those that fit the loss: of quantiles, or of a mean and a
    deviation. The name of any other loss stands for its mean. Reports use the name that was passed.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if isinstance(identifier, Loss):
        return LossMetric(identifier)
    if callable(identifier):
        return FunctionMetric(identifier)
    if isinstance(identifier, str):
        if identifier in _FITTING:
            return _fitting(identifier, loss, units)
        if identifier in OF_BANDS:
            return band_metric(identifier, loss)
        metric = _NAMES.get(identifier) or _ALSO.get(identifier)
        if metric is not None:
            return metric(name=identifier)
        if identifier in losses.names_of_losses():
            return LossMetric(losses.loss_of(identifier), name=identifier)
    names = [*_NAMES, "accuracy", "crossentropy", *OF_BANDS]
    raise ArgumentError(not_one_of(f"metric {identifier!r}", names, identifier))


def _fitting(name: str, loss: Loss, units: int) -> Metric:
    accuracy = name.startswith("acc")
    if units == 1:
        return BinaryAccuracy(name) if accuracy else BinaryCrossentropy(name)
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        return SparseCategoricalAccuracy(name) if accuracy else SparseCategoricalCrossentropy(name)
    return CategoricalAccuracy(name) if accuracy else CategoricalCrossentropy(name)
