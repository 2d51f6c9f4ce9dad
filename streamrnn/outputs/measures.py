"""Errors of scores, summed by group, in memory that does not depend on the number of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from streamrnn.arrays import Array, Doubles, Floats, Ints
from streamrnn.errors import ConfigError
from streamrnn.outputs.ranks import Ranks

_LEAST = 1e-7
"""Probabilities are limited to [_LEAST, 1 - _LEAST] before their logarithm is taken."""

_NORMAL_90 = 1.6448536
"""Standard deviations on both sides of the mean that hold 90 % of a normal distribution."""


class Pairs(NamedTuple):
    """N rows with finite scores (N, M), labels and weights; `now` (N,) is NaN for none."""

    group: Ints
    score: Floats
    label: Doubles
    now: Doubles
    weight: Doubles


class Sums:
    """Weighted sums by group: one column per name."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._sums = np.zeros((0, len(names)))

    def add(self, group: Ints, weight: Doubles, **values: Array) -> None:
        """Add values (N,), multiplied by their weights."""
        groups = max(len(self._sums), int(group.max(initial=-1)) + 1)
        added = [
            np.bincount(group, weight * values[name], minlength=groups) for name in self._names
        ]
        self._sums = np.stack(added, axis=1) + _rows(self._sums, groups)

    def of(self, groups: int) -> dict[str, Doubles]:
        """Return the sums (groups,) by name."""
        return dict(zip(self._names, _rows(self._sums, groups).T, strict=True))


def _rows(sums: Doubles, groups: int) -> Doubles:
    return np.concatenate([sums, np.zeros((groups - len(sums), sums.shape[1]))])


class Measure(Protocol):
    """Measures the errors of one output, or of all of them."""

    def add(self, pairs: Pairs) -> None:
        """Add rows."""

    def result(self, groups: int) -> Mapping[str, Doubles]:
        """Return figures (groups,) by name; NaN where there is none."""


class Distance:
    """MAE and RMSE; of a quantile also its pinball loss, and the share of labels up to it.

    Compared with persistence, or without a horizon with the mean of the labels of the group.
    """

    def __init__(self, ahead: bool, quantile: float | None = None) -> None:
        self._ahead = ahead
        self._quantile = quantile
        self._shift: float | None = None
        self._sums = Sums(
            "total", "mae", "square", "mae_base", "square_base", "label", "label_square",
            "pinball", "pinball_base", "coverage",
        )  # fmt: skip

    def add(self, pairs: Pairs) -> None:
        """Add rows."""
        if self._shift is None and len(pairs.label):
            self._shift = float(pairs.label[0])
        error = pairs.score[:, 0].astype(np.float64) - pairs.label
        base = np.where(np.isnan(pairs.now), 0, pairs.now - pairs.label)
        label = pairs.label - (self._shift or 0.0)
        self._sums.add(
            pairs.group,
            pairs.weight,
            total=np.ones(len(error)),
            mae=abs(error),
            square=error**2,
            mae_base=abs(base),
            square_base=base**2,
            label=label,
            label_square=label**2,
            pinball=self._pinball(error),
            pinball_base=self._pinball(base),
            coverage=error >= 0,
        )

    def _pinball(self, error: Doubles) -> Doubles:
        """Return the pinball loss of forecasts that are too high by `error`."""
        q = self._quantile or 0.0
        return np.maximum((1 - q) * error, -q * error)

    def result(self, groups: int) -> Mapping[str, Doubles]:
        """Return figures (groups,) by name."""
        sums = _means(self._sums.of(groups))
        found = {"mae": sums["mae"], "rmse": np.sqrt(sums["square"])}
        if self._ahead:
            found["mae_persistence"] = sums["mae_base"]
            found["rmse_persistence"] = np.sqrt(sums["square_base"])
        else:
            variance = sums["label_square"] - sums["label"] ** 2
            found["rmse_mean"] = np.sqrt(np.maximum(variance, 0))
        if self._quantile is not None:
            found["pinball"], found["coverage"] = sums["pinball"], sums["coverage"]
            if self._ahead:
                found["pinball_persistence"] = sums["pinball_base"]
        return found


class Band:
    """MAE and RMSE of a mean (N, 2: mean, standard deviation), and how its band holds.

    `spread`: the mean standard deviation. `coverage_90`: the share of labels within 1.645 of them,
    which is 0.9 of labels from a normal distribution.
    """

    def __init__(self, ahead: bool) -> None:
        self._distance = Distance(ahead)
        self._sums = Sums("total", "spread", "coverage_90")

    def add(self, pairs: Pairs) -> None:
        """Add rows."""
        self._distance.add(pairs)
        mean, spread = pairs.score.T.astype(np.float64)
        within = abs(pairs.label - mean) <= _NORMAL_90 * spread
        total = np.ones(len(mean))
        self._sums.add(pairs.group, pairs.weight, total=total, spread=spread, coverage_90=within)

    def result(self, groups: int) -> Mapping[str, Doubles]:
        """Return figures (groups,) by name."""
        sums = _means(self._sums.of(groups))
        own = {name: sums[name] for name in ("spread", "coverage_90")}
        return {**self._distance.result(groups), **own}


