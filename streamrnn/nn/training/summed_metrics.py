"""Metrics of several sums, by Keras 3's formulas: precision, recall, AUC, R2 and F-scores.

Each unmasked step counts as a sample. For metrics with thresholds, a prediction is positive if it
is above the threshold, and a truth if it is not 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.layers import activations
from streamrnn.nn.training.loss import truth_array, weights_of
from streamrnn.nn.training.metric import MeanMetric
from streamrnn.nn.training.schedules import logarithm

_TINY = 1e-7
_LOWEST = -1e10
"""The default threshold with top_k, as in Keras; predictions outside the top k are set to it."""


class SummedMetric(MeanMetric):
    """A metric that keeps several float64 sums, each added up in the order of the samples.

    No bit of the sums depends on how the samples are cut into batches. Before the first sample
    that counts, there are no sums.
    """

    def reset_state(self) -> None:
        self._sums = np.zeros(0)

    def update_state(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        *,
        mask: Array | None = None,
    ) -> None:
        pred = np.ascontiguousarray(y_pred, np.float32)
        truth = truth_array(self, y_true, pred)
        weight = weights_of(self, pred.shape[:-1], sample_weight, mask)
        weight = weight.reshape(-1)
        counts = weight != 0
        if counts.any():
            t, p = (array.reshape(-1, pred.shape[-1])[counts] for array in (truth, pred))
            self.add(t, p, weight[counts])

    def add(self, t: Floats, p: Floats, weight: Floats) -> None:
        """Add N samples to the sums: truth and prediction (N, U), weight (N,), nowhere 0."""
        raise NotImplementedError(f"{type(self).__name__} must implement `add`")

    def _add_at(self, size: int, places: Array, values: Array) -> None:
        """Add values to the sums at these places, in order; `size`: the number of sums."""
        if not len(self._sums):
            self._sums = np.zeros(size)
        kernel.add_at(self._sums, places, values)

    def _add_rows(self, rows: Array) -> None:
        """Add rows (N, S) to S sums, row after row."""
        size = rows.shape[1]
        self._add_at(size, np.tile(np.arange(size), len(rows)), rows.reshape(-1))


class Answers(NamedTuple):
    """Sums of weights at each threshold: true and false positives and negatives."""

    tp: Array
    fp: Array
    tn: Array
    fn: Array


class ThresholdMetric(SummedMetric, direction="up"):
    """The base of metrics with thresholds.

    Each pair of a truth (0 or not) and a number of thresholds below the prediction has a sum of
    weights.
    """

    thresholds: list[float]

    def add(self, t: Floats, p: Floats, weight: Floats) -> None:
        t, p = self._chosen(t, p)
        buckets = len(self.thresholds) + 1
        place = self._above(p.reshape(-1)) + buckets * (t.reshape(-1) != 0)
        values = np.repeat(weight.astype(np.float64), p.shape[-1])
        values[np.isnan(p.reshape(-1))] = np.nan  # on neither side: sums become NaN
        self._add_at(2 * buckets, place, values)

    def _chosen(self, t: Floats, p: Floats) -> tuple[Floats, Floats]:
        """Return the truths and predictions to compare; by default, all of them unchanged."""
        return t, p

    def _above(self, p: Floats) -> Array:
        """Return the number of thresholds that each prediction is above."""
        rising = np.sort(np.array(self.thresholds, np.float32))
        return np.searchsorted(rising, p, side="left")

    def answers(self) -> Answers:
        """Return the sums at each threshold, in the order of `thresholds`."""
        buckets = len(self.thresholds) + 1
        by_truth = (self._sums if len(self._sums) else np.zeros(2 * buckets)).reshape(2, buckets)
        order = np.argsort(np.argsort(np.array(self.thresholds, np.float32), kind="stable"))
        below = np.cumsum(by_truth, axis=1)
        above = np.cumsum(by_truth[:, ::-1], axis=1)[:, ::-1]
        negative, positive = below[:, :-1][:, order], above[:, 1:][:, order]
        return Answers(positive[1], positive[0], negative[0], negative[1])


class Precision(ThresholdMetric, name="precision"):
    """The share of true positives among all positive predictions; 0 if there are none.

    thresholds: a number, or a list of numbers; with two or more, the result is an array. The
    default is 0.5, or -1e10 with top_k. top_k: only the k largest predictions of a sample can be
    positive. class_id: count this column alone.
    """

    _others = "fp"

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        self.thresholds = _thresholds(self, thresholds, 0.5 if top_k is None else _LOWEST)
        self.top_k, self.class_id = top_k, class_id

    def _chosen(self, t: Floats, p: Floats) -> tuple[Floats, Floats]:
        if self.top_k is not None:
            first = np.argsort(-p, axis=-1, kind="stable")[..., : self.top_k]
            kept = np.full_like(p, _LOWEST)
            np.put_along_axis(kept, first, np.take_along_axis(p, first, axis=-1), axis=-1)
            p = kept
        if self.class_id is not None:
            if not 0 <= self.class_id < p.shape[-1]:
                raise ArgumentError(
                    f"{self}: class_id must lie in 0…{p.shape[-1] - 1}, received {self.class_id}"
                )
            return t[..., self.class_id, None], p[..., self.class_id, None]
        return t, p

    def result(self) -> Any:
        answers = self.answers()
        values = _share(answers.tp, answers.tp + getattr(answers, self._others))
        return float(values[0]) if len(values) == 1 else values


class Recall(Precision, name="recall"):
    """The share of true positives among all elements with a positive truth; 0 if there are none.

    For the arguments, see Precision.
    """

    _others = "fn"


class AUC(ThresholdMetric, name="auc"):
    """The area under a curve through num_thresholds points.

    curve: "ROC" (true over false positive rate) or "PR" (precision over recall). summation_method:
    "interpolation", "minoring" or "majoring". thresholds: values from 0 to 1 to use instead of
    evenly spaced ones; one below 0 and one above 1 are added, and num_thresholds is ignored.
    from_logits: whether predictions are logits instead of probabilities.
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: object = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        refused = {
            "multi_label": multi_label,
            "num_labels": num_labels,
            "label_weights": label_weights,
        }
        for argument, value in refused.items():
            if value:
                raise ArgumentError(
                    f"{self}: {argument}={value!r} is not supported; make an AUC for each label"
                )
        self.curve, self.summation_method = curve.upper(), summation_method.lower()
        _check_one_of(self, "curve", self.curve, ("ROC", "PR"))
        methods = ("interpolation", "minoring", "majoring")
        _check_one_of(self, "summation_method", self.summation_method, methods)
        self.from_logits = from_logits
        self._even = thresholds is None
        if thresholds is None:
            if num_thresholds < 2:
                raise ArgumentError(
                    f"{self}: num_thresholds must be 2 or more, received {num_thresholds}"
                )
            inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
        else:
            inner = sorted(_thresholds(self, thresholds, 0.5))
        self.thresholds = [-1e-7, *inner, 1 + 1e-7]
        self.num_thresholds = len(self.thresholds)

    def _chosen(self, t: Floats, p: Floats) -> tuple[Floats, Floats]:
        return t, activations.compute("sigmoid", p) if self.from_logits else p

    def _above(self, p: Floats) -> Array:
        if not self._even:
            return super()._above(p)
        # As Keras computes it: rounding decides on which side a prediction equal to a threshold is.
        share = np.nan_to_num(np.clip(p, 0, 1)) * np.float32(self.num_thresholds - 1)
        number: Array = np.maximum(np.ceil(share).astype(np.int64), 1)
        return number

    def result(self) -> float:
        answers = self.answers()
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _area_under_precision(answers)
        recall = _share(answers.tp, answers.tp + answers.fn)
        if self.curve == "ROC":
            x, y = _share(answers.fp, answers.fp + answers.tn), recall
        else:
            x, y = recall, _share(answers.tp, answers.tp + answers.fp)
        heights = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }[self.summation_method]
        return _total((x[:-1] - x[1:]) * heights)


