"""Small fits over a log of many streams, and hashes of what they make."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Pipeline, set_threads
from streamrnn.pipeline import FitSummary

LAYERS = [
    {"type": "Normalization"},
    {"type": "GRU", "units": 6, "recurrent_dropout": 0.1},
    {"type": "Dense", "units": 1},
]
ROWS, STREAMS = 900, 7


def log(rows: int = ROWS, seed: int = 3, **options: Any) -> pa.Table:
    """A log whose column b follows a: there is something to learn."""
    table = logs.random_log(rows, STREAMS, seed, resets=0.01, **options)
    a = np.nan_to_num(table["a"].to_numpy())
    b = np.clip(np.round(np.cumsum(a) / 8), -3, 3).astype(np.int32)
    return table.set_column(3, "b", pa.array(b))


def config(folder: Path, **tables: dict[str, Any]) -> dict[str, Any]:
    """A fit in a folder that has the log as `in`."""
    data = logs.config(
        str(folder / "in"),
        str(folder / "model.safetensors"),
        str(folder / "out"),
        source={"reset": "new", "nulls": "previous"},
        window={"lanes": 4, "steps": 8},
        model={"layers": LAYERS},
        target={"column": "b", "rows": 1},
        train={
            "epochs": 2,
            "burn_in": 2,
            "optimizer": {"name": "adam", "learning_rate": 0.01},
            "schedule": "cosine",
            "clip_norm": 1.0,
            "metrics": ["mae"],
        },
    )
    return {name: {**data.get(name, {}), **tables.get(name, {})} for name in {*data, *tables}}


def interrupt(resume: Callable[..., FitSummary], windows: int) -> None:
    """Stop a fit after so many windows, and resume it, again and again until it is done."""
    stops = 0
    while _stopped(resume, windows):
        stops += 1
    assert stops


def _stopped(resume: Callable[..., FitSummary], windows: int) -> bool:
    stop, seen = threading.Event(), 0

    def count(progress: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == windows:
            stop.set()

    return resume(progress=count, stop=stop).interrupted


def fit(folder: Path, tables: dict[str, Any] | None = None, **options: Any) -> FitSummary:
    """Write the log, unless it exists, and fit."""
    if not (folder / "in").exists():
        logs.write(log(), folder / "in" / "a.parquet", row_group=100)
    return Pipeline.from_dict(config(folder, **(tables or {}))).fit(**options)


def history(folder: Path) -> list[dict[str, Any]]:
    """The history without seconds."""
    table = pq.read_table(folder / "model.safetensors.fit" / "history.parquet")
    rows: list[dict[str, Any]] = table.drop_columns(["seconds"]).to_pylist()
    return rows


def state(folder: Path) -> pa.Table:
    """The state after the last row."""
    return pq.read_table(folder / "model.safetensors.fit" / "state.parquet")


def digest(folder: Path) -> str:
    """A hash of the model file, the history without its seconds, and the state."""
    total = hashlib.sha256((folder / "model.safetensors").read_bytes())
    total.update(repr(history(folder)).encode())
    total.update(repr(state(folder).to_pydict()).encode())
    return total.hexdigest()


VALIDATED = {"train": {"validation": {"since": "2024-01-01T20:00", "streams": 0.3}}}


def validated() -> dict[str, Any]:
    """Tables of a fit with both kinds of validation."""
    return {"train": {**config(Path())["train"], **VALIDATED["train"]}}


if __name__ == "__main__":
    set_threads(int(sys.argv[1]))
    with tempfile.TemporaryDirectory() as name:
        fit(Path(name), validated())
        print(digest(Path(name)))