class Binary:
    """Log-loss, accuracy and AUC of a probability; the base rate is that of the group."""

    def __init__(self, ahead: bool) -> None:
        self._ahead = ahead
        self._sums = Sums("total", "positive", "loss", "right", "right_now")
        self._ranks = Ranks()

    def add(self, pairs: Pairs) -> None:
        """Add rows."""
        score, positive = pairs.score[:, 0].astype(np.float64), pairs.label == 1
        self._sums.add(
            pairs.group,
            pairs.weight,
            total=np.ones(len(score)),
            positive=positive,
            loss=-_log(np.where(positive, score, 1 - score)),
            right=(score >= 0.5) == positive,
            right_now=pairs.now == pairs.label,
        )
        self._ranks.add(pairs.group, pairs.score[:, 0], positive, pairs.weight)

    def result(self, groups: int) -> Mapping[str, Doubles]:
        """Return figures (groups,) by name."""
        sums = _means(self._sums.of(groups))
        rate = sums["positive"]
        area, bound = self._ranks.auc(groups)
        found = {
            "base_rate": rate,
            "log_loss": sums["loss"],
            "log_loss_base_rate": -_weighted_log(rate) - _weighted_log(1 - rate),
            "accuracy": sums["right"],
            "accuracy_base_rate": np.maximum(rate, 1 - rate),
        }
        if self._ahead:
            found["accuracy_persistence"] = sums["right_now"]
        return {**found, "auc": area, "auc_error": bound}


class Classes:
    """Log-loss and accuracy of one probability per class; base rates are those of the group."""

    def __init__(self, ahead: bool, target: str, count: int) -> None:
        self._ahead = ahead
        self._target = target
        self._count = count
        self._labels = [f"class_{i}" for i in range(count)]
        self._sums = Sums("total", "loss", "right", "right_now", *self._labels)

    def add(self, pairs: Pairs) -> None:
        """Add rows. Raises ConfigError for a label that is no class."""
        wrong = (pairs.label < 0) | (pairs.label >= self._count) | (pairs.label % 1 != 0)
        if wrong.any():
            raise ConfigError(
                f"[target] column: {self._target!r} has the label {pairs.label[wrong][0]:g}, but "
                f"the {self._count} outputs are classes 0 to {self._count - 1}. If they are "
                "quantiles, give them: --quantiles 0.1,0.5,0.9"
            )
        label = pairs.label.astype(np.int64)
        chosen = pairs.score[np.arange(len(label)), label].astype(np.float64)
        classes = {name: label == i for i, name in enumerate(self._labels)}
        self._sums.add(
            pairs.group,
            pairs.weight,
            total=np.ones(len(label)),
            loss=-_log(chosen),
            right=pairs.score.argmax(axis=1) == label,
            right_now=pairs.now == pairs.label,
            **classes,
        )

    def result(self, groups: int) -> Mapping[str, Doubles]:
        """Return figures (groups,) by name."""
        sums = _means(self._sums.of(groups))
        rates = np.stack([sums[name] for name in self._labels])
        found = {
            "log_loss": sums["loss"],
            "log_loss_base_rate": -sum(map(_weighted_log, rates)),
            "accuracy": sums["right"],
            "accuracy_base_rate": rates.max(axis=0),
        }
        if self._ahead:
            found["accuracy_persistence"] = sums["right_now"]
        return found


class Number:
    """The measure of an output for a target of integers or booleans: `Binary` or `Distance`.

    The output is a probability if all labels are 0 or 1 and all scores from 0 to 1.
    """

    def __init__(self, ahead: bool) -> None:
        self._distance = Distance(ahead)
        self._binary: Binary | None = Binary(ahead)
        self._empty = True

    def add(self, pairs: Pairs) -> None:
        """Add rows."""
        self._distance.add(pairs)
        if self._binary is None:
            return
        score, label = pairs.score, pairs.label
        self._empty = self._empty and not len(label)
        if ((score < 0) | (score > 1)).any() or ((label != 0) & (label != 1)).any():
            self._binary = None
        else:
            self._binary.add(pairs)

    def result(self, groups: int) -> Mapping[str, Doubles]:
        """Return figures (groups,) by name."""
        if self._binary is None or self._empty:
            return self._distance.result(groups)
        return self._binary.result(groups)


def _means(sums: dict[str, Any]) -> dict[str, Doubles]:
    weight = np.where(sums["total"] > 0, sums["total"], np.nan)
    return {name: values / weight for name, values in sums.items()}


def _log(values: Doubles) -> Doubles:
    limited = values.clip(_LEAST, 1 - _LEAST)
    found: Doubles = np.log(limited)  # noqa: TID251 - of a report, not of an output or a state
    return found


def _weighted_log(rate: Doubles) -> Doubles:
    """Return rate * log(rate), 0 for 0."""
    return np.where(rate > 0, rate * _log(rate), rate)
