"""The picture of a fit: its learning curves, from the history beside the model file."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.jobs.fitting import HISTORY_FILE
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    rows_of_columns,
    short,
    span,
)

_TITLE = "Learning curves"
_MOST_PANELS = 4
_MOST_EPOCHS = 1000


def learning_curves(model: str | None) -> Picture | Missing:
    """Return loss and metrics by epoch; `model` is the path of the model file, None if unknown."""
    path = Path(os.fspath(model) + ".fit") / HISTORY_FILE if model and "://" not in model else None
    if path is None or not path.is_file():
        return Missing(
            "curves",
            _TITLE,
            "no fit has run beside the model file: `streamrnn fit` trains the model of a pipeline "
            f"file, and keeps {HISTORY_FILE}.",
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        return Missing("curves", _TITLE, f"{path.name} beside the model cannot be read: {error}.")
    return _drawn(table)


def _drawn(table: pa.Table) -> Picture | Missing:
    notes = []
    if "seed" in table.column_names and table.num_rows:
        judged = "val_loss" if "val_loss" in table.column_names else "loss"
        rows = table.to_pylist()
        best = min(rows, key=lambda row: float("inf") if row[judged] is None else row[judged])
        table = pa.Table.from_pylist([row for row in rows if row["seed"] == best["seed"]])
        notes.append(f"Seed {best['seed']}, the best of several.")
    measures = [
        name for name in table.column_names if name == "loss" or f"val_{name}" in table.column_names
    ]
    if "epoch" not in table.column_names or not measures or not table.num_rows:
        return Missing("curves", _TITLE, "the history of the fit has no epoch yet.")
    table = table.slice(max(0, table.num_rows - _MOST_EPOCHS))
    values = table.to_pydict()
    panels = [
        Panel(
            name,
            rows_of_columns(
                {
                    "epoch": values["epoch"],
                    "training": values[name],
                    "validation": values.get(f"val_{name}", [None] * table.num_rows),
                }
            ),
        )
        for name in measures[:_MOST_PANELS]
    ]
    series = [Drawn("training", "training")]
    if any(row["validation"] is not None for panel in panels for row in panel.rows):
        series.append(Drawn("validation", "validation"))
    return Picture(
        "curves",
        _TITLE,
        _sentence(panels[0], series[-1].field),
        "lines",
        panels,
        series,
        x_field="epoch",
        x_title="epoch",
        y_title="By epoch",
        notes=notes,
    )


def _sentence(panel: Panel, field: str) -> str:
    ends = span(panel.rows, field)
    if ends is None:
        return f"No {field} loss is finite."
    best = next(row["epoch"] for row in panel.rows if row[field] == ends[0])
    return f"The {field} loss is lowest after epoch {best}, {short(ends[0])}."
