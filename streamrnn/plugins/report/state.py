"""The states of layers: their norms, and how many units are saturated."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Doubles
from streamrnn.base.display import count
from streamrnn.errors import CheckpointError
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    Row,
    rows_of_columns,
    short,
)
from streamrnn.plugins.report.scan import Subject
from streamrnn.plugins.report.streams import even_histogram, histogram_rows
from streamrnn.plugins.report.timeline import BucketSample
from streamrnn.stream.checkpoints import load_state

SATURATED = 0.99
"""Absolute value of a unit's state, of at most 1, beyond which the unit is called saturated."""


class LayerNorms(NamedTuple):
    """The state h of one layer in one commit: norms (S,), `units`, and the share that is saturated.

    The share is None if units exceed 1, as with activations other than tanh.
    """

    layer: str
    units: int
    norm: Doubles
    saturated: float | None


def layer_norms(table: pa.Table) -> list[LayerNorms]:
    """Return the Euclidean norm of each h of each stream of a state table."""
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


class StateAt(NamedTuple):
    """The norms of the layers after one commit."""

    commit: int
    layers: list[LayerNorms]


def norms(subject: Subject, last: pa.Table | None) -> list[Picture | Missing]:
    """Return the norm and the saturated share of each layer, by commit or over streams."""
    if last is None:
        return [_missing("the output keeps no state of streams, as [window] kind is not carry.")]
    layers = layer_norms(last)
    if not layers:
        return [_missing("no layer of the model has a state named h.")]
    if not last.num_rows:
        return [_missing("the state has no streams.")]
    states = []
    for commit in subject.manifest.kept:
        try:
            table = load_state(subject.path, of=commit)
        except CheckpointError:  # `verify` reports it; a report shows what is readable
            continue
        if table is not None:
            states.append(StateAt(commit.commit, layer_norms(table)))
    if not states:
        return [_over_streams(layers)]
    states.append(StateAt(subject.manifest.commit, layers))
    return [_by_commit(states), _shares(states)]


def _missing(sentence: str) -> Missing:
    return Missing("norms", _TITLE, sentence)


def _over_streams(layers: Sequence[LayerNorms]) -> Picture:
    panels = [
        Panel(_name(layer), histogram_rows(even_histogram(layer.norm, 20), "norm", "streams"))
        for layer in layers
    ]
    texts = []
    for layer in layers:
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
            f"saturated if its state is beyond {SATURATED}, of at most 1. With retained commits, "
            "the norm is drawn by commit."
        ],
        from_zero=True,
    )


def _by_commit(states: Sequence[StateAt]) -> Picture:
    panels = []
    for index, layer in enumerate(states[-1].layers):
        rows: list[Row] = []
        for state in states:
            ends = norm_quantiles(state.layers[index]) if index < len(state.layers) else None
            low, middle, high = ends or (None, None, None)
            rows.append({"commit": state.commit, "low": low, "median": middle, "high": high})
        panels.append(Panel(_name(layer), _rounded(rows)))
    before, now = (panels[0].rows[at]["median"] for at in (0, -1))
    return Picture(
        "norms",
        f"{_TITLE}, by commit",
        f"Median norm of {states[-1].layers[0].layer} {short(before)} after commit "
        f"{states[0].commit}, {short(now)} after commit {states[-1].commit}.",
        "band",
        panels,
        [Drawn("high", "10 to 90 % of the streams", "low"), Drawn("median", "median")],
        x_field="commit",
        x_title="commit",
        y_title="Euclidean norm of h",
        notes=["After the last commit and the retained ones; [checkpoint] keep retains more."],
        from_zero=True,
    )


def _shares(states: Sequence[StateAt]) -> Picture | Missing:
    panels = []
    for index, layer in enumerate(states[-1].layers):
        rows: list[Row] = []
        for state in states:
            share = state.layers[index].saturated if index < len(state.layers) else None
            rows.append({"commit": state.commit, "share": None if share is None else 100 * share})
        panels.append(Panel(_name(layer), _rounded(rows)))
    if all(row["share"] is None for panel in panels for row in panel.rows):
        return Missing(
            "saturated", _SHARE_TITLE, "units of this activation have no limit to saturate at."
        )
    last = states[-1].layers
    texts = [f"{layer.layer} {short(100 * (layer.saturated or 0))} %" for layer in last]
    return Picture(
        "saturated",
        _SHARE_TITLE,
        f"After the last commit: {', '.join(texts)}.",
        "lines",
        panels,
        [Drawn("share", "units of all streams")],
        x_field="commit",
        x_title="commit",
        y_title="Percent",
        from_zero=True,
    )


def _name(layer: LayerNorms) -> str:
    return f"{layer.layer}, {count(layer.units, 'unit')}"


def _rounded(rows: Sequence[Row]) -> list[Row]:
    return rows_of_columns({name: [row[name] for row in rows] for name in rows[0]})
