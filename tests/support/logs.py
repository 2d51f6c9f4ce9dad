"""Small logs and models for the tests of pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Sequential, layers

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("t", pa.timestamp("us", "UTC")),
        ("a", pa.float64()),
        ("b", pa.int32()),
        ("new", pa.bool_()),
    ]
)


def random_log(
    rows: int = 600,
    streams: int = 17,
    seed: int = 7,
    nulls: float = 0.0,
    resets: float = 0.0,
    jitter: int = 0,
) -> pa.Table:
    """Rows of many streams, interleaved by time; `jitter` minutes back make some of them late."""
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.4, rows) % streams
    minutes = np.cumsum(rng.integers(1, 4, rows)) - rng.integers(0, jitter + 1, rows)
    start = np.datetime64("2024-01-01T00:00", "us").astype(np.int64)
    a = rng.normal(size=rows)
    b = rng.integers(-3, 4, rows).astype(np.int32)
    return pa.table(
        [
            pa.array([f"s{i}" for i in ids]),
            pa.array(start + minutes * 60_000_000, pa.int64()).cast(SCHEMA.field("t").type),
            pa.array(a, mask=rng.random(rows) < nulls),
            pa.array(b, mask=rng.random(rows) < nulls),
            pa.array(rng.random(rows) < resets),
        ],
        schema=SCHEMA,
    )


def small_model(kind: str = "GRU", units: int = 5, features: int = 2, **options: Any) -> Sequential:
    """A recurrent layer and a Dense(1), weights drawn from a seed."""
    recurrent = getattr(layers, kind)(units, name="rnn", **options)
    model = Sequential([layers.Input((None, features)), recurrent, layers.Dense(1, name="score")])
    rng = np.random.default_rng(11)
    model.set_weights([rng.normal(0, 0.6, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def write(table: pa.Table, path: Path, row_group: int = 1000) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group)
    return str(path)


def config(path: str, weights: str, out: str | None, **tables: dict[str, Any]) -> dict[str, Any]:
    """A pipeline over SCHEMA; `tables` are merged into its own."""
    data: dict[str, Any] = {
        "source": {"path": path, "key": "id", "time": "t", "features": ["a", "b"]},
        "model": {"path": weights},
        "sink": {} if out is None else {"path": out},
    }
    for name, keys in tables.items():
        data[name] = {**data.get(name, {}), **keys}
    return data
