"""Scored logs with labels, and what an evaluation of them must find by the oracles."""

from collections import defaultdict
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import logs
import naive_labels
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from naive_scores import Pair

from streamrnn import Input, Sequential, layers

ROWS = 500
RULES: dict[str, dict[str, Any]] = {
    "plain": {"nulls": 0.0},
    "skip": {"nulls": "skip", "max_gap": "6m"},
    "rejects": {
        "nulls": "error",
        "bad": "reject",
        "late": "reject",
        "repeated": "reject",
        "reset": "new",
    },
    "applied": {"nulls": 0.0, "late": "apply", "reset": "new", "max_gap": "9m"},
}
TARGETS: dict[str, dict[str, Any]] = {
    "ahead": {"column": "x", "horizon": "3m"},
    "seasonal": {"column": "x", "horizon": "3m", "season": "5m"},
    "rows": {"column": "x", "rows": 2, "weight": "w"},
    "now": {"column": "x", "weight": "w"},
    "seasonal now": {"column": "x", "weight": "w", "season": "5m"},
}
# The target "ahead", as a pipeline file.
PIPELINE = """
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
nulls = 0
[model]
path = "m.safetensors"
[sink]
path = "out"
[target]
column = "x"
horizon = "3m"
"""


def model(activation: str, units: int) -> None:
    made = Sequential(
        [
            Input((None, 2)),
            layers.GRU(4, return_sequences=True, name="rnn"),
            layers.Dense(units, activation=activation, name="score"),
        ]
    )
    rng = np.random.default_rng(11)
    made.set_weights([rng.normal(0, 1, w.shape).astype(np.float32) for w in made.get_weights()])
    made.save("m.safetensors")


def log(name: str = "plain", rows: int = ROWS) -> pa.Table:
    late = RULES[name].get("late", "error") != "error"
    table = logs.random_log(rows, streams=4, nulls=0.1, resets=0.04, jitter=4 if late else 0)
    rng = np.random.default_rng(3)
    table = table.append_column("x", pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2))
    flags = pa.array(rng.random(rows) < 0.3, mask=rng.random(rows) < 0.1)
    table = table.append_column("flag", flags)
    table = table.append_column("c", pa.array(rng.integers(0, 3, rows)))
    table = table.append_column("days", pa.array(np.arange(rows) // 40))
    return table.append_column("w", pa.array(rng.integers(0, 4, rows)))


def write(table: pa.Table, files: int = 3) -> None:
    for file in Path().glob("in/*"):
        file.unlink()
    edges = np.linspace(0, len(table), files + 1).astype(int).tolist()
    for i, (first, end) in enumerate(pairwise(edges)):
        logs.write(table.slice(first, end - first), Path(f"in/{i}.parquet"), row_group=37)


def config(name: str, target: dict[str, Any], **tables: dict[str, Any]) -> dict[str, Any]:
    source = {**RULES[name], "batch_rows": 60, **tables.pop("source", {})}
    data = logs.config("in", "m.safetensors", "out", source=source, target=target, **tables)
    return {**data, "checkpoint": {"every": 2}}


def pairs_of(table: pa.Table, name: str, target: dict[str, Any]) -> dict[str, list[Any]]:
    """Stream -> (time, Pair) of each row that is compared, by the oracle of labels."""
    rows, rules = table.to_pylist(), RULES[name]

    def invalid(row: dict[str, Any]) -> bool:
        return rules["nulls"] == "error" and None in (row["a"], row["b"])

    late, repeated = rules.get("late", "error"), rules.get("repeated", "score")
    streams = naive_labels.kept_streams(rows, "id", "t", late, repeated, invalid)
    rule: dict[str, Any] = {
        "time": "t",
        "horizon": _minutes(target.get("horizon")),
        "ahead": target.get("rows", 0),
        "reset": rules.get("reset"),
        "max_gap": _minutes(rules.get("max_gap")),
    }
    columns = [target["column"]]
    found = naive_labels.labels(rows, streams, columns, **rule)
    before: dict[int, list[Any]] = {}
    if "season" in target:
        season = _minutes(target["season"])
        before = naive_labels.seasonal(rows, streams, columns, season, **rule)
    output = pq.read_table("out")
    scores = [column for column in output.column_names if column.startswith("score")]
    scored: dict[str, list[Any]] = defaultdict(list)
    for row in output.to_pylist():
        scored[row["id"]].append([row["t"], [row[column] for column in scores]])
    ahead = bool(target.get("horizon") or target.get("rows"))
    compared: dict[str, list[Any]] = {}
    for stream, numbers in streams.items():
        assert [rows[n]["t"] for n in numbers] == [time for time, _ in scored[stream]]
        compared[stream] = []
        for n, (time, values) in zip(numbers, scored[stream], strict=True):
            (label,), now = found[n], rows[n][target["column"]] if ahead else None
            weight = rows[n][target["weight"]] if "weight" in target else 1
            if None in (*values, label) or not weight:
                continue
            now = None if now is None else float(now)
            (past,) = before.get(n, [None])
            pair = Pair(values, float(label), now, weight, None if past is None else float(past))
            compared[stream].append((time, pair))
    return compared


def _minutes(text: str | None) -> timedelta | None:
    return None if text is None else timedelta(minutes=int(text.removesuffix("m")))


def check(line: dict[str, Any], pairs: list[Pair], figures: dict[str, float | None]) -> None:
    assert line["rows"] == len(pairs) > 0
    for figure, value in figures.items():
        if value is None:
            assert line.get(figure) is None
        elif figure in line:
            assert line[figure] == pytest.approx(value, rel=1e-6, abs=1e-9), figure
