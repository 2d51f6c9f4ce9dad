"""Pictures of forecasts beside what happened: errors by time, stream and hour; reliability."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.base.display import count
from streamrnn.jobs.evaluation import not_compared
from streamrnn.plugins.report.numbers.columns import MOST_OUTPUTS
from streamrnn.plugins.report.numbers.forecast_errors import Errors, ForecastErrors
from streamrnn.plugins.report.numbers.scan import texts_of_keys
from streamrnn.plugins.report.over_time import rules_of
from streamrnn.plugins.report.pictures.picture import Drawn, Missing, Panel, Picture
from streamrnn.plugins.report.subject import Subject
from streamrnn.plugins.report.words import (
    Row,
    axis,
    between,
    brief,
    buckets_of,
    per,
    rows_of_columns,
    short,
    span,
)

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
_BASELINES = {
    "persistence": "persistence",
    "seasonal": "seasonal",
    "base_rate": "base rate",
    "mean": "mean of the labels",
}
_MOST_STREAMS = 30


def error_pictures(
    subject: Subject, found: ForecastErrors, keys: list[pa.Array]
) -> list[Picture | Missing]:
    """Return all pictures of errors; `keys` are those of the streams of `found`, by slot."""
    compared = found.counts.rows
    if not compared:
        text = "no row has both a score and a label yet."
        return [Missing(id, title, text) for id, title in TITLES.items()]
    return [
        _over_time(subject, found.by_time(), not_compared(vars(found.counts))),
        _by_stream(found.by_stream(), keys),
        _by_hour(subject, found.by_hour()),
        _reliability(found.reliability()),
    ]


def _over_time(subject: Subject, errors: Sequence[Errors], left: str) -> Picture:
    at = axis(subject.timeline, subject.timed)
    panels = [
        Panel(
            item.output,
            rows_of_columns({**buckets_of(subject.timeline, subject.timed), **_of(item)}),
        )
        for item in errors[:MOST_OUTPUTS]
    ]
    return Picture(
        "error-time",
        f"{TITLES['error-time']}, {per(subject.timeline, subject.timed)}",
        _sentence(errors, panels),
        "lines",
        panels if len(panels) > 1 else [Panel("", panels[0].rows)],
        _series(errors[0]),
        y_title=_title(errors[0]),
        from_zero=True,
        rules=rules_of(subject),
        notes=[*_unit(errors), *([f"Not compared: {left}."] if left else [])],
        **at,
    )


def _by_hour(subject: Subject, errors: Sequence[Errors]) -> Picture | Missing:
    if not errors:
        return Missing("error-hour", TITLES["error-hour"], "the times of the rows are integers.")
    panels = [
        Panel(item.output, rows_of_columns({"hour": range(24), **_of(item)}))
        for item in errors[:MOST_OUTPUTS]
    ]
    rows = [row for row in panels[0].rows if row["error"] is not None]
    worst = max(rows, key=lambda row: row["error"])
    zone = getattr(subject.columns.time.type, "tz", None) if subject.columns.time else None
    return Picture(
        "error-hour",
        TITLES["error-hour"],
        f"{_title(errors[0])} highest at {worst['hour']}:00, {short(worst['error'])}.",
        "lines",
        panels if len(panels) > 1 else [Panel("", panels[0].rows)],
        _series(errors[0]),
        x_field="hour",
        x_title=f"hour of day of the row, {zone}" if zone else "hour of day of the row",
        y_title=_title(errors[0]),
        from_zero=True,
        notes=_unit(errors),
    )


def _by_stream(errors: Sequence[Errors], keys: list[pa.Array]) -> Picture:
    item = errors[0]
    order = np.argsort(-item.rows, kind="stable")
    most = order[: min(_MOST_STREAMS, int((item.rows > 0).sum()))]
    most = most[np.argsort(item.error[most], kind="stable")]
    names = texts_of_keys([key.take(pa.array(most)) for key in keys])
    columns = {name: values[most] for name, values in _of(item).items()}
    rows = rows_of_columns({"stream": names, **columns})
    streams = int((item.rows > 0).sum())
    notes = (
        [f"The {len(rows)} streams with most rows, of {streams:,}."] if streams > len(rows) else []
    )
    return Picture(
        "error-stream",
        TITLES["error-stream"],
        f"{_title(item)} of {item.output}: lowest for {brief(names[0])}, "
        f"{short(rows[0]['error'])}; highest for {brief(names[-1])}, "
        f"{short(rows[-1]['error'])}.",
        "dots",
        [Panel("", rows)],
        _series(item),
        x_field="stream",
        x_title="stream",
        y_title=_title(item),
        notes=[*notes, *_unit(errors)],
    )


def _reliability(table: pa.Table | None) -> Picture | Missing:
    title = TITLES["reliability"]
    if table is None:
        return Missing(
            "reliability",
            title,
            "it is of probabilities: an output from 0 to 1 for a target of 0 and 1, or one output "
            "per class.",
        )
    rows = rows_of_columns({name: table.column(name).to_numpy() for name in table.column_names})
    off = max(rows, key=lambda row: abs(row["forecast"] - row["happened"]) * row["rows"])
    return Picture(
        "reliability",
        title,
        f"Where the forecast is about {short(100 * off['forecast'])} %, "
        f"{short(100 * off['happened'])} % happened.",
        "reliability",
        [Panel("", rows)],
        [Drawn("happened", "how often it happened")],
        x_field="forecast",
        x_title="mean forecast probability",
        y_title="Share of rows",
        notes=[
            "Rows in ten classes of their forecast. On the dashed line forecasts are as frequent "
            "as what happened. Of several classes, the most likely one is the forecast."
        ],
    )


def _of(item: Errors) -> dict[str, Any]:
    baseline = {"baseline": item.baseline} if item.figure.baseline else {}
    return {"error": item.error, **baseline, "rows": item.rows}


def _series(item: Errors) -> list[Drawn]:
    found = [Drawn("error", item.output if not item.figure.baseline else "forecast")]
    if item.figure.baseline:
        kind = item.figure.baseline.removeprefix(f"{item.figure.name}_")
        found.append(Drawn("baseline", _BASELINES[kind]))
    return found


def _title(item: Errors) -> str:
    return _FIGURES[item.figure.name]


def _unit(errors: Sequence[Errors]) -> list[str]:
    found = []
    item = errors[0]
    if item.figure.name in ("mae", "rmse", "pinball"):
        found.append(f"In the unit of {item.target}.")
    if item.figure.baseline.endswith("persistence"):
        found.append("Persistence forecasts the value of the row itself.")
    if item.figure.baseline.endswith("seasonal"):
        found.append("Seasonal forecasts the value one [target] season before, or several.")
    if len(errors) > MOST_OUTPUTS:
        found.append(f"{MOST_OUTPUTS} of {len(errors)} outputs are drawn, the first ones.")
    return found


def _sentence(errors: Sequence[Errors], panels: Sequence[Panel]) -> str:
    rows: Sequence[Row] = panels[0].rows  # type: ignore[assignment]
    total = int(errors[0].rows.sum())
    return (
        f"{_title(errors[0])} of {errors[0].output} {between(span(rows, 'error'))}, over "
        f"{count(total, 'row')}."
    )
