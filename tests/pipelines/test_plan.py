"""The recipe that makes features of a plan gives each row what the plan says ahead of it."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RECIPE = Path(__file__).parents[2] / "pipelines" / "plan.py"
START = datetime(2026, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")


def joined(folder: Path, rows: pa.Table, plan: pa.Table) -> "subprocess.CompletedProcess[str]":
    pq.write_table(rows, folder / "rows.parquet")
    pq.write_table(plan, folder / "plan.parquet")
    files = [str(folder / f"{name}.parquet") for name in ("rows", "plan", "out")]
    options = ["--key", "id", "--time", "t", "--ahead", "1", "3"]
    return subprocess.run(
        [sys.executable, str(RECIPE), *files, *options], capture_output=True, text=True, check=False
    )


def test_each_row_has_what_the_plan_says_ahead_of_it(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    times = [START + timedelta(hours=int(hour)) for hour in random.integers(0, 48, 200)]
    keys = [f"s{number}" for number in random.integers(0, 3, 200)]
    rows = pa.table({"id": keys, "t": pa.array(times, TIME), "a": np.arange(200.0)})
    said: dict[tuple[str, datetime], Any] = {
        (f"s{number}", START + timedelta(hours=hour)): number * 100 + hour
        for number in range(2)
        for hour in range(0, 51, 2)
    }
    plan = pa.table(
        {
            "t": pa.array([time for _, time in said], pa.timestamp("ms", "UTC")),
            "staff": list(said.values()),
            "id": [key for key, _ in said],
        }
    )
    done = joined(tmp_path, rows, plan)
    assert done.returncode == 0, done.stderr
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.select(rows.column_names) == rows
    for hours in (1, 3):
        ahead = timedelta(hours=hours)
        wanted = [said.get((key, time + ahead)) for key, time in zip(keys, times, strict=True)]
        assert out[f"staff_in_{hours}h"].to_pylist() == wanted


def test_a_plan_that_says_two_things_is_refused(tmp_path: Path) -> None:
    rows = pa.table({"id": ["a"], "t": pa.array([START], TIME)})
    plan = pa.table({"id": ["a", "a"], "t": pa.array([START] * 2, TIME), "staff": [1, 2]})
    done = joined(tmp_path, rows, plan)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the plan has several rows with the same 'id' and 't': keep one\n"
