"""The job of pipelines/etl/spark_days.py: three days of the weather, interrupted between steps."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="needs the engines extra")
from plugins.spark import sessions

from streamrnn import Pipeline
from streamrnn.plugins.spark import ScoredFrames, state_to_arrow

pytestmark = pytest.mark.filterwarnings(sessions.PANDAS)
ROOT = Path(__file__).parents[3]
DAY = 300


def _job() -> Any:
    spec = importlib.util.spec_from_file_location(
        "spark_days", ROOT / "pipelines" / "etl" / "spark_days.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _add_day(base: Path, day: int) -> None:
    table = pq.read_table(ROOT / "data" / "weather.parquet").slice(day * DAY, DAY)
    path = base / "log" / f"{day}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    os.utime(path, (day + 1, day + 1))  # a stream reads files by their times


def test_each_row_is_scored_once_whatever_step_fails(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every day fails at another step, and is run again: rows and state are those of one run."""
    job, out = _job(), tmp_path / "out"
    steps = ["state", "rows", "unpersist"]
    assert spark.sparkContext.appName  # the session that the job gets
    for day, step in enumerate(steps):
        _add_day(tmp_path, day)
        with monkeypatch.context() as patched:
            _fail_at(step, patched)
            with pytest.raises(Exception, match=f"the power fails at {step}"):
                job.main(str(tmp_path / "log"), str(out))
        assert (out / "state" / str(day)).exists() == (step != "state")
        assert (out / "rows" / f"batch={day}").exists() == (step == "unpersist")
        job.main(str(tmp_path / "log"), str(out))
    assert sorted(path.name for path in (out / "rows").iterdir()) == [
        f"batch={day}" for day in range(3)
    ]
    local = Pipeline.from_toml(
        job.PIPELINE,
        [
            f'source.path="{tmp_path}/log"',
            f'model.path="{ROOT}/pipelines/weather/model.safetensors"',
            f'sink.path="{tmp_path}/local"',
        ],
    )
    local.run()
    found = pa.concat_tables(pq.read_table(out / "rows" / f"batch={day}") for day in range(3))
    expected = pq.read_table(tmp_path / "local")
    key = [("origin", "ascending"), ("time_hour", "ascending")]
    found = found.select(expected.schema.names).cast(expected.schema)
    assert found.sort_by(key).equals(expected.sort_by(key))
    state = state_to_arrow(spark.read.parquet(str(out / "state" / "2")))
    assert state.sort_by("origin").equals(local.state.to_arrow().sort_by("origin"))


def _fail_at(step: str, patched: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError(f"the power fails at {step}")

    patched.setattr(ScoredFrames, step, fail if step == "unpersist" else property(fail))
