"""Errors of forecasts over time, by stream and by hour of day, and their reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.arrays import Array, Doubles, Ints
from streamrnn.outputs.compared import (
    ComparedCounts,
    EvaluationPlan,
    LabelledStreams,
    compared_rows,
)
from streamrnn.outputs.evaluation import MeasuredOutput, measures_of
from streamrnn.outputs.matching import LabelledRows, ScoreRows
from streamrnn.outputs.measures import Classes, Number, Pairs
from streamrnn.outputs.reporting.scan import StreamMeans
from streamrnn.outputs.reporting.timeline import Timeline, positions

BINS = 10
_HOUR = 3600


class Figure(NamedTuple):
    """A figure of `evaluate`, and that of its baseline ("" if none)."""

    name: str
    baseline: str

    @classmethod
    def of(cls, found: Sequence[str]) -> Figure:
        """Choose the figure to draw of those that a measure has."""
        for name in ("log_loss", "pinball", "mae"):
            for baseline in (f"{name}_persistence", f"{name}_base_rate"):
                if name in found and baseline in found:
                    return cls(name, baseline)
        return cls("rmse", "rmse_mean") if "rmse_mean" in found else cls("mae", "")


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
            value, label = labels.value[:, item.target], labels.label[:, item.target]
            score = scores.score[:, item.units]
            item.measure.add(Pairs(group, score, label, value, labels.weight))

    def errors(self, plan: EvaluationPlan, groups: int) -> list[Errors]:
        groups = max(groups, len(self._rows))
        rows = np.zeros(groups, np.int64)
        rows[: len(self._rows)] = self._rows
        found = []
        for item in self._outputs:
            with np.errstate(invalid="ignore"):
                figures = item.measure.result(groups)
            figure = Figure.of(list(figures))
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
        self._by_time, self._by_stream, self._by_hour = (_Groups(plan) for _ in range(3))
        measure = measures_of(plan)[0].measure
        classes = isinstance(measure, Number | Classes) and len(plan.targets) == 1
        self._reliability = _Reliability(len(plan.scores)) if classes else None

    def read(self, path: str, labels: LabelledStreams) -> None:
        """Read both sides. Raises what `evaluate` raises."""
        for scores, happened in compared_rows(path, labels, self._plan, self.counts):
            place = _places(scores.time, self._plan.time.type)
            self.counts.rows += len(place)
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
        return self._by_time.errors(self._plan, self._timeline.buckets)

    def by_stream(self) -> list[Errors]:
        """Return the error of each output by the slots of the labels."""
        return self._by_stream.errors(self._plan, 0)

    def by_hour(self) -> list[Errors]:
        """Return the error of each output by hour of day; none without a clock."""
        return self._by_hour.errors(self._plan, 24) if self._timeline.clock else []

    def reliability(self) -> pa.Table | None:
        """Return forecast and observed probabilities; None if the outputs are no probabilities."""
        return None if self._reliability is None else self._reliability.table()


def _places(ticks_N: Ints, kind: pa.DataType) -> Ints:
    width = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    integers = pa.array(ticks_N, pa.int64())
    return positions(integers if pa.types.is_integer(kind) else integers.cast(width).cast(kind))
