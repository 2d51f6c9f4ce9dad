"""The model: its features over time, its state, and the learning curves of its fit.

The features are drawn beside the model's Normalization, with the values of the source that a run
changes; the state by its norm and its saturated units.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.base.arrays import Doubles
from streamrnn.base.display import count
from streamrnn.errors import CheckpointError
from streamrnn.jobs.fitting import HISTORY_FILE
from streamrnn.jobs.preflight import scaling_of
from streamrnn.plugins.report.output import even_histogram, histogram_rows
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    between,
    rows_of_columns,
    short,
    span,
)
from streamrnn.plugins.report.scan import Subject, floats_of
from streamrnn.plugins.report.timeline import BucketSample, Timeline, positions
from streamrnn.stream.checkpoints import load_state
from streamrnn.stream.scoring import LoadedPipeline
from streamrnn.stream.sources.contract import Feature

_MOST_FEATURES = 12


class SourceValues:
    """Counts and samples the values of a source within a timeline, as they are in its files.

    `nulls`, `invalid` and `clipped` (buckets,) count the values of numeric features that are null
    or NaN, outside `valid`, or limited by `clip`. Quantiles are of the values that remain, after
    `clip`.
    """

    def __init__(
        self, features: Sequence[Feature], time: str, timeline: Timeline, zone: str = ""
    ) -> None:
        self.features = features
        self.sample = BucketSample(timeline.buckets, len(features))
        self.nulls, self.invalid, self.clipped = np.zeros((3, timeline.buckets), np.int64)
        self._time, self._zone = time, zone
        self._timeline = timeline

    @classmethod
    def of(cls, loaded: LoadedPipeline, timeline: Timeline) -> Self:
        """Return the SourceValues of a pipeline's first numeric features, without rows yet."""
        features, source = loaded.contract.features, loaded.config.source
        numeric = [f for f in features if f.kind == "float32" and f.vocabulary is None]
        return cls(numeric[:_MOST_FEATURES], str(source.time), timeline, source.time_zone)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a record batch; limit its values as a run does, and count the changes."""
        time = batch.column(self._time)
        place, line = positions(time, self._zone), self._timeline
        inside = (place >= line.first) & (place < line.first + line.width * line.buckets)
        inside &= time.is_valid().to_numpy(zero_copy_only=False)
        if not inside.all():
            batch, place = batch.filter(pa.array(inside)), place[inside]
        bucket = line.bucket(place)
        value = floats_of(batch, tuple(feature.name for feature in self.features))
        for feature, value_N in zip(self.features, value.T, strict=True):
            self.nulls += np.bincount(bucket[np.isnan(value_N)], minlength=line.buckets)
            if feature.valid is not None:
                low, high = np.array(feature.valid, np.float32)
                outside = (value_N < low) | (value_N > high)
                self.invalid += np.bincount(bucket[outside], minlength=line.buckets)
                value_N[outside] = np.nan
            if feature.clip is not None:
                low, high = np.array(feature.clip, np.float32)
                over = (value_N < low) | (value_N > high)
                self.clipped += np.bincount(bucket[over], minlength=line.buckets)
                np.clip(value_N, low, high, out=value_N)
        self.sample.add(bucket, value)


def features_over_time(subject: Subject, values: SourceValues, loaded: LoadedPipeline) -> Picture:
    """Return the median of each feature, and the band of 80 % of its values."""
    scaling = scaling_of(loaded)
    starts = subject.timeline.starts()
    panels = [
        Panel(feature.name, rows_of_columns({**starts, **band}), scaling.get(feature.name))
        for feature, band in zip(values.features, values.sample.bands(), strict=True)
    ]
    notes = ["Values after valid and clip, from the source as it is now."]
    notes.append(
        "Behind them: the mean of the model's Normalization (dashed), and one deviation on both "
        "sides of it."
        if scaling
        else "The model has no Normalization to compare them with."
    )
    left = len(loaded.contract.features) - len(panels)
    if left:
        notes.append(
            f"Not drawn: {count(left, 'feature')} of ids or text, or beyond the first "
            f"{_MOST_FEATURES}."
        )
    return Picture(
        "features",
        f"Features {subject.timeline.per}",
        _sentence(panels),
        "band",
        panels,
        [Drawn("high", "10 to 90 % of the values", "low"), Drawn("median", "median")],
        y_title="Each in its own unit",
        notes=notes,
        **subject.timeline.axis(),
    )


def _sentence(panels: list[Panel]) -> str:
    """Describe the feature whose median is farthest from its Normalization's mean, in deviations.

    Without a Normalization, describe the median of the first feature.
    """
    far = []
    for panel in panels:
        ends = span(panel.rows, "median")
        if ends and panel.reference and panel.reference[1] > 0:
            mean, deviation = panel.reference
            far.append((max(abs(end - mean) for end in ends) / deviation, panel.label))
    if far:
        distance, name = max(far)
        return (
            f"{name} has the median farthest from the mean of its Normalization, by "
            f"{short(distance)} deviations."
        )
    ends = span(panels[0].rows, "median")
    if ends is None:
        return f"{panels[0].label} has no finite value."
    return f"Median {panels[0].label} {between(ends)}."


def source_values(subject: Subject, values: SourceValues) -> Picture:
    """Return a picture of the source's values that a run changes, by time."""
    columns = {"missing": values.nulls, "invalid": values.invalid, "clipped": values.clipped}
    labels = ("null or NaN", "outside valid", "clipped")
    totals = [int(column.sum()) for column in columns.values()]
    names = ", ".join(feature.name for feature in values.features)
    return Picture(
        "values",
        f"Values that a run changes, {subject.timeline.per}",
        f"{totals[0]:,} null, {totals[1]:,} outside valid, {totals[2]:,} clipped.",
        "stack",
        [Panel("", rows_of_columns({**subject.timeline.starts(), **columns}))],
        [Drawn(*of_column) for of_column in zip(columns, labels, strict=True)],
        y_title="Values",
        notes=[
            f"Counted in the source as it is now, of {names}.",
            "[source] nulls says whether nulls and values outside valid are filled, skipped or "
            "rejected.",
        ],
        from_zero=True,
        **subject.timeline.axis(),
    )


SATURATED = 0.99
"""A unit is called saturated if the absolute value of its state, at most 1, is above this."""


class LayerNorms(NamedTuple):
    """The state h of one layer in one commit: units, norms (S,), and the share of saturated units.

    The share is None without streams, or if a state exceeds 1, as it may if the activation is not
    tanh.
    """

    layer: str
    units: int
    norm: Doubles
    saturated: float | None


def layer_norms(table: pa.Table) -> list[LayerNorms]:
    """Return the norms and the saturated share of each state h in a state table."""
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
        why = "units of this activation have no limit at which they saturate."
        return [*items, Missing("saturated", _SHARE_TITLE, why)]
    texts = [
        f"{layer.layer} "
        + ("unknown" if layer.saturated is None else f"{short(100 * layer.saturated)} %")
        for layer in last
    ]
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
