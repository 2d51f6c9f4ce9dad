"""What a small batch costs in calls of Python functions, which no clock and no load changes."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from readme import make_clone

from streamrnn import Pipeline

ROOT = Path(__file__).parents[3]


def _python_calls(pipeline: Pipeline, batch: pa.RecordBatch) -> int:
    count = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        pipeline.process(batch)
    finally:
        sys.setprofile(before)
    return count


def test_three_rows_cost_few_python_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the weather pipeline, whose model has four layers; with nulls among them, and without."""
    monkeypatch.chdir(make_clone(tmp_path))
    pipeline = Pipeline.from_toml("pipelines/weather.toml")
    rows = pq.read_table("data/weather.parquet").combine_chunks().to_batches()[0]
    batches = [rows.slice(first, 3) for first in range(0, 600, 3)]
    counts = [_python_calls(pipeline, batch) for batch in batches][20:]
    assert any(batch.column("pressure").null_count for batch in batches[20:])
    assert max(counts) <= 196
    assert min(counts) <= 96