def _area_under_precision(answers: Answers) -> float:
    """Return the area under precision over recall, interpolated as in Davis & Goadrich 2006."""
    p = answers.tp + answers.fp
    dtp = answers.tp[:-1] - answers.tp[1:]
    slope = _share(dtp, np.maximum(p[:-1] - p[1:], 0))
    intercept = answers.tp[1:] - slope * p[1:]
    ratio = np.where((p[:-1] > 0) & (p[1:] > 0), _share(p[:-1], np.maximum(p[1:], 0)), 1.0)
    logs = np.array([logarithm(value) if value > 0 else np.nan for value in ratio.tolist()])
    positive = np.maximum(answers.tp[1:] + answers.fn[1:], 0)
    return _total(_share(slope * (dtp + intercept * logs), positive))


def _share(part: Array, whole: Array) -> Array:
    """Return part / whole, or 0 where `whole` is 0."""
    share: Array = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return share


def _total(values: Array) -> float:
    """Return the sum, added in order."""
    return float(np.cumsum(values)[-1])


def _thresholds(
    owner: object, thresholds: float | Sequence[float] | None, default: float
) -> list[float]:
    if thresholds is None:
        return [default]
    listed = list(thresholds) if isinstance(thresholds, Sequence | np.ndarray) else [thresholds]
    if not listed or not all(0 <= threshold <= 1 for threshold in listed):
        raise ArgumentError(f"{owner}: expected thresholds in 0…1, received {thresholds!r}")
    return [float(threshold) for threshold in listed]


def _check_one_of(
    owner: object, argument: str, value: str | None, allowed: Sequence[str | None]
) -> None:
    if value not in allowed:
        raise ArgumentError(
            f"{owner}: {argument} must be one of {', '.join(map(str, allowed))}, received {value!r}"
        )


class R2Score(SummedMetric, name="r2_score", direction="up"):
    """1 - squared errors / squared distances from the mean of the truth, by column.

    class_aggregation: "uniform_average" over columns, "variance_weighted_average", or None for
    an array with a score for each column. num_regressors: the number of regressors that the
    adjusted R2 takes into account; with 0, R2 is not adjusted.
    """

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        aggregations = (None, "uniform_average", "variance_weighted_average")
        _check_one_of(self, "class_aggregation", class_aggregation, aggregations)
        if num_regressors < 0:
            raise ArgumentError(
                f"{self}: num_regressors must be 0 or more, received {num_regressors}"
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


class FBetaScore(SummedMetric, name="fbeta_score", direction="up"):
    """The weighted harmonic mean of precision and recall; recall counts beta times as much.

    average: how the scores of columns are averaged: "micro", "macro", "weighted" by the truth, or
    None for an array with a score for each column. threshold: predictions above it are positive;
    by default, the largest prediction of a sample is, unless it is 0.
    """

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        _check_one_of(self, "average", average, (None, "micro", "macro", "weighted"))
        if not beta > 0:
            raise ArgumentError(f"{self}: beta must be above 0, received {beta!r}")
        if threshold is not None and not 0 < threshold <= 1:
            raise ArgumentError(f"{self}: threshold must lie in (0, 1], received {threshold!r}")
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


class F1Score(FBetaScore, name="f1_score"):
    """The harmonic mean of precision and recall; for the arguments, see FBetaScore."""

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)
