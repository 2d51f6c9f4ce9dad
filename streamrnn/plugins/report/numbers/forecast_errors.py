"""Errors of forecasts over time, by stream and by hour of day, and their reliability."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Doubles, Ints
from streamrnn.jobs.evaluation import (
    Classes,
    ComparedCounts,
    EvaluationPlan,
    LabelledRows,
    LabelledStreams,
    MeasuredOutput,
    Number,
    Pairs,
    ScoreRows,
    compared_rows,
    measures_of,
)
from streamrnn.plugins.report.numbers.scan import StreamMeans
from streamrnn.plugins.report.numbers.timeline import Timeline, positions

BINS = 10
_NONE = np.full(1, np.nan)
_HOUR = 3600


class Figure(NamedTuple):
    """A figure of `evaluate`, and that of its baseline ("" if none)."""

    name: str
    baseline: str

    @classmethod
    def of(cls, figures: Mapping[str, Doubles]) -> "Figure":
        """Choose what to draw of the figures (1,) of all rows: beside the best baseline."""
        if "log_loss" in figures:
            return cls("log_loss", "log_loss_base_rate")
        name = "pinball" if "pinball" in figures else "mae"
        shares = {
            baseline: float(figures[f"better_{baseline}"][0])
            for baseline in ("persistence", "seasonal")
            if not np.isnan(figures.get(f"better_{baseline}", _NONE)[0])
        }
        if shares:
            return cls(name, f"{name}_{min(shares, key=shares.__getitem__)}")
        return cls("rmse", "rmse_mean")


class Errors(NamedTuple):
    """The error of one output by group, beside a baseline; NaN where there are no rows."""

    output: str
    target: str
    figure: Figure
    rows: Ints
    error: Doubles
    baseline: Doubles


class _Groups:
    """One grouping of all pairs, with measures of its own."""

    def __init__(self, plan: EvaluationPlan) -> None:
        self._outputs: list[MeasuredOutput] = measures_of(plan)
        self._rows = np.zeros(0, np.int64)

    def add(self, group: Ints, scores: ScoreRows, labels: LabelledRows) -> None:
        if not len(group):
            return
        rows = np.bincount(group, minlength=len(self._rows))
        rows[: len(self._rows)] += self._rows
        self._rows = rows
        for item in self._outputs:
            forecasts, label = labels.forecasts(item.target), labels.label[:, item.target]
            score = scores.score[:, item.units]
            item.measure.add(Pairs(group, score, label, forecasts, labels.weight))

    def figures(self, plan: EvaluationPlan, groups: int) -> list[Mapping[str, Doubles]]:
        """Return the figures of each output, (groups,) by name."""
        means = plan.trained_means
        with np.errstate(invalid="ignore"):
            return [
                item.measure.result(groups, None if means is None else means[item.target])
                for item in self._outputs
            ]

    def errors(self, plan: EvaluationPlan, groups: int, drawn: Sequence[Figure]) -> list[Errors]:
        """Return the figure of each output that is `drawn`, by group."""
        groups = max(groups, len(self._rows))
        rows = np.zeros(groups, np.int64)
        rows[: len(self._rows)] = self._rows
        found = []
        results = self.figures(plan, groups)
        for item, figures, figure in zip(self._outputs, results, drawn, strict=True):
            none = np.full(groups, np.nan)
            found.append(
                Errors(
                    item.name,
                    plan.targets[item.target],
                    figure,
                    rows,
                    np.where(rows > 0, figures[figure.name], np.nan),
                    np.where(rows > 0, figures.get(figure.baseline, none), np.nan),
                )
            )
        return found


class _Reliability:
    """Forecast probabilities in ten classes, and how often what they forecast happened.

    Of several classes, the probability is that of the most likely one.
    """

    def __init__(self, outputs: int) -> None:
        self._sums = np.zeros((3, BINS))
        self._valid = True
        self._outputs = outputs

    def add(self, scores: ScoreRows, labels: LabelledRows) -> None:
        score, label = scores.score.astype(np.float64), labels.label[:, 0]
        if self._outputs > 1:
            forecast, happened = score.max(axis=1), score.argmax(axis=1) == label
        else:
            forecast, happened = score[:, 0], label == 1
            self._valid &= bool(((label == 0) | (label == 1)).all())
        self._valid &= bool(((forecast >= 0) & (forecast <= 1)).all())
        if self._valid:
            place = (forecast * BINS).astype(np.int64).clip(0, BINS - 1)
            for row, value in enumerate((np.ones(len(score)), forecast, happened)):
                self._sums[row] += np.bincount(place, labels.weight * value, minlength=BINS)

    def table(self) -> pa.Table | None:
        """Return the classes that have rows; None if the scores are no probabilities."""
        weight, forecast, happened = self._sums
        some = weight > 0
        if not self._valid or not some.any():
            return None
        return pa.table(
            {
                "forecast": forecast[some] / weight[some],
                "happened": happened[some] / weight[some],
                "rows": weight[some],
            }
        )


class ForecastErrors:
    """Reads an output beside its labels, once.

    `means`: those of output number `output` and its label of chosen streams, by the slots of
    `labels`.
    """

    def __init__(
        self, plan: EvaluationPlan, timeline: Timeline, means: StreamMeans, output: int = 0
    ) -> None:
        self.counts = ComparedCounts()
        self._plan = plan
        self._timeline = timeline
        self.means = means
        self._output = output
        self._all, self._by_time, self._by_stream, self._by_hour = (_Groups(plan) for _ in range(4))
        measure = measures_of(plan)[0].measure
        classes = isinstance(measure, Number | Classes) and len(plan.targets) == 1
        self._reliability = _Reliability(len(plan.scores)) if classes else None

    def read(self, path: str, labels: LabelledStreams) -> None:
        """Read both sides. Raises what `evaluate` raises."""
        for scores, happened in compared_rows(path, labels, self._plan, self.counts):
            place = _places(scores.time, self._plan.time.type)
            self.counts.rows += len(place)
            self._all.add(np.zeros(len(place), np.int64), scores, happened)
            self._by_time.add(self._timeline.bucket(place), scores, happened)
            self._by_stream.add(scores.slot, scores, happened)
            if self._timeline.clock:
                self._by_hour.add(place // _HOUR % 24, scores, happened)
            if self._reliability is not None:
                self._reliability.add(scores, happened)
            both: Array = np.stack([scores.score[:, self._output], happened.label[:, 0]], axis=1)
            self.means.add(scores.slot, place, both)

    def by_time(self) -> list[Errors]:
        """Return the error of each output in each bucket."""
        return self._by_time.errors(self._plan, self._timeline.buckets, self._drawn())

    def by_stream(self) -> list[Errors]:
        """Return the error of each output by the slots of the labels."""
        return self._by_stream.errors(self._plan, 0, self._drawn())

    def by_hour(self) -> list[Errors]:
        """Return the error of each output by hour of day; none without a clock."""
        if not self._timeline.clock:
            return []
        return self._by_hour.errors(self._plan, 24, self._drawn())

    def _drawn(self) -> list[Figure]:
        return [Figure.of(figures) for figures in self._all.figures(self._plan, 1)]

    def reliability(self) -> pa.Table | None:
        """Return forecast and observed probabilities; None if the outputs are no probabilities."""
        return None if self._reliability is None else self._reliability.table()


def _places(ticks_N: Ints, kind: pa.DataType) -> Ints:
    width = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    integers = pa.array(ticks_N, pa.int64())
    return positions(integers if pa.types.is_integer(kind) else integers.cast(width).cast(kind))
