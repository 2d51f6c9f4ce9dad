"""The oracle of a pipeline: one row after another, a dict a stream, plain Python floats.

It imports nothing of streamrnn. Rows are dicts; a row's `t` is its time, `id` its key, `new`
whether it starts the stream fresh. Results: for each row that gives an output row, its index and
its value (None: null).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import naive

Row = dict[str, Any]


@dataclass
class Column:
    """A feature: what counts as a value, and what stands for a null."""

    name: str
    nulls: str | float = "error"
    valid: tuple[float, float] | None = None
    clip: tuple[float, float] | None = None


@dataclass
class Model:
    """A cell and a dense layer behind it."""

    cell: naive.Cell
    kernel: Any
    bias: Any

    def start(self) -> Any:
        return self.cell.start()

    def step(self, x: list[float], states: Any) -> tuple[list[float], Any]:
        h, states = self.cell.step(x, states)
        return naive.dense(h, self.kernel, self.bias), states


@dataclass
class Stream:
    """What is remembered of a stream."""

    states: Any
    steps: int = 0
    last: Any = None
    previous: dict[str, float] = field(default_factory=dict)
    waiting: list[list[float]] = field(default_factory=list)


@dataclass
class Settings:
    columns: list[Column]
    late: str = "apply"
    repeated: str = "score"
    max_gap: float | None = None
    idle: float | None = None  # a stream that is silent for longer is forgotten
    warmup: int = 0
    window: tuple[int, int] | None = None  # kind independent: steps, stride


def score(
    rows: list[Row], model: Model, settings: Settings, streams: dict[Any, Stream]
) -> list[tuple[int, list[float] | None, int]]:
    """(index, value, step) of each row that is kept; step 0: skipped. `streams` is moved on."""
    out: list[tuple[int, list[float] | None, int]] = []
    for index, row in enumerate(rows):
        stream = streams.setdefault(row["id"], Stream(model.start()))
        if stream.last is not None and row["t"] < stream.last and settings.late == "drop":
            continue
        if stream.last is not None and row["t"] == stream.last and settings.repeated == "skip":
            continue
        forgets = stream.last is not None and settings.idle is not None
        if forgets and row["t"] - stream.last > settings.idle:
            stream = streams[row["id"]] = Stream(model.start())
        silent = stream.last is not None and settings.max_gap is not None
        if row.get("new") or (silent and row["t"] - stream.last > settings.max_gap):
            last = stream.last
            stream = streams[row["id"]] = Stream(model.start(), last=last)
        stream.last = row["t"] if stream.last is None else max(stream.last, row["t"])
        x = [value(row[c.name], c, stream) for c in settings.columns]
        if any(v is None for v in x):
            out.append((index, None, 0))
            continue
        stream.steps += 1
        y = step(x, model, settings, stream)
        out.append((index, None if stream.steps <= settings.warmup else y, stream.steps))
    return out


def value(raw: float | None, column: Column, stream: Stream) -> Any:
    """What the model sees of one value; None: there is none."""
    if raw is not None and column.valid and not column.valid[0] <= raw <= column.valid[1]:
        raw = None
    if raw is not None and column.clip:
        raw = min(max(raw, column.clip[0]), column.clip[1])
    if raw is None:
        if column.nulls == "previous":
            return stream.previous.get(column.name)
        return None if column.nulls == "skip" else column.nulls
    stream.previous[column.name] = raw
    return raw


def step(x: list[float], model: Model, settings: Settings, stream: Stream) -> list[float] | None:
    if settings.window is None:
        y, stream.states = model.step(x, stream.states)
        return y
    steps, stride = settings.window
    stream.waiting.append(x)
    end = stream.steps
    if end < steps or (end - steps) % stride:
        return None
    states, y = model.start(), None
    for each in stream.waiting[-steps:]:
        y, states = model.step(each, states)
    return y
