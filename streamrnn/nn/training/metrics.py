"""Metrics, with the names and formulas of Keras 3: over samples and unmasked steps.

Call `update_state(y_true, y_pred)`, then `result()`. Sums are in float64, in a fixed order. This
file has the metrics that are means: of losses, of right answers, and of values of bands. A band is
quantiles, or the mean and the deviation of a normal distribution.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Doubles, Floats
from streamrnn.base.display import not_one_of
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.layers import activations
from streamrnn.nn.layers.registry import snake_case
from streamrnn.nn.training import losses
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


NORMAL_90 = 1.6448536
"""90 % of a normal distribution lies within this many standard deviations of its mean."""


class LossMetric(MeanMetric, direction="down"):
    """The mean of a loss."""

    def __init__(self, loss: Loss, name: str | None = None, dtype: object = None) -> None:
        self.loss = loss
        super().__init__(name or self.own_name or loss.name, dtype)

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return self.loss.values(self.loss.truth(y_true, y_pred), y_pred)[0]


class _OfLoss(LossMetric):
    """The base of metrics for one class of loss, by default with the names of the loss."""

    kind: type[Loss]

    def __init_subclass__(cls, of: type[Loss] | None = None, **others: Any) -> None:
        if of is not None:
            cls.kind = of
            others = {"name": of.own_name, "short": of.short_name} | others
        super().__init_subclass__(**others)

    def __init__(self, name: str | None = None, dtype: object = None) -> None:
        super().__init__(self.kind(), name, dtype)


class MeanSquaredError(_OfLoss, of=losses.MeanSquaredError):
    """The mean of (y_true - y_pred)**2."""


class RootMeanSquaredError(MeanSquaredError, name="root_mean_squared_error"):
    """The root of the mean of (y_true - y_pred)**2."""

    def result(self) -> float:
        return math.sqrt(super().result())


class MeanAbsoluteError(_OfLoss, of=losses.MeanAbsoluteError):
    """The mean of |y_true - y_pred|."""


class MeanAbsolutePercentageError(_OfLoss, of=losses.MeanAbsolutePercentageError):
    """The mean absolute error in percent of the absolute value of the truth."""


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
    """The mean cross-entropy of probabilities, or of logits with from_logits=True."""

    def __init__(
        self,
        name: str | None = None,
        dtype: object = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__(losses.BinaryCrossentropy(from_logits, label_smoothing), name, dtype)


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
        super().__init__(loss, name, dtype)


class SparseCategoricalCrossentropy(LossMetric, name="sparse_categorical_crossentropy"):
    """The mean cross-entropy of categories; y_true has the ids of categories."""

    def __init__(
        self,
        name: str | None = None,
        dtype: object = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        loss = losses.SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis)
        super().__init__(loss, name, dtype)


class BinaryAccuracy(MeanMetric, name="binary_accuracy", direction="up"):
    """The share of elements whose y_true is 1 if y_pred is above the threshold, and else 0."""

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


def level_weights(levels: Sequence[float]) -> Doubles:
    """Return a factor for the pinball loss of each level; the products add up to about the CRPS.

    The CRPS is the integral of 2 pinball(level) over all levels (Gneiting & Ranjan 2011). The
    factors follow from the trapezoid rule on these levels and levels 0 and 1, whose pinball losses
    are 0. The levels need not be evenly spaced; with few levels the result tends to be too small.

    >>> level_weights([0.25, 0.5, 0.75]).tolist()
    [0.5, 0.5, 0.5]
    """
    order = np.argsort(levels, kind="stable")
    points = np.array([0.0, *np.take(levels, order), 1.0])
    weights = np.empty(len(order))
    weights[order] = points[2:] - points[:-2]
    return weights


class BandMetric(MeanMetric):
    """The base of metrics for outputs trained on `loss`: quantiles, or means and deviations."""

    def __init__(self, loss: losses.Quantile | losses.GaussianNLL, name: str) -> None:
        super().__init__(name)
        self.loss = loss

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        t, loss = self.loss.truth(y_true, y_pred), self.loss
        if isinstance(loss, losses.Quantile):
            return self.of_quantiles(loss, t, y_pred)
        labels = t.shape[-1]
        return kernel.means_of_rows(self.of_moments(t - y_pred[..., :labels], y_pred[..., labels:]))

    def of_quantiles(self, loss: losses.Quantile, t: Floats, p: Floats) -> Floats:
        """Return the value of each sample; the label `t` is repeated for each quantile."""
        raise NotImplementedError

    def of_moments(self, error: Floats, deviation: Floats) -> Floats:
        """Return the value of each label; `error` is the label minus the mean."""
        raise NotImplementedError


class RankedProbabilityScore(BandMetric, direction="down"):
    """The mean continuous ranked probability score, in the unit of the label."""

    def of_quantiles(self, loss: losses.Quantile, t: Floats, p: Floats) -> Floats:
        weights = level_weights(loss.quantiles) * len(loss.quantiles)  # a mean follows
        return kernel.means_of_rows(loss.of_each(t, p)[0] * weights.astype(np.float32))

    def of_moments(self, error: Floats, deviation: Floats) -> Floats:
        """Return the score of a normal distribution (Gneiting & Raftery 2007, equation 21).

        gelu(z) is z times the standard normal distribution function at z.
        """
        z = np.ascontiguousarray(error / np.where(deviation > 0, deviation, np.float32(1)))
        density = activations.compute("exponential", z * z * np.float32(-0.5))
        density *= np.float32(math.sqrt(2 / math.pi))
        twice = np.float32(2) * activations.compute("gelu", z)
        score = deviation * (twice - z + density - np.float32(1 / math.sqrt(math.pi)))
        return np.where(deviation > 0, score, abs(error))


class Coverage(BandMetric):
    """The share of labels inside the band, with its ends.

    Quantiles: from the lowest to the highest level; with one level, up to its quantile. Mean and
    deviation: the central 90 % of the distribution.
    """

    def of_quantiles(self, loss: losses.Quantile, t: Floats, p: Floats) -> Floats:
        levels = loss.quantiles
        inside = t[..., 0] <= p[..., int(np.argmax(levels))]
        if len(levels) > 1:
            inside &= t[..., 0] >= p[..., int(np.argmin(levels))]
        return inside.astype(np.float32)

    def of_moments(self, error: Floats, deviation: Floats) -> Floats:
        return (abs(error) <= NORMAL_90 * deviation).astype(np.float32)


_OF_BANDS: dict[str, type[BandMetric]] = {"crps": RankedProbabilityScore, "coverage": Coverage}
"""The metrics of bands by name."""


def _band_metric(name: str, loss: Loss | None) -> BandMetric:
    """Return the metric of this name for outputs trained on this loss.

    Raises ArgumentError if the metric cannot be computed from such outputs.
    """
    if isinstance(loss, losses.GaussianNLL) or (
        isinstance(loss, losses.Quantile) and (name != "crps" or len(loss.quantiles) > 1)
    ):
        return _OF_BANDS[name](loss, name)
    received = "no loss" if loss is None else f"the loss {loss.name}"
    if isinstance(loss, losses.Quantile):
        received += " with one level"
    raise ArgumentError(
        f"metric {name!r}: expected a loss of quantiles, or of a mean and a deviation, received "
        f"{received}. Set the loss to quantile{' with several levels' if name == 'crps' else ''} "
        f"or to gaussian_nll, or leave {name!r} out"
    )


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
"""Names that stand for the metric that suits the loss and the number of units."""


def metric_of(identifier: Any, loss: Loss, units: int) -> Metric:
    """Return the metric for a name, class, loss, function or metric. Raises ArgumentError.

    "accuracy" and "crossentropy" stand for the metrics that suit the loss and the output's number
    of units; "crps" and "coverage" for the ones that suit a loss of quantiles, or of a mean and a
    deviation. The name of a loss that names no metric stands for the mean of the loss. A metric
    passed by name is reported under this name.
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
        if identifier in _OF_BANDS:
            return _band_metric(identifier, loss)
        metric = _NAMES.get(identifier) or _ALSO.get(identifier)
        if metric is not None:
            return metric(name=identifier)
        if identifier in losses.names_of_losses():
            return LossMetric(losses.loss_of(identifier), name=identifier)
    names = [*_NAMES, "accuracy", "crossentropy", *_OF_BANDS]
    raise ArgumentError(not_one_of(f"metric {identifier!r}", names, identifier))


def _fitting(name: str, loss: Loss, units: int) -> Metric:
    accuracy = name.startswith("acc")
    if units == 1:
        return BinaryAccuracy(name) if accuracy else BinaryCrossentropy(name)
    if isinstance(loss, losses.SparseCategoricalCrossentropy):
        return SparseCategoricalAccuracy(name) if accuracy else SparseCategoricalCrossentropy(name)
    return CategoricalAccuracy(name) if accuracy else CategoricalCrossentropy(name)
