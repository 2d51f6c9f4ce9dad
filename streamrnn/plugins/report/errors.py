"""Forecasts compared with what happened: errors by time, stream and hour; reliability."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Doubles, Ints
from streamrnn.base.display import count
from streamrnn.jobs.evaluation import (
    Classes,
    ComparedCounts,
    EvaluationPlan,
    GroupedMeasures,
    LabelledRows,
    Number,
    ScoreRows,
    compared_rows,
    not_compared,
)
from streamrnn.plugins.report.output import rules_of
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    between,
    brief,
    rows_of_columns,
    short,
    span,
    without_name,
)
from streamrnn.plugins.report.scan import MOST_OUTPUTS, StreamMeans, Subject, texts_of_keys
from streamrnn.plugins.report.timeline import Timeline, positions
from streamrnn.stream.scoring import SourceLabels

BINS = 10
_NONE = np.full(1, np.nan)
_HOUR = 3600


class Figure(NamedTuple):
    """The name of a figure of `evaluate`, and the name of its baseline's figure ("" if none)."""

    name: str
    baseline: str

    @classmethod
    def of(cls, figures: Mapping[str, Doubles]) -> "Figure":
        """Choose a figure to draw, and its best baseline, by the figures (1,) of all rows."""
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
    """The errors of one output and of a baseline, by group; NaN for a group without rows."""

    output: str
    target: str
    figure: Figure
    rows: Ints
    error: Doubles
    baseline: Doubles

    @property
    def title(self) -> str:
        """The name of the figure in words."""
        return _FIGURES[self.figure.name]

    def columns(self) -> dict[str, Any]:
        """Return the drawn columns, by group."""
        baseline = {"baseline": self.baseline} if self.figure.baseline else {}
        return {"error": self.error, **baseline, "rows": self.rows}


class _Groups(GroupedMeasures):
    def __init__(self, plan: EvaluationPlan) -> None:
        super().__init__(plan)
        self._plan = plan

    def figures_of(self, groups: int) -> Sequence[Mapping[str, Doubles]]:
        """Return the figures of each output: name -> values (groups,)."""
        with np.errstate(invalid="ignore"):
            return self.figures(groups, self._plan.means)

    def errors(self, groups: int, drawn: Sequence[Figure]) -> list[Errors]:
        """Return the `drawn` figure of each output by group, for at least `groups` groups."""
        groups = max(groups, len(self.rows))
        rows = np.zeros(groups, np.int64)
        rows[: len(self.rows)] = self.rows
        errors = []
        each = zip(self.outputs, self.figures_of(groups), drawn, strict=True)
        for item, figures, figure in each:
            error = np.where(rows > 0, figures[figure.name], np.nan)
            baseline = np.where(rows > 0, figures.get(figure.baseline, np.nan), np.nan)
            target = self._plan.targets[item.target]
            errors.append(Errors(item.name, target, figure, rows, error, baseline))
        return errors


class _Reliability:
    """Forecast probabilities in ten bins, and how often the forecast came true.

    If the target has several classes, only the most likely one counts, with its probability.
    """

    def __init__(self, outputs: int) -> None:
        self._rows = np.zeros(BINS, np.int64)
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
            self._rows += np.bincount(place, minlength=BINS)
            for row, value in enumerate((np.ones(len(score)), forecast, happened)):
                self._sums[row] += np.bincount(place, labels.weight * value, minlength=BINS)

    def columns(self) -> dict[str, Array] | None:
        """Return the means and the number of rows of the bins that have rows.

        None if no bin has rows, if a score is not a probability, or if the label of a single output
        is neither 0 nor 1.
        """
        weight, forecast, happened = self._sums
        some = weight > 0
        if not self._valid or not some.any():
            return None
        forecast, happened = forecast[some] / weight[some], happened[some] / weight[some]
        return {"forecast": forecast, "happened": happened, "rows": self._rows[some]}


