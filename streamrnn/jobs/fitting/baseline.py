"""Errors of a model, and of forecasts without one, on the scale of the target; calibration."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Doubles, Floats
from streamrnn.errors import ConfigError
from streamrnn.jobs.fitting.commit import HistoryRow
from streamrnn.jobs.fitting.division import StepRuns, TrainingWindow
from streamrnn.jobs.fitting.staging import Staged, mapped
from streamrnn.nn.kernels import losses as sums
from streamrnn.stream.windows import Labels, SeasonJoin, TargetRows

_BLOCK = 1 << 16
_NOTABLE = 0.05
"""The share by which a season's error must be smaller than another baseline's to be notable."""


@dataclass
class ErrorSums:
    """Sums over rows of weighted absolute and squared errors, added in order in float64."""

    rows: int = 0
    weight: float = 0.0
    absolute: float = 0.0
    squared: float = 0.0

    def add(self, label: Floats, output: Floats, weight: Floats) -> None:
        """Add the errors (N, K) of outputs, all of them finite, with weights (N,)."""
        error = np.ascontiguousarray(output - label, np.float32)
        weights = np.broadcast_to(weight[:, np.newaxis], error.shape)
        self.rows += len(error)
        self.weight += sums.dot(weights, np.ones_like(error))
        self.squared += sums.dot(weights * error, error)
        self.absolute += sums.dot(np.abs(error), weights)

    @property
    def mae(self) -> float:
        """The mean absolute error."""
        return self.absolute / self.weight if self.weight else math.nan

    @property
    def rmse(self) -> float:
        """The root of the mean squared error."""
        return math.sqrt(self.mse)

    @property
    def mse(self) -> float:
        """The mean squared error."""
        return self.squared / self.weight if self.weight else math.nan


def share_better(model: float | Doubles, baseline: float | Doubles) -> Doubles:
    """Return by what share a model's error is smaller than a baseline's.

    The share is below 0 if the model's error is larger, 0 if both are equal, and -inf against a
    baseline without error.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(model == baseline, 0.0, 1 - np.divide(model, baseline))


class Baselines(NamedTuple):
    """Forecasts of the labels of staged rows.

    `persists`: whether one of them is the value at the row itself. `means` (K,): the weighted means
    of the labels that the model is trained on. `seasonal` (M, K): values a season before the
    labels, NaN for none; None without a season.
    """

    persists: bool
    means: Floats
    seasonal: Floats | None

    def of(self, window: TrainingWindow) -> dict[str, Floats]:
        """Return forecasts by name: (N, K) for the N steps of a window that count."""
        steps = window.counts
        forecasts = {"persistence": window.now[steps]} if self.persists else {}
        forecasts["mean"] = np.broadcast_to(self.means, window.label.shape)[steps]
        if self.seasonal is not None:
            forecasts["seasonal"] = window.cut(self.seasonal)[steps]
        return forecasts


class AgainstBaselines:
    """Errors of the model over all steps, and of model and baseline where a baseline forecasts."""

    def __init__(self) -> None:
        self._model = ErrorSums()
        self._beside: dict[str, tuple[ErrorSums, ErrorSums]] = {}

    def add(
        self, label: Floats, output: Floats, weight: Floats, forecasts: Mapping[str, Floats]
    ) -> None:
        """Add N steps with K targets; a baseline leaves out steps where it has no forecast."""
        self._model.add(label, output, weight)
        for name, forecast in forecasts.items():
            baseline, model = self._beside.setdefault(name, (ErrorSums(), ErrorSums()))
            judged = np.isfinite(forecast).all(axis=-1)
            baseline.add(label[judged], forecast[judged], weight[judged])
            model.add(label[judged], output[judged], weight[judged])

    def as_row(self) -> HistoryRow:
        """Return the errors by name; {} if no step counts.

        `b_rows` is the number of steps for which a baseline `b` has a forecast, and
        `val_rmse_where_b` is the model's error at these steps.
        """
        if not self._model.weight:
            return {}
        row: HistoryRow = {"val_rmse": self._model.rmse, "val_mae": self._model.mae}
        for name, (baseline, model) in self._beside.items():
            if baseline.rows:
                row |= {
                    f"{name}_rmse": baseline.rmse,
                    f"{name}_mae": baseline.mae,
                    f"{name}_rows": baseline.rows,
                    f"val_rmse_where_{name}": model.rmse,
                }
        return row


def shares_better(row: HistoryRow) -> dict[str, float]:
    """Return by what share the model's RMSE is smaller than each baseline's, by `as_row`."""
    return {
        name: float(share_better(row[f"val_rmse_where_{name}"], row[f"{name}_rmse"]))
        for name in ("persistence", "mean", "seasonal")
        if f"{name}_rmse" in row
    }


