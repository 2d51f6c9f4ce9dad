"""Errors of scores, summed by group, in memory that does not depend on the number of rows."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from streamrnn.base.arrays import Array, Bools, Doubles, Floats, Ints
from streamrnn.errors import ConfigError
from streamrnn.jobs.fitting import share_better
from streamrnn.nn.training.metrics import NORMAL_90

_LIMIT = 1 << 22
_BITS = 32
_SIGN = np.uint32(1 << 31)


class Ranks:
    """Weights of positive and negative rows, by group and score.

    Equal scores count as one. If there are more than `limit` distinct scores, over all groups,
    their lowest bits are dropped one by one, so that near scores become equal, until there are at
    most `limit`: from then on the error bounds of `auc` may be above 0.

    >>> ranks = Ranks()
    >>> score = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    >>> ranks.add(np.zeros(4, np.int64), score, np.array([False, False, True, True]), np.ones(4))
    >>> area, bound = ranks.auc(1)
    >>> area.tolist(), bound.tolist()
    ([0.75], [0.0])
    >>> ranks.average_precision(1).round(4).tolist()
    [0.8333]
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._dropped = 0
        self._code = np.zeros(0, np.int64)
        self._weight = np.zeros((0, 2))
        self._new: list[tuple[Ints, Doubles]] = []
        self._waiting = 0

    def add(self, group_N: Ints, score_N: Floats, positive_N: Bools, weight_N: Doubles) -> None:
        """Add N rows, each of a group (from 0), with a finite score."""
        weight = np.zeros((len(group_N), 2))
        weight[np.arange(len(group_N)), positive_N.astype(np.int64)] = weight_N
        bits = (score_N.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
        ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)  # integers in the order of the scores
        code = (group_N << _BITS | ordered.astype(np.int64)) >> self._dropped << self._dropped
        self._new.append((code, weight))
        self._waiting += len(code)
        if self._waiting > max(self._limit // 4, len(self._code)):
            self._merge()

    def _merge(self) -> None:
        codes, weights = zip((self._code, self._weight), *self._new, strict=True)
        self._new, self._waiting = [], 0
        self._sum(np.concatenate(codes), np.concatenate(weights))
        while len(self._code) > self._limit and self._dropped < _BITS - 1:
            self._dropped += 1
            self._sum(self._code >> self._dropped << self._dropped, self._weight)

    def _sum(self, code: Ints, weight: Doubles) -> None:
        self._code, index = np.unique(code, return_inverse=True)
        sums = [_sums(index, column, len(self._code)) for column in weight.T]
        self._weight = np.stack(sums, axis=1)

    def quantiles(self, levels: Sequence[float]) -> Doubles:
        """Return quantiles of the scores of the positive rows; without these, of the negative ones.

        All rows are of one group. A quantile is the smallest score such that rows with scores up to
        it have the share `level` of the weight; NaN without rows.
        """
        self._merge()
        if not len(self._code):
            return np.full(len(levels), np.nan)
        below = self._weight.cumsum(axis=0).T
        below = below[1] if below[1, -1] else below[0]
        place = np.searchsorted(below, np.multiply(levels, below[-1]))
        bits = self._code[place].astype(np.uint32)
        scores = np.where(bits & _SIGN, bits ^ _SIGN, ~bits).astype(np.uint32).view(np.float32)
        values: Doubles = scores.astype(np.float64)
        return values

    def auc(self, groups: int) -> tuple[Doubles, Doubles]:
        """Return areas and bounds for their errors (groups,); NaN without rows of both kinds."""
        self._merge()
        group = self._code >> _BITS
        negative, positive = self._weight.T
        sums = [_sums(group, values, groups) for values in (negative, positive)]
        start = np.searchsorted(group, np.arange(groups))
        below = np.cumsum(negative) - negative
        below -= np.append(below, 0)[start][group]
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = sums[0] * sums[1]
            pairs[pairs == 0] = np.nan
            ties = _sums(group, positive * negative / 2, groups) / pairs
            area = _sums(group, positive * below, groups) / pairs + ties
        return area, ties if self._dropped else np.where(np.isnan(area), np.nan, 0.0)

    def average_precision(self, groups: int) -> Doubles:
        """Return the mean precision (groups,) at the scores of positive rows; NaN without these.

        The precision at a score is the share of positive rows among those with at least that
        score, as in scikit-learn's `average_precision_score`.
        """
        self._merge()
        group = self._code[::-1] >> _BITS
        negative, positive = self._weight[::-1].T
        begins = np.searchsorted(-group, -np.arange(groups))
        above = np.stack([np.cumsum(positive), np.cumsum(negative + positive)])
        before = np.pad(above, ((0, 0), (1, 0)))[:, begins][:, group]
        right, total = above - before
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = positive * np.where(total > 0, right / total, 0)
            mean: Doubles = _sums(group, precision, groups) / _sums(group, positive, groups)
        return mean


def _sums(group: Ints, values: Doubles, groups: int) -> Doubles:
    """Return sums (groups,) as floats, even of no values, for which NumPy returns integers."""
    return np.bincount(group, values, groups).astype(np.float64)


_LEAST = 1e-7
"""Probabilities are limited to [_LEAST, 1 - _LEAST] before their logarithm is taken."""


class Pairs(NamedTuple):
    """N rows with finite scores (N, M), labels and weights.

    `forecasts`: name of a baseline -> its forecasts (N,), NaN where it has none.
    """

    group: Ints
    score: Floats
    label: Doubles
    forecasts: Mapping[str, Doubles]
    weight: Doubles


class Sums:
    """The weight of the rows of each group, and weighted sums: one column per name."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._sums = np.zeros((0, 1 + len(names)))

    def add(self, group: Ints, weight: Doubles, **values: Array) -> None:
        """Add values (N,), multiplied by their weights."""
        groups = max(len(self._sums), int(group.max(initial=-1)) + 1)
        columns = [weight, *(weight * values[name] for name in self._names)]
        added = [np.bincount(group, column, minlength=groups) for column in columns]
        self._sums = np.stack(added, axis=1) + self._rows(groups)

    def weight(self, groups: int) -> Doubles:
        """Return the weight (groups,) of the rows."""
        return self._rows(groups)[:, 0]

    def means(self, groups: int) -> dict[str, Doubles]:
        """Return the means (groups,) by name, NaN without a weight."""
        total, *sums = self._rows(groups).T
        weight = np.where(total > 0, total, np.nan)
        return {name: of / weight for name, of in zip(self._names, sums, strict=True)}

    def _rows(self, groups: int) -> Doubles:
        missing = np.zeros((groups - len(self._sums), self._sums.shape[1]))
        return np.concatenate([self._sums, missing])


class Measure(Protocol):
    """Measures the errors of one output, or of all outputs, and of baselines.

    A baseline `b` is compared over the `rows_b` for which it has a forecast: for numbers, `rmse_b`
    is its error, `rmse_where_b` the model's error over the same rows, and `better_b` the share of
    the baseline's error by which the model's is smaller (below 0: worse). Figures that name no
    baseline are over all rows.
    """

    def add(self, pairs: Pairs) -> None:
        """Add rows."""

    def result(self, groups: int, mean: float | None = None) -> Mapping[str, Doubles]:
        """Return figures (groups,) by name; NaN where there is none.

        `mean`: a constant forecast; by default the mean of the labels of each group. As this
        default is known only afterwards, the model is compared with it only if there is no other
        baseline.
        """


class _Beside:
    """Sums of the errors of a baseline and of the model, over rows with a baseline forecast."""

    def __init__(self, *names: str) -> None:
        self._rows = Sums()
        self._sums = Sums(*names, *(f"{name}_where" for name in names))

    def add(
        self, pairs: Pairs, name: str, baseline: dict[str, Array], model: dict[str, Array]
    ) -> None:
        """Add errors (N,) by name; rows without a forecast of the baseline are left out."""
        has = ~np.isnan(pairs.forecasts[name])
        values = baseline | {f"{key}_where": array for key, array in model.items()}
        chosen = {key: array[has] for key, array in values.items()}
        self._rows.add(pairs.group[has], np.ones(int(has.sum())))
        self._sums.add(pairs.group[has], pairs.weight[has], **chosen)

    def result(self, groups: int) -> tuple[Doubles, dict[str, Doubles]]:
        """Return the number of rows and the mean errors (groups,) by name."""
        return self._rows.weight(groups), self._sums.means(groups)


def _of_classes(
    means: Mapping[str, Doubles], rates: Doubles, answers: Mapping[str, Doubles]
) -> dict[str, Doubles]:
    """Return the figures of classes whose shares of the labels are `rates` (classes, groups).

    `better_base_rate` compares log-losses; it is NaN where all labels have one class.
    """
    terms = np.where(rates > 0, rates * _log(rates), rates)  # 0 for 0
    base = -sum(terms, np.zeros(rates.shape[1]))
    most = rates.max(axis=0)
    return {
        "log_loss": means["loss"],
        "log_loss_base_rate": base,
        "accuracy": means["right"],
        "accuracy_base_rate": most,
        **answers,
        "better_base_rate": share_better(means["loss"], np.where(most < 1, base, np.nan)),
    }


class Distance(Measure):
    """MAE and RMSE; of a quantile also the pinball loss, and the share of labels at or below it.

    The RMSE is compared with the RMSE of the mean, and of the baselines named by `forecasts`. A
    quantile is compared, by pinball loss, with the baselines in `forecasts` only.
    """

    def __init__(self, forecasts: Sequence[str] = (), quantile: float | None = None) -> None:
        self._quantile = quantile
        self._shift = np.zeros(0)  # a label of each group: sums near it lose no digits
        self._sums = Sums("mae", "square", "label", "label_square", "pinball", "coverage")
        self._beside = {name: _Beside("mae", "square", "pinball") for name in forecasts}

    def add(self, pairs: Pairs) -> None:
        groups = max(len(self._shift), int(pairs.group.max(initial=-1)) + 1)
        self._shift = self._shifts(groups)
        blank = np.isnan(self._shift[pairs.group])
        # Assignments are in order: in reverse, the first label of each group is the one that stays.
        self._shift[pairs.group[blank][::-1]] = pairs.label[blank][::-1]
        error = pairs.score[:, 0].astype(np.float64) - pairs.label
        errors = self._errors(error)
        label = pairs.label - self._shift[pairs.group]
        self._sums.add(
            pairs.group,
            pairs.weight,
            label=label,
            label_square=label**2,
            coverage=error >= 0,
            **errors,
        )
        for name, beside in self._beside.items():
            beside.add(pairs, name, self._errors(pairs.forecasts[name] - pairs.label), errors)

    def _shifts(self, groups: int) -> Doubles:
        """Return the shift (groups,) of the labels of each group, NaN without rows."""
        return np.append(self._shift, np.full(groups - len(self._shift), np.nan))

    def _errors(self, error: Doubles) -> dict[str, Array]:
        """Return the losses of forecasts that are too high by `error`."""
        q = self._quantile or 0.0
        pinball = np.maximum((1 - q) * error, -q * error)
        return {"mae": abs(error), "square": error**2, "pinball": pinball}

    def result(self, groups: int, mean: float | None = None) -> Mapping[str, Doubles]:
        sums = self._sums.means(groups)
        figures = {"mae": sums["mae"], "rmse": np.sqrt(sums["square"])}
        if self._quantile is not None:
            figures["pinball"], figures["coverage"] = sums["pinball"], sums["coverage"]
        for name, beside in self._beside.items():
            rows, errors = beside.result(groups)
            square, where = np.sqrt(errors["square"]), np.sqrt(errors["square_where"])
            figures |= {
                f"rows_{name}": rows,
                f"mae_{name}": errors["mae"],
                f"mae_where_{name}": errors["mae_where"],
                f"rmse_{name}": square,
                f"rmse_where_{name}": where,
            }
            if self._quantile is not None:
                square, where = errors["pinball"], errors["pinball_where"]
                figures |= {f"pinball_{name}": square, f"pinball_where_{name}": where}
            figures[f"better_{name}"] = share_better(where, square)
        variance = sums["label_square"] - sums["label"] ** 2
        away = 0.0 if mean is None else sums["label"] + self._shifts(groups) - mean
        figures["rmse_mean"] = np.sqrt(np.maximum(variance, 0) + away**2)
        if self._quantile is None and (mean is not None or not self._beside):
            figures["better_mean"] = share_better(figures["rmse"], figures["rmse_mean"])
        return figures


class Band(Measure):
    """MAE and RMSE of a forecast mean, and the coverage of its band.

    Scores are (N, 2): mean and standard deviation.

    `spread`: the mean standard deviation. `coverage_90`: the share of labels within 1.645
    deviations of the mean, which is 0.9 for a normal distribution. `crps`: the mean
    continuous ranked probability score of that distribution, in the unit of the label; where the
    standard deviation is 0, it is the absolute error.
    """

    def __init__(self, forecasts: Sequence[str] = ()) -> None:
        self._distance = Distance(forecasts)
        self._sums = Sums("spread", "coverage_90", "crps")

    def add(self, pairs: Pairs) -> None:
        self._distance.add(pairs)
        mean, spread = pairs.score.T.astype(np.float64)
        within = abs(pairs.label - mean) <= NORMAL_90 * spread
        crps = _crps_of_normal(pairs.label - mean, spread)
        self._sums.add(pairs.group, pairs.weight, spread=spread, coverage_90=within, crps=crps)

    def result(self, groups: int, mean: float | None = None) -> Mapping[str, Doubles]:
        return {**self._distance.result(groups, mean), **self._sums.means(groups)}


def _crps_of_normal(error: Doubles, spread: Doubles) -> Doubles:
    """Return the CRPS (N,) of labels that are `error` above the mean (Gneiting & Raftery 2007)."""
    z = error / np.where(spread > 0, spread, 1)
    erf = map(math.erf, (z / math.sqrt(2)).tolist())  # noqa: TID251 - of a report
    inside = np.fromiter(erf, np.float64, len(z))
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)  # noqa: TID251 - of a report
    score = spread * (z * inside + 2 * density - 1 / math.sqrt(math.pi))
    return np.where(spread > 0, score, abs(error))


class _Answers:
    """How often baselines are right, and how often the model is right over the same rows."""

    def __init__(self, forecasts: Sequence[str]) -> None:
        self._beside = {name: _Beside("right") for name in forecasts}

    def add(self, pairs: Pairs, right: Array) -> None:
        """Add rows; `right` (N,): where the model is right."""
        for name, beside in self._beside.items():
            baseline = pairs.forecasts[name] == pairs.label
            beside.add(pairs, name, {"right": baseline}, {"right": right})

    def result(self, groups: int) -> dict[str, Doubles]:
        """Return figures (groups,) by name; `better_b` compares the shares of wrong answers."""
        figures: dict[str, Doubles] = {}
        for name, beside in self._beside.items():
            rows, shares = beside.result(groups)
            right, where = shares["right"], shares["right_where"]
            figures |= {
                f"rows_{name}": rows,
                f"accuracy_{name}": right,
                f"accuracy_where_{name}": where,
                f"better_{name}": share_better(1 - where, 1 - right),
            }
        return figures


class Binary(Measure):
    """Log-loss, accuracy, AUC and average precision of a probability.

    The base rate is the group's own, so no constant forecast does better. The model is compared
    with the base rate by log-loss, and with other baselines by accuracy.
    """

    def __init__(self, forecasts: Sequence[str] = ()) -> None:
        self._sums = Sums("positive", "loss", "right")
        self._answers = _Answers(forecasts)
        self._ranks = Ranks()

    def add(self, pairs: Pairs) -> None:
        score, positive = pairs.score[:, 0].astype(np.float64), pairs.label == 1
        right = (score >= 0.5) == positive
        loss = -_log(np.where(positive, score, 1 - score))
        self._sums.add(pairs.group, pairs.weight, positive=positive, loss=loss, right=right)
        self._answers.add(pairs, right)
        self._ranks.add(pairs.group, pairs.score[:, 0], positive, pairs.weight)

    def result(self, groups: int, mean: float | None = None) -> Mapping[str, Doubles]:
        means, answers = self._sums.means(groups), self._answers.result(groups)
        rate = means["positive"]
        area, bound = self._ranks.auc(groups)
        figures = _of_classes(means, np.stack([rate, 1 - rate]), answers)
        ranks = {"auc": area, "auc_error": bound}
        precision = self._ranks.average_precision(groups)
        return {"base_rate": rate, **figures, **ranks, "average_precision": precision}


class Classes(Measure):
    """Log-loss and accuracy of one probability per class, as in `Binary`, but not of ranks."""

    def __init__(self, forecasts: Sequence[str], target: str, count: int) -> None:
        self._target = target
        self._count = count
        self._labels = [f"class_{i}" for i in range(count)]
        self._sums = Sums("loss", "right", *self._labels)
        self._answers = _Answers(forecasts)

    def add(self, pairs: Pairs) -> None:
        """Add rows. Raises ConfigError for a label that is not a class."""
        wrong = (pairs.label < 0) | (pairs.label >= self._count) | (pairs.label % 1 != 0)
        if wrong.any():
            raise ConfigError(
                f"[target] column: {self._target!r} has the label {pairs.label[wrong][0]:g}, but "
                f"the {self._count} outputs are for classes 0 to {self._count - 1}. If the outputs "
                "are quantiles, list the quantiles: --quantiles 0.1,0.5,0.9"
            )
        label = pairs.label.astype(np.int64)
        chosen = pairs.score[np.arange(len(label)), label].astype(np.float64)
        right = pairs.score.argmax(axis=1) == label
        classes = {name: label == i for i, name in enumerate(self._labels)}
        self._sums.add(pairs.group, pairs.weight, loss=-_log(chosen), right=right, **classes)
        self._answers.add(pairs, right)

    def result(self, groups: int, mean: float | None = None) -> Mapping[str, Doubles]:
        means = self._sums.means(groups)
        rates = np.stack([means[name] for name in self._labels])
        return _of_classes(means, rates, self._answers.result(groups))


class Number(Measure):
    """The measure of an output for a target of integers or booleans: `Binary` or `Distance`.

    The output is a probability if there are rows, all labels are 0 or 1, and all scores are from 0
    to 1.
    """

    def __init__(self, forecasts: Sequence[str] = ()) -> None:
        self._distance = Distance(forecasts)
        self._binary: Binary | None = Binary(forecasts)
        self._empty = True

    def add(self, pairs: Pairs) -> None:
        self._distance.add(pairs)
        if self._binary is None:
            return
        score, label = pairs.score, pairs.label
        self._empty = self._empty and not len(label)
        if ((score < 0) | (score > 1)).any() or ((label != 0) & (label != 1)).any():
            self._binary = None
        else:
            self._binary.add(pairs)

    def result(self, groups: int, mean: float | None = None) -> Mapping[str, Doubles]:
        if self._binary is None or self._empty:
            return self._distance.result(groups, mean)
        return self._binary.result(groups)


def _log(values: Doubles) -> Doubles:
    limited = values.clip(_LEAST, 1 - _LEAST)
    logarithm: Doubles = np.log(limited)  # noqa: TID251 - of a report, not of an output or a state
    return logarithm
