"""The model: norms and saturation of its state, and the learning curves of its fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.base.arrays import Doubles
from streamrnn.base.display import count
from streamrnn.errors import CheckpointError
from streamrnn.jobs.fitting import HISTORY_FILE
from streamrnn.plugins.report.output import even_histogram, histogram_rows
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    rows_of_columns,
    short,
    span,
)
from streamrnn.plugins.report.scan import Subject
from streamrnn.plugins.report.timeline import BucketSample
from streamrnn.stream.checkpoints import load_state

SATURATED = 0.99
"""A unit is called saturated if the absolute value of its state, at most 1, is above this."""


class LayerNorms(NamedTuple):
    """The state h of one layer in one commit: norms (S,), units, and the share of saturated units.

    The share is None without streams, or if a state exceeds 1, as with activations other than tanh.
    """

    layer: str
    units: int
    norm: Doubles
    saturated: float | None


def layer_norms(table: pa.Table) -> list[LayerNorms]:
    """Return the Euclidean norm of each state h, for each stream of a state table."""
    layers = []
    for field in table.schema:
        layer, _, name = field.name.rpartition("/")
        if name != "h" or not pa.types.is_fixed_size_list(field.type):
            continue
        units = field.type.list_size
        squares, counted, bounded = [], 0, True
        for chunk in table.column(field.name).chunks:
            state = chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, units)
            state = state.astype(np.float64)
            squares.append((state * state).sum(axis=1))
            counted += int((abs(state) > SATURATED).sum())
            bounded &= not bool((abs(state) > 1).any())
        norm = np.sqrt(np.concatenate([*squares, np.zeros(0)]))
        share = counted / (len(norm) * units) if bounded and len(norm) else None
        layers.append(LayerNorms(layer, units, norm, share))
    return layers


def norm_quantiles(layer: LayerNorms) -> tuple[float, float, float] | None:
    """Return the quantiles 0.1, 0.5 and 0.9 over streams; None without a stream."""
    streams = len(layer.norm)
    sample = BucketSample(1, 1, most=max(1, streams))
    sample.add(np.zeros(streams, np.int64), layer.norm[:, None].astype(np.float32))
    low, middle, high = sample.quantiles((0.1, 0.5, 0.9))[0, 0].tolist()
    return (low, middle, high) if streams else None


_TITLE = "Norm of the state h"
_SHARE_TITLE = f"Saturated units of the state h (beyond {SATURATED})"


def norms(subject: Subject, last: pa.Table | None) -> list[Picture | Missing]:
    """Return the norm and the saturated share of each layer, by commit or over streams."""
    layers = [] if last is None else layer_norms(last)
    why = ""
    if last is None:
        why = "the output keeps no state of streams, as [window] kind is not carry."
    elif not layers:
        why = "no layer of the model has a state named h."
    elif not last.num_rows:
        why = "the state has no streams."
    if why:
        return [Missing("norms", _TITLE, why)]
    commits: list[tuple[int, list[LayerNorms]]] = []
    for commit in subject.manifest.kept:
        try:
            table = load_state(subject.path, of=commit)
        except CheckpointError:  # `verify` reports it; a report shows what is readable
            continue
        if table is not None:
            commits.append((commit.commit, layer_norms(table)))
    if not commits:
        return [_over_streams(layers)]
    return _by_commit([*commits, (subject.manifest.commit, layers)])


def _over_streams(layers: Sequence[LayerNorms]) -> Picture:
    panels, texts = [], []
    for layer in layers:
        rows = histogram_rows(even_histogram(layer.norm, 20), "norm", "streams")
        panels.append(Panel(_name(layer), rows))
        ends = norm_quantiles(layer)
        assert ends is not None
        text = f"{layer.layer}: median norm {short(ends[1])}"
        if layer.saturated is not None:
            text += f", {short(100 * layer.saturated)} % of the units saturated"
        texts.append(text)
    return Picture(
        "norms",
        f"{_TITLE}, over streams",
        f"{'; '.join(texts)}.",
        "bars",
        panels,
        [Drawn("streams", "streams")],
        x_field="norm",
        x_title="Euclidean norm of h",
        y_title="Streams",
        notes=[
            f"After the last commit, over {count(len(layers[0].norm), 'stream')}. A unit is called "
            "saturated if the absolute value of its state, which is at most 1, is above "
            f"{SATURATED}. If commits are retained, the norm is drawn by commit."
        ],
        from_zero=True,
    )


def _by_commit(commits: Sequence[tuple[int, list[LayerNorms]]]) -> list[Picture | Missing]:
    numbers, last = [number for number, _ in commits], commits[-1][1]
    panels, share_panels = [], []
    for index, layer in enumerate(last):
        history = [layers[index] if index < len(layers) else None for _, layers in commits]
        ends = [(at and norm_quantiles(at)) or (None, None, None) for at in history]
        band = dict(zip(("low", "median", "high"), zip(*ends, strict=True), strict=True))
        panels.append(Panel(_name(layer), rows_of_columns({"commit": numbers, **band})))
        shares = [at and at.saturated for at in history]
        percent = [None if share is None else 100 * share for share in shares]
        rows = rows_of_columns({"commit": numbers, "share": percent})
        share_panels.append(Panel(_name(layer), rows))
    before, now = (panels[0].rows[at]["median"] for at in (0, -1))
    items: list[Picture | Missing] = [
        Picture(
            "norms",
            f"{_TITLE}, by commit",
            f"Median norm of {last[0].layer}: {short(before)} after commit {numbers[0]}, "
            f"{short(now)} after commit {numbers[-1]}.",
            "band",
            panels,
            [Drawn("high", "10 to 90 % of the streams", "low"), Drawn("median", "median")],
            x_field="commit",
            x_title="commit",
            y_title="Euclidean norm of h",
            notes=["After the last commit and the retained ones; [checkpoint] keep retains more."],
            from_zero=True,
        )
    ]
    if all(row["share"] is None for panel in share_panels for row in panel.rows):
        why = "units of this activation have no limit to saturate at."
        return [*items, Missing("saturated", _SHARE_TITLE, why)]
    texts = [f"{layer.layer} {short(100 * (layer.saturated or 0))} %" for layer in last]
    items.append(
        Picture(
            "saturated",
            _SHARE_TITLE,
            f"After the last commit: {', '.join(texts)}.",
            "lines",
            share_panels,
            [Drawn("share", "units of all streams")],
            x_field="commit",
            x_title="commit",
            y_title="Percent",
            from_zero=True,
        )
    )
    return items


def _name(layer: LayerNorms) -> str:
    return f"{layer.layer}, {count(layer.units, 'unit')}"


_CURVES = "Learning curves"
_MOST_PANELS = 4
_MOST_EPOCHS = 1000


def learning_curves(model: str | None) -> Picture | Missing:
    """Return loss and metrics by epoch; `model` is the path of the model file, None if unknown."""
    path = Path(f"{model}.fit") / HISTORY_FILE if model and "://" not in model else None
    if path is None or not path.is_file():
        return Missing(
            "curves",
            _CURVES,
            "no fit has run beside the model file: `streamrnn fit` trains the model of a pipeline "
            f"file, and keeps {HISTORY_FILE}.",
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        return Missing("curves", _CURVES, f"{path.name} beside the model cannot be read: {error}.")
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
        return Missing("curves", _CURVES, "the history of the fit has no epoch yet.")
    table = table.slice(max(0, table.num_rows - _MOST_EPOCHS))
    values = table.to_pydict()
    panels = []
    for name in measures[:_MOST_PANELS]:
        validation = values.get(f"val_{name}", [None] * table.num_rows)
        columns = {"epoch": values["epoch"], "training": values[name], "validation": validation}
        panels.append(Panel(name, rows_of_columns(columns)))
    series = [Drawn("training", "training")]
    if any(row["validation"] is not None for panel in panels for row in panel.rows):
        series.append(Drawn("validation", "validation"))
    field, ends = series[-1].field, span(panels[0].rows, series[-1].field)
    sentence = f"No {field} loss is finite."
    if ends is not None:
        best = next(row["epoch"] for row in panels[0].rows if row[field] == ends[0])
        sentence = f"The {field} loss is lowest after epoch {best}, {short(ends[0])}."
    return Picture(
        "curves",
        _CURVES,
        sentence,
        "lines",
        panels,
        series,
        x_field="epoch",
        x_title="epoch",
        y_title="By epoch",
        notes=notes,
    )
