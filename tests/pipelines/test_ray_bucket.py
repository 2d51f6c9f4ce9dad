"""The Ray job of pipelines/etl/ray_bucket.py: an S3 server on the loopback, and two workers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from base.storage.s3_server import empty_bucket, options

from pipelines import days
from streamrnn import Pipeline
from streamrnn.outputs import read_states, verify

pytest.importorskip("ray", reason="needs the engines extra")
pytest.importorskip("moto.server", reason="needs the engines extra")

JOB = days.ROOT / "pipelines" / "etl" / "ray_bucket.py"
TABLES = "[engine]\nepoch_rows = 6000\nshards = 3"
FIRST = 18_000


@pytest.fixture
def bucket() -> Iterator[tuple[Any, str]]:
    """Yield a file system, and the query of its URIs."""
    with empty_bucket("weather-job") as (fs, port):
        yield fs, options(port)


def job(pipeline: Path, *uris: str) -> tuple[int, str, str]:
    """Run the job as a script; its exit status, output and errors."""
    command = [sys.executable, str(JOB), str(pipeline), *uris]
    environment = days.environment()
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def summary(pipeline: Path, *uris: str) -> dict[str, Any]:
    status, out, errors = job(pipeline, *uris)
    assert status == 0, errors
    found: dict[str, Any] = json.loads(out)
    return found


def by_stream(table: pa.Table) -> pa.Table:
    """Rows sorted by stream and time, which no two rows of a stream share."""
    return days.bits(table.sort_by([("origin", "ascending"), ("time_hour", "ascending")]))


def test_a_job_on_a_bucket_gives_what_a_local_run_gives(
    bucket: tuple[Any, str], tmp_path: Path
) -> None:
    """Two days of it; the second resumes from the state of the first, a third finds nothing new."""
    fs, query = bucket
    log = pq.read_table(days.ROOT / "data" / "weather.parquet")
    once = tmp_path / "once"
    pipeline = days.write_pipeline(tmp_path / "p.toml", tmp_path / "log", once, TABLES)
    pipeline.write_text(pipeline.read_text().replace("[model]", "[model]\nthreads = 2"))
    uris = f"s3://weather-job/log?{query}", f"s3://weather-job/scores?{query}"

    def add(name: str, rows: pa.Table) -> None:
        fs.create_dir("weather-job/log")
        pq.write_table(rows, f"weather-job/log/{name}", row_group_size=3000, filesystem=fs)
        (tmp_path / "log").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / "log" / name, row_group_size=3000)

    add("1.parquet", log.slice(0, FIRST))
    first = summary(pipeline, *uris)
    assert (first["rows"], first["commits"]) == (FIRST, 3)
    assert (first["workload"]["workers"], first["workload"]["shards"]) == (2, 3)
    add("2.parquet", log.slice(FIRST))
    assert summary(pipeline, *uris)["rows"] == len(log) - FIRST
    assert summary(pipeline, *uris)["nothing_new"]
    Pipeline.from_toml(pipeline).run()
    rows = ds.dataset("weather-job/scores", filesystem=fs, format="parquet").to_table()
    assert by_stream(rows).equals(by_stream(pq.read_table(once)))
    states = [read_states(place).sort_by("origin") for place in (uris[1], str(once))]
    assert states[0].equals(states[1])
    assert verify(uris[1]).rows == len(log)
    status, out, errors = job(pipeline, f"s3://weather-job/none?{query}", uris[1])
    assert (status, out) == (66, "")
    assert "s3://weather-job/none" in errors
    assert "Traceback" not in errors
