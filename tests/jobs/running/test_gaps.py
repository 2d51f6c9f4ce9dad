"""A file that is missing between those of earlier runs and the new ones is noted, and no more."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import logs
import numpy as np
import pyarrow as pa
import pytest

from streamrnn import Pipeline

pytestmark = pytest.mark.usefixtures("model_dir")

START = datetime(2024, 1, 1, tzinfo=UTC)


def day(number: int, hours: int, every: int, jitter: int) -> None:
    """The log of a day: rows of a few streams, from midnight on."""
    rng = np.random.default_rng(number)
    minutes = np.arange(0, 60 * hours, every) + rng.integers(0, jitter + 1)
    times = [START + timedelta(days=number, minutes=int(m)) for m in minutes]
    rows = len(times)
    table = pa.table(
        [
            pa.array([f"s{i % 3}" for i in range(rows)]),
            pa.array(times, pa.timestamp("us", "UTC")),
            pa.array(rng.normal(size=rows)),
            pa.array(np.zeros(rows, np.int32)),
            pa.array(np.zeros(rows, bool)),
        ],
        schema=logs.SCHEMA,
    )
    logs.write(table, Path(f"in/day={number:02}/log.parquet"))


def run(*days: int, hours: int = 24, every: int = 30, jitter: int = 25) -> str | None:
    for number in days:
        day(number, hours, every, jitter)
    return Pipeline.from_dict(logs.config("in", "m.safetensors", "out")).run().unusual_gap


@pytest.mark.parametrize(
    ("hours", "every"), [(24, 30), (8, 30), (1, 60)], ids=["all day", "working hours", "one row"]
)
def test_a_day_that_is_skipped_is_noted(hours: int, every: int) -> None:
    """With the end before and the file after; the days around it are not."""
    for number in range(6):
        assert run(number, hours=hours, every=every) is None
    note = run(7, hours=hours, every=every)
    assert note is not None
    assert note.startswith("there are no rows between 2024-01-06 ")
    assert "in/day=07/log.parquet (2024-01-08" in note
    assert note.endswith("is a file missing?")
    assert run(8, 9, hours=hours, every=every) is None


def test_days_that_were_always_skipped_are_usual() -> None:
    """As weekends are: the first one is noted."""
    weeks = [range(week * 7, week * 7 + 5) for week in range(3)]
    assert run(*weeks[0]) is None
    assert run(*weeks[1]) is not None
    assert run(*weeks[2]) is None


def test_a_day_that_comes_within_one_run_is_noted_and_one_that_comes_late_fills_the_gap() -> None:
    assert run(0, 1, 2, 3) is None
    assert "day=06" in str(run(4, 6))


def test_too_few_files_tell_nothing() -> None:
    assert run(0) is None
    assert run(1, 2) is None
    assert run(9) is None