class ForecastErrors:
    """Reads an output beside its labels, once.

    `means` collects the output with the number `output` and its label, for chosen streams, by the
    slots of the labels. `all` has all rows in one group; `by_time`, `by_stream` and `by_hour` group
    rows by bucket of the timeline, by slot of the labels, and, with a clock, by hour of day.
    `reliability` is None for several targets, quantiles and distributions, and for a target of
    floats.
    """

    def __init__(
        self, plan: EvaluationPlan, timeline: Timeline, means: StreamMeans, output: int
    ) -> None:
        self.plan = plan
        self.means = means
        self.counts = ComparedCounts()
        self.all, self.by_time, self.by_stream, self.by_hour = (_Groups(plan) for _ in range(4))
        self.output, self._timeline = output, timeline
        measure = self.all.outputs[0].measure
        classes = isinstance(measure, Number | Classes) and len(plan.targets) == 1
        self.reliability = _Reliability(len(plan.scores)) if classes else None

    def read(self, path: str, labels: SourceLabels) -> None:
        """Read the output at `path` and its labels. Raises what `evaluate` raises."""
        kind = self.plan.time.type
        width = pa.int32() if pa.types.is_date32(kind) else pa.int64()
        for scores, happened in compared_rows(path, labels.find, labels, self.plan, self.counts):
            times = pa.array(scores.time, pa.int64())
            if not pa.types.is_integer(kind):
                times = times.cast(width).cast(kind)
            place = positions(times, self.plan.zone)
            self.counts.rows += len(place)
            self.all.add(np.zeros(len(place), np.int64), scores, happened)
            self.by_time.add(self._timeline.bucket(place), scores, happened)
            self.by_stream.add(scores.slot, scores, happened)
            if self._timeline.clock:
                self.by_hour.add(place // _HOUR % 24, scores, happened)
            if self.reliability is not None:
                self.reliability.add(scores, happened)
            both: Array = np.stack([scores.score[:, self.output], happened.label[:, 0]], axis=1)
            self.means.add(scores.slot, place, both)


TITLES = {
    "error-time": "Error over time",
    "error-stream": "Error by stream",
    "error-hour": "Error by hour of day",
    "reliability": "Reliability",
}
_FIGURES = {
    "mae": "Mean absolute error",
    "rmse": "Root mean squared error",
    "log_loss": "Log-loss",
    "pinball": "Pinball loss",
}
_BASELINES = {"base_rate": "base rate", "mean": "mean of the labels"}
_MOST_STREAMS = 30


def error_pictures(
    subject: Subject, errors: ForecastErrors, keys: list[pa.Array]
) -> list[Picture | Missing]:
    """Return all pictures of errors; `keys` are the keys of the labels' streams, by slot."""
    if not errors.counts.rows:
        text = "no row has both a score and a label yet."
        return [Missing(id, title, text) for id, title in TITLES.items()]
    plan, timeline = errors.plan, subject.timeline
    drawn = [Figure.of(figures) for figures in errors.all.figures_of(1)]
    items: list[Picture | Missing] = [
        _over_time(subject, errors, drawn),
        _by_stream(errors.by_stream.errors(0, drawn), keys),
    ]
    if timeline.clock:
        items.append(_by_hour(errors.by_hour.errors(24, drawn), subject.columns.zone))
    else:
        why = "the times of the rows are integers."
        items.append(Missing("error-hour", TITLES["error-hour"], why))
    if plan.several_horizons:
        items.append(_by_horizon(errors.all.errors(1, drawn)))
    if plan.quantiles:
        items += _coverage(subject, errors, keys)
    columns = None if errors.reliability is None else errors.reliability.columns()
    return [*items, _reliability(columns)]


def _panels(errors: Sequence[Errors], starts: Mapping[str, Any]) -> Sequence[Panel]:
    return without_name(
        [
            Panel(item.output, rows_of_columns({**starts, **item.columns()}))
            for item in errors[:MOST_OUTPUTS]
        ]
    )


def _over_time(subject: Subject, compared: ForecastErrors, drawn: Sequence[Figure]) -> Picture:
    errors = compared.by_time.errors(subject.timeline.buckets, drawn)
    first, panels = errors[0], _panels(errors, subject.timeline.starts())
    left = not_compared(vars(compared.counts))
    plan, figures = compared.plan, compared.all.figures_of(1)
    names = ["the quantiles together"] if plan.quantiles else plan.scores
    crps = [  # of the quantiles, or of each distribution
        f"CRPS of {name}, over all rows: {short(of['crps'][0])}."
        for name, of in zip(names, figures, strict=False)
        if "crps" in of
    ]
    crossed = compared.counts.crossed
    crps += [f"Quantiles cross in {count(crossed, 'row')}."] if crossed else []
    return Picture(
        "error-time",
        f"{TITLES['error-time']}, {subject.timeline.per}",
        f"{first.title} of {first.output} {between(span(panels[0].rows, 'error'))}, over "
        f"{count(int(first.rows.sum()), 'row')}.",
        "lines",
        panels,
        _series(first),
        y_title=first.title,
        from_zero=True,
        rules=rules_of(subject),
        notes=[*_unit(errors), *crps, *([f"Not compared: {left}."] if left else [])],
        **subject.timeline.axis(),
    )


def _by_hour(errors: Sequence[Errors], zone: str | None) -> Picture:
    panels = _panels(errors, {"hour": range(24)})
    rows = [row for row in panels[0].rows if row["error"] is not None]
    worst = max(rows, key=lambda row: row["error"])
    return Picture(
        "error-hour",
        TITLES["error-hour"],
        f"{errors[0].title} is highest at {worst['hour']}:00, {short(worst['error'])}.",
        "lines",
        panels,
        _series(errors[0]),
        x_field="hour",
        x_title=f"hour of day of the row, {zone}" if zone else "hour of day of the row",
        y_title=errors[0].title,
        from_zero=True,
        notes=_unit(errors),
    )


def _by_horizon(errors: Sequence[Errors]) -> Picture:
    rows: dict[str, list[dict[str, Any]]] = {}
    for item in errors:
        row = rows_of_columns({"output": [item.output], **item.columns()})
        rows.setdefault(item.target, []).extend(row)
    first, *_, last = rows[errors[0].target]
    return Picture(
        "error-horizon",
        "Error by horizon",
        f"{errors[0].title}: {short(first['error'])} of {first['output']}, "
        f"{short(last['error'])} of {last['output']}.",
        "dots",
        [Panel(target, lines) for target, lines in rows.items()],
        _series(errors[0]),
        x_field="output",
        x_title="output",
        y_title=errors[0].title,
        notes=_unit(errors[:1]),
    )


def _coverage(subject: Subject, errors: ForecastErrors, keys: list[pa.Array]) -> list[Picture]:
    quantiles = errors.plan.quantiles
    drawn = [Figure("coverage", "")] * len(quantiles)
    by_time = errors.by_time.errors(subject.timeline.buckets, drawn)
    together = errors.all.errors(1, drawn)
    series = [Drawn("error", "labels at most the quantile"), Drawn("says", "what it claims")]
    times, streams = [], []
    for item, of_streams, says in zip(
        by_time, errors.by_stream.errors(0, drawn), quantiles, strict=True
    ):
        rows = rows_of_columns({**subject.timeline.starts(), **item.columns()})
        times.append(Panel(item.output, [{**row, "says": says} for row in rows]))
        rows = _rows_by_stream(of_streams, keys)
        streams.append(Panel(item.output, [{**row, "says": says} for row in rows]))
    last, says = together[-1], quantiles[-1]
    said = f"{short(100 * last.error[0])} % of the labels are at most {last.output}, which says"
    return [
        Picture(
            "coverage-time",
            f"Coverage over time, {subject.timeline.per}",
            f"{said} {short(100 * says)} %.",
            "lines",
            without_name(times[:MOST_OUTPUTS]),
            series,
            y_title="Share of labels",
            rules=rules_of(subject),
            **subject.timeline.axis(),
        ),
        Picture(
            "coverage-stream",
            "Coverage by stream",
            f"{said} {short(100 * says)} %: {between(span(streams[-1].rows, 'error'))}.",
            "dots",
            streams[:MOST_OUTPUTS],
            series,
            x_field="stream",
            x_title="stream",
            y_title="Share of labels",
        ),
    ]


def _rows_by_stream(item: Errors, keys: list[pa.Array]) -> list[dict[str, Any]]:
    """Return the streams with the most rows, sorted by error."""
    order = np.argsort(-item.rows, kind="stable")
    most = order[: min(_MOST_STREAMS, int((item.rows > 0).sum()))]
    most = most[np.argsort(item.error[most], kind="stable")]
    names = texts_of_keys([key.take(pa.array(most)) for key in keys])
    columns = {name: values[most] for name, values in item.columns().items()}
    return list(rows_of_columns({"stream": names, **columns}))


def _by_stream(errors: Sequence[Errors], keys: list[pa.Array]) -> Picture:
    item = errors[0]
    rows = _rows_by_stream(item, keys)
    first, last = rows[0], rows[-1]
    notes = _unit(errors)
    if (streams := int((item.rows > 0).sum())) > len(rows):
        notes.insert(0, f"The {len(rows)} streams with the most rows, of {streams:,}.")
    return Picture(
        "error-stream",
        TITLES["error-stream"],
        f"{item.title} of {item.output}: lowest for {brief(first['stream'])}, "
        f"{short(first['error'])}; highest for {brief(last['stream'])}, {short(last['error'])}.",
        "dots",
        [Panel("", rows)],
        _series(item),
        x_field="stream",
        x_title="stream",
        y_title=item.title,
        notes=notes,
    )


def _reliability(columns: Mapping[str, Array] | None) -> Picture | Missing:
    if columns is None:
        return Missing(
            "reliability",
            TITLES["reliability"],
            "it is for probabilities: an output from 0 to 1 for a target of 0 and 1, or one output "
            "per class.",
        )
    rows = rows_of_columns(columns)
    off = max(rows, key=lambda row: abs(row["forecast"] - row["happened"]) * row["rows"])
    return Picture(
        "reliability",
        TITLES["reliability"],
        f"Where the forecast is about {short(100 * off['forecast'])} %, "
        f"it came true in {short(100 * off['happened'])} %.",
        "reliability",
        [Panel("", rows)],
        [Drawn("happened", "how often it happened")],
        x_field="forecast",
        x_title="mean forecast probability",
        y_title="Share of rows",
        notes=[
            "Rows are grouped into ten bins by their forecast. On the dashed line, what was "
            "forecast happens as often as forecast. Of several classes, the most likely one is the "
            "forecast. With [target] weight, shares and means are weighted."
        ],
    )


def _series(item: Errors) -> list[Drawn]:
    if not item.figure.baseline:
        return [Drawn("error", item.output)]
    kind = item.figure.baseline.removeprefix(f"{item.figure.name}_")
    return [Drawn("error", "forecast"), Drawn("baseline", _BASELINES.get(kind, kind))]


def _unit(errors: Sequence[Errors]) -> list[str]:
    item, notes = errors[0], []
    if item.figure.name in ("mae", "rmse", "pinball"):
        notes.append(f"In the unit of {item.target}.")
    if item.figure.baseline.endswith("persistence"):
        notes.append("Persistence forecasts the value of the row itself.")
    if item.figure.baseline.endswith("seasonal"):
        notes.append("Seasonal forecasts the value one or more [target] seasons before the label.")
    if len(errors) > MOST_OUTPUTS:
        notes.append(f"{MOST_OUTPUTS} of {len(errors)} outputs are drawn: the first ones.")
    return notes
