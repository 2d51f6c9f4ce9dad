"""R2 and F-scores: metrics of sums by column. Formulas of Keras 3.

Each step counts as a sample.
"""

from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.training.metric import SummedMetric

_TINY = 1e-7


class R2Score(SummedMetric):
    """1 - squared errors / squared distances from the mean of the truth, by column.

    class_aggregation: "uniform_average" over columns, "variance_weighted_average", or None for
    an array. num_regressors: for the adjusted R2.
    """

    own_name = "r2_score"
    direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        aggregations = (None, "uniform_average", "variance_weighted_average")
        if class_aggregation not in aggregations:
            raise ArgumentError(
                f"metric {self.name!r}: class_aggregation must be one of {aggregations}, received "
                f"{class_aggregation!r}"
            )
        if num_regressors < 0:
            raise ArgumentError(
                f"metric {self.name!r}: num_regressors must be 0 or more, received {num_regressors}"
            )
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors

    def add(self, t: Floats, p: Floats, weight: Floats) -> None:
        y, w = t.astype(np.float64), weight.astype(np.float64)[:, None]
        error = y - p
        terms = np.stack([y * w, y * y * w, error * error * w, np.broadcast_to(w, y.shape)], 1)
        rows = np.concatenate([terms.reshape(len(y), -1), np.ones((len(y), 1))], 1)
        self._add_rows(rows)

    def result(self) -> Any:
        if not len(self._sums):
            return 0.0
        total, square, residual, count = self._sums[:-1].reshape(4, -1)
        with np.errstate(all="ignore"):
            spread = square - total * (total / count)
            scores = 1 - residual / spread
        scores = np.where(np.isinf(scores), 0.0, scores)
        if self.class_aggregation is None:
            return self._adjusted(scores)
        if self.class_aggregation == "uniform_average":
            score = np.cumsum(scores)[-1] / len(scores)
        else:
            score = np.cumsum(spread * scores)[-1] / np.cumsum(spread)[-1]
        return float(self._adjusted(score))

    def _adjusted(self, score: Any) -> Any:
        n, p = self._sums[-1] * (len(self._sums) // 4), self.num_regressors
        if not p or p >= n - 1:
            return score
        return 1 - (1 - score) * (n - 1) / (n - p - 1)


class FBetaScore(SummedMetric):
    """The harmonic mean of precision and recall, by column; recall counts beta times as much.

    average: "micro", "macro", "weighted" by the truth, or None for an array. threshold: predictions
    above it are positive; by default the largest prediction of a sample is.
    """

    own_name = "fbeta_score"
    direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        if average not in (None, "micro", "macro", "weighted"):
            raise ArgumentError(
                f"metric {self.name!r}: average must be None, 'micro', 'macro' or 'weighted', "
                f"received {average!r}"
            )
        if not beta > 0:
            raise ArgumentError(f"metric {self.name!r}: beta must be above 0, received {beta!r}")
        if threshold is not None and not 0 < threshold <= 1:
            raise ArgumentError(
                f"metric {self.name!r}: threshold must lie in (0, 1], received {threshold!r}"
            )
        self.average, self.beta, self.threshold = average, beta, threshold

    def add(self, t: Floats, p: Floats, weight: Floats) -> None:
        if self.threshold is None:
            said = (p >= p.max(axis=-1, keepdims=True)) & (np.abs(p) > 1e-9)
        else:
            said = p > np.float32(self.threshold)
        y, w = t.astype(np.float64), weight.astype(np.float64)[:, None]
        terms = np.stack([said * y * w, said * (1 - y) * w, ~said * y * w, y * w], 1)
        self._add_rows(terms.reshape(len(y), -1))

    def result(self) -> Any:
        if not len(self._sums):
            return 0.0
        sums = self._sums.reshape(4, -1)
        if self.average == "micro":
            sums = np.cumsum(sums, axis=1)[:, -1:]
        tp, fp, fn, true = sums
        precision, recall = tp / (tp + fp + _TINY), tp / (tp + fn + _TINY)
        square = self.beta * self.beta
        scores = precision * recall / (square * precision + recall + _TINY) * (1 + square)
        if self.average is None:
            return scores
        if self.average == "weighted":
            return float(np.cumsum(scores * true / (np.cumsum(true)[-1] + _TINY))[-1])
        return float(np.cumsum(scores)[-1] / len(scores))


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall. See FBetaScore."""

    own_name = "f1_score"

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)
