"""Metrics, with the names and formulas of Keras 3: over samples and unmasked steps.

Call `update_state(y_true, y_pred)`, then `result()`. Sums are in float64, in a fixed order.
"""

from typing import Any

from streamrnn.base.display import not_one_of
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.naming import snake_case
from streamrnn.nn.training.band_metrics import OF_BANDS, band_metric
from streamrnn.nn.training.loss import Loss
from streamrnn.nn.training.losses import SparseCategoricalCrossentropy as _SparseLoss
from streamrnn.nn.training.losses import loss_of, names_of_losses
from streamrnn.nn.training.mean_metrics import (
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    LossMetric,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SquaredHinge,
    TopKCategoricalAccuracy,
)
from streamrnn.nn.training.metric import FunctionMetric, Metric
from streamrnn.nn.training.score_metrics import F1Score, FBetaScore, R2Score
from streamrnn.nn.training.threshold_metrics import AUC, Precision, Recall

__all__ = [
    "AUC", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy", "CategoricalCrossentropy",
    "CategoricalHinge", "CosineSimilarity", "F1Score", "FBetaScore", "Hinge", "KLDivergence",
    "LogCoshError", "LossMetric", "MeanAbsoluteError", "MeanAbsolutePercentageError",
    "MeanSquaredError", "MeanSquaredLogarithmicError", "Metric", "Poisson", "Precision", "R2Score",
    "Recall", "RootMeanSquaredError", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy", "SquaredHinge", "TopKCategoricalAccuracy", "metric_of",
]  # fmt: skip

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
        if identifier in names_of_losses():
            return LossMetric(loss_of(identifier), name=identifier)
    names = [*_NAMES, "accuracy", "crossentropy", *OF_BANDS]
    raise ArgumentError(not_one_of(f"metric {identifier!r}", names, identifier))


def _fitting(name: str, loss: Loss, units: int) -> Metric:
    accuracy = name.startswith("acc")
    if units == 1:
        return BinaryAccuracy(name) if accuracy else BinaryCrossentropy(name)
    if isinstance(loss, _SparseLoss):
        return SparseCategoricalAccuracy(name) if accuracy else SparseCategoricalCrossentropy(name)
    return CategoricalAccuracy(name) if accuracy else CategoricalCrossentropy(name)
