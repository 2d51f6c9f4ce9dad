"""Days of a log, and two models that score them one after the other."""

from pathlib import Path
from typing import Any

import logs

from streamrnn import Pipeline

LOG = logs.random_log(600, streams=40, nulls=0.1, resets=0.02, jitter=4)
DAYS = tuple(LOG.slice(start, 150) for start in range(0, 600, 150))
SOURCE = {"nulls": "previous", "late": "drop", "bad": "reject", "reset": "new", "max_gap": "2h"}
REPLAY = {"new_model": "replay"}


def make() -> None:
    """Write an old model, a new one with other layers, and three days into `in`."""
    logs.small_model().save("old.safetensors")
    logs.small_model("LSTM", units=7).save("new.safetensors")
    for number in range(3):
        day(number)


def day(number: int, folder: str = "in") -> None:
    logs.write(DAYS[number], Path(f"{folder}/{number}.parquet"), row_group=40)


def config(weights: str, out: str = "out", path: str = "in", **tables: Any) -> dict[str, Any]:
    source = {**SOURCE, "batch_rows": 50, **tables.pop("source", {})}
    tables.setdefault("checkpoint", {"every": 1})
    return logs.config(path, f"{weights}.safetensors", out, source=source, **tables)


def run(weights: str, out: str = "out", path: str = "in", **tables: Any) -> Any:
    options = tables.pop("options", {})
    return Pipeline.from_dict(config(weights, out, path, **tables)).run(**options)
