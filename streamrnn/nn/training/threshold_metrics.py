"""Metrics of positive and negative answers at thresholds: precision, recall, areas under curves.

Formulas of Keras 3. A prediction is positive if it is above the threshold, a truth if it is not 0.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers import activations
from streamrnn.nn.training.curves import logarithm
from streamrnn.nn.training.metric import SummedMetric

_LOWEST = -1e10
"""The threshold for answers chosen by top_k, as in Keras; all other predictions are set to it."""


class Answers(NamedTuple):
    """Sums of weights at each threshold: true and false positives and negatives."""

    tp: Array
    fp: Array
    tn: Array
    fn: Array


class ThresholdMetric(SummedMetric):
    """The base class: it sums weights by truth and number of thresholds below a prediction."""

    direction = "up"
    thresholds: list[float]

    def add(self, t: Floats, p: Floats, weight: Floats) -> None:
        t, p = self._chosen(t, p)
        buckets = len(self.thresholds) + 1
        place = self._above(p.reshape(-1)) + buckets * (t.reshape(-1) != 0)
        values = np.repeat(weight.astype(np.float64), p.shape[-1])
        values[np.isnan(p.reshape(-1))] = np.nan  # on neither side: sums become NaN
        self._add_at(2 * buckets, place, values)

    def _chosen(self, t: Floats, p: Floats) -> tuple[Floats, Floats]:
        """Return the elements that count."""
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


class Precision(ThresholdMetric):
    """The share of true positives among all positive predictions; 0 without any.

    thresholds: a number, by default 0.5, or several (then the result is an array). top_k: only the
    k largest predictions of a sample are positive. class_id: count this column alone.
    """

    own_name = "precision"

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(name, dtype)
        self.thresholds = _thresholds(self.name, thresholds, 0.5 if top_k is None else _LOWEST)
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
                    f"metric {self.name!r}: class_id must lie in 0…{p.shape[-1] - 1}, received "
                    f"{self.class_id}"
                )
            return t[..., self.class_id, None], p[..., self.class_id, None]
        return t, p

    def result(self) -> Any:
        answers = self.answers()
        return self._number(_share(answers.tp, answers.tp + answers.fp))

    def _number(self, values: Array) -> Any:
        return float(values[0]) if len(values) == 1 else values


class Recall(Precision):
    """The share of true positives among truly positive samples; 0 without any. See Precision."""

    own_name = "recall"

    def result(self) -> Any:
        answers = self.answers()
        return self._number(_share(answers.tp, answers.tp + answers.fn))


class AUC(ThresholdMetric):
    """The area under a curve through num_thresholds points.

    curve: "ROC" (true over false positive rate) or "PR" (precision over recall). summation_method:
    "interpolation", "minoring" or "majoring". thresholds: values between 0 and 1 to use instead of
    evenly spaced ones. from_logits: predictions are logits of probabilities.
    """

    own_name = "auc"

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
                    f"metric {self.name!r}: {argument}={value!r} is not supported; make an AUC for "
                    "each label"
                )
        self.curve = _one_of(self.name, "curve", curve.upper(), ("ROC", "PR"))
        methods = ("interpolation", "minoring", "majoring")
        self.summation_method = _one_of(
            self.name, "summation_method", summation_method.lower(), methods
        )
        self.from_logits = from_logits
        self._even = thresholds is None
        if thresholds is None:
            if num_thresholds < 2:
                raise ArgumentError(
                    f"metric {self.name!r}: num_thresholds must be 2 or more, received "
                    f"{num_thresholds}"
                )
            inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
        else:
            inner = sorted(_thresholds(self.name, thresholds, 0.5))
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
    """Return the area by the interpolation of Davis & Goadrich 2006, as in Keras."""
    p = answers.tp + answers.fp
    dtp = answers.tp[:-1] - answers.tp[1:]
    slope = _share(dtp, np.maximum(p[:-1] - p[1:], 0))
    intercept = answers.tp[1:] - slope * p[1:]
    ratio = np.where((p[:-1] > 0) & (p[1:] > 0), _share(p[:-1], np.maximum(p[1:], 0)), 1.0)
    logs = np.array([logarithm(value) if value > 0 else np.nan for value in ratio.tolist()])
    positive = np.maximum(answers.tp[1:] + answers.fn[1:], 0)
    return _total(_share(slope * (dtp + intercept * logs), positive))


def _share(part: Array, whole: Array) -> Array:
    """Return part / whole, 0 where `whole` is 0."""
    share: Array = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return share


def _total(values: Array) -> float:
    """Return the sum, added in order."""
    return float(np.cumsum(values)[-1])


def _thresholds(
    name: str, thresholds: float | Sequence[float] | None, default: float
) -> list[float]:
    if thresholds is None:
        return [default]
    listed = list(thresholds) if isinstance(thresholds, Sequence | np.ndarray) else [thresholds]
    if not listed or not all(0 <= threshold <= 1 for threshold in listed):
        raise ArgumentError(f"metric {name!r}: thresholds must lie in 0…1, received {thresholds!r}")
    return [float(threshold) for threshold in listed]


def _one_of(name: str, argument: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ArgumentError(
            f"metric {name!r}: {argument} must be one of {', '.join(allowed)}, received {value!r}"
        )
    return value
