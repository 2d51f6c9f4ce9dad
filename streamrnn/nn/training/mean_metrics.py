"""Metrics that are means over samples: of losses, and of right answers. Formulas of Keras 3."""

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.training import losses
from streamrnn.nn.training.loss import Loss, categories
from streamrnn.nn.training.metric import MeanMetric


class LossMetric(MeanMetric):
    """The mean of a loss."""

    direction: ClassVar[str | None] = "down"

    def __init__(self, loss: Loss, name: str | None = None, dtype: object = None) -> None:
        self.loss = loss
        super().__init__(name or loss.name, dtype)

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return self.loss.values(self.loss.truth(y_true, y_pred), y_pred)[0]


class _OfLoss(LossMetric):
    """The base of metrics that take the names of their loss."""

    kind: type[Loss]

    def __init_subclass__(cls, of: type[Loss] | None = None) -> None:
        if of is not None:
            cls.kind, cls.short_name = of, of.short_name
            cls.own_name = vars(cls).get("own_name", of.own_name)

    def __init__(self, name: str | None = None, dtype: object = None) -> None:
        super().__init__(self.kind(), name or self.own_name, dtype)


class MeanSquaredError(_OfLoss, of=losses.MeanSquaredError):
    """The mean of (y_true - y_pred)**2."""


class RootMeanSquaredError(MeanSquaredError):
    """The root of the mean of (y_true - y_pred)**2."""

    own_name = "root_mean_squared_error"
    short_name = ""

    def result(self) -> float:
        return math.sqrt(self._total / self._weight) if self._weight else 0.0


class MeanAbsoluteError(_OfLoss, of=losses.MeanAbsoluteError):
    """The mean of |y_true - y_pred|."""


class MeanAbsolutePercentageError(_OfLoss, of=losses.MeanAbsolutePercentageError):
    """The mean error in percent of the truth."""


class MeanSquaredLogarithmicError(_OfLoss, of=losses.MeanSquaredLogarithmicError):
    """The mean of (log(1 + y_true) - log(1 + y_pred))**2."""


class LogCoshError(_OfLoss, of=losses.LogCosh):
    """The mean of the logarithm of cosh(y_pred - y_true)."""

    own_name = "logcosh"


class Poisson(_OfLoss, of=losses.Poisson):
    """The mean of y_pred - y_true * log(y_pred + 1e-7)."""


class CosineSimilarity(_OfLoss, of=losses.CosineSimilarity):
    """The mean cosine of the angle between truth and prediction (the loss is its negative)."""

    direction = "up"

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


class BinaryCrossentropy(LossMetric):
    """The mean cross-entropy of probabilities, or with from_logits of their logits."""

    own_name = "binary_crossentropy"
    short_name = "bce"

    def __init__(
        self,
        name: str | None = None,
        dtype: object = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        loss = losses.BinaryCrossentropy(from_logits, label_smoothing)
        super().__init__(loss, name or self.own_name, dtype)


class CategoricalCrossentropy(LossMetric):
    """The mean cross-entropy of categories; y_true is one-hot."""

    own_name = "categorical_crossentropy"

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


class SparseCategoricalCrossentropy(LossMetric):
    """The mean cross-entropy of categories; y_true has their numbers."""

    own_name = "sparse_categorical_crossentropy"

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


class BinaryAccuracy(MeanMetric):
    """The share of elements on the right side of the threshold."""

    own_name = "binary_accuracy"
    direction = "up"

    def __init__(
        self, name: str | None = None, dtype: object = None, threshold: float = 0.5
    ) -> None:
        super().__init__(name, dtype)
        self.threshold = threshold

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        said = (y_pred > np.float32(self.threshold)).astype(np.float32)
        equal = (said == self._fitted(y_true, y_pred)).astype(np.float32)
        return kernel.means_of_rows(equal)


class CategoricalAccuracy(MeanMetric):
    """The share of samples whose largest prediction is where the one-hot y_true has its 1."""

    own_name = "categorical_accuracy"
    direction = "up"

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        t = self._fitted(y_true, y_pred)
        equal: Floats = (t.argmax(axis=-1) == y_pred.argmax(axis=-1)).astype(np.float32)
        return equal


class SparseCategoricalAccuracy(MeanMetric):
    """The share of samples whose largest prediction is category y_true."""

    own_name = "sparse_categorical_accuracy"
    direction = "up"

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        ids = categories(f"metric {self.name!r}", y_true, y_pred)
        equal: Floats = (ids == y_pred.argmax(axis=-1)).astype(np.float32)
        return equal


class SparseTopKCategoricalAccuracy(MeanMetric):
    """The share of samples with fewer than k predictions above the one for category y_true."""

    own_name = "sparse_top_k_categorical_accuracy"
    direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str | None = None,
        dtype: object = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        if from_sorted_ids:
            raise ArgumentError(f"metric {self.name!r}: from_sorted_ids=True is not supported")
        self.k = k

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return self._hits(categories(f"metric {self.name!r}", y_true, y_pred), y_pred)

    def _hits(self, ids: npt.NDArray[np.int64], y_pred: Floats) -> Floats:
        chosen = np.take_along_axis(y_pred, ids[..., None], axis=-1)
        hits: Floats = ((y_pred > chosen).sum(axis=-1) < self.k).astype(np.float32)
        return hits * np.isfinite(chosen[..., 0])


class TopKCategoricalAccuracy(SparseTopKCategoricalAccuracy):
    """The share of samples with fewer than k predictions above the one where y_true is 1."""

    own_name = "top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str | None = None, dtype: object = None) -> None:
        super().__init__(k, name, dtype)

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        return self._hits(self._fitted(y_true, y_pred).argmax(axis=-1), y_pred)