def seasonal_forecasts(staged: Staged, season: int, path: Path) -> Floats:
    """Return values (M, K) a season before the labels, in a mapped file.

    A value is NaN where there is none.
    """
    values: Floats = mapped(path, np.float32, (staged.steps, staged.targets))
    for begin, forecast in _season_blocks(staged, season):
        values[begin : begin + len(forecast)] = forecast
    return values


def best_season(
    staged: Staged, rows: StepRuns, baselines: Baselines, seasons: Mapping[str, int]
) -> str:
    """Return the name of the season with the best forecast; "" if none is good.

    `seasons`: name -> ticks. A good season has a value for at least half of the labels in the
    training `rows`, and its forecast is notably better there than the other baselines.
    """
    best, most = "", _NOTABLE
    for name, season in seasons.items():
        labels, errors = 0, AgainstBaselines()
        for begin, forecast in _season_blocks(staged, season):
            block = staged.labels[begin : begin + len(forecast)]
            step = np.arange(begin, begin + len(forecast))
            run = np.searchsorted(rows.begin, step, side="right") - 1  # runs are in order
            inside = (run >= 0) & (step < rows.begin[run] + rows.length[run])
            counts = (block[:, -1] > 0) & inside
            labels += int(counts.sum())
            counts &= np.isfinite(forecast).all(axis=1)
            columns = [staged.targets, 2 * staged.targets]
            label, now, weight = np.split(block[counts], columns, axis=1)
            others = {"mean": np.broadcast_to(baselines.means, label.shape)}
            if baselines.persists:
                others["persistence"] = staged.persistence(now)
            errors.add(label, forecast[counts].astype(np.float32), weight[:, 0], others)
        row = errors.as_row()
        if row and 2 * row["mean_rows"] >= labels:
            share = min(shares_better(row).values())
            best, most = (name, share) if share > most else (best, most)
    return best


def _season_blocks(staged: Staged, season: int) -> Iterator[tuple[int, Doubles]]:
    """Yield the first step of each block of N staged steps, and the block's forecasts (N, K)."""
    join, targets = SeasonJoin(season), staged.targets
    for begin in range(0, staged.steps, _BLOCK):
        step = np.arange(begin, min(begin + _BLOCK, staged.steps))
        slot = staged.stream_Q[np.searchsorted(staged.start_Q, step, side="right") - 1]
        label, value, weight = np.split(staged.labels[step].astype(np.float64), [targets, -1], 1)
        nothing = np.zeros(len(step), bool)
        rows = TargetRows(step, slot, staged.time[step], nothing, value, weight[:, 0])
        forecast = join.add(Labels(rows, label, staged.at[step]))
        yield begin, forecast - value if staged.change else forecast
        join.keep_stream(int(slot[-1]))


class Calibration:
    """How far validation labels lie above each quantile, stored on disk for `rows` labels.

    Split conformal calibration (Romano, Patterson & Candès 2019) of the quantiles, one by one.
    """

    def __init__(self, quantiles: Sequence[float], rows: int, path: Path) -> None:
        """Raise ConfigError if there are too few rows for one of the quantiles."""
        needed = math.ceil(max(1 / min(q, 1 - q) for q in quantiles) - 1e-9) - 1
        if rows < needed:
            raise ConfigError(
                f"[output] calibrate: the quantiles {', '.join(f'{q:g}' for q in quantiles)} need "
                f"{needed} rows with a label in [train] validation, received {rows}. Set an "
                "earlier validation.since, or a larger validation.streams"
            )
        self._quantiles, self._count = quantiles, 0
        self._above: Floats = mapped(path, np.float32, (len(quantiles), rows))

    def begin(self) -> None:
        """Forget the rows of the last validation."""
        self._count = 0

    def add(self, label: Floats, output: Floats) -> None:
        """Add labels (N, 1) and quantiles (N, U)."""
        end = self._count + len(label)
        self._above[:, self._count : end] = (label - output).T
        self._count = end

    def shifts(self) -> list[float]:
        """Return what to add to each quantile, so that its share of the labels is at or below it.

        Of n sorted differences, this is the difference of rank (n + 1) q; a fractional rank is
        rounded away from the median.
        """
        shifts = []
        for q, above in zip(self._quantiles, self._above[:, : self._count], strict=True):
            place = round((self._count + 1) * q, 9)
            rank = math.floor(place) if q < 0.5 else math.ceil(place)
            above.partition(rank - 1)
            shifts.append(float(above[rank - 1]))
        return shifts
