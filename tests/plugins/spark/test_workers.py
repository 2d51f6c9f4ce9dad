"""Workers that die, tasks that are tried again, workers that lack the package, and what is kept."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import logs
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="needs the engines extra")
from plugins.spark import sessions

from streamrnn import Pipeline
from streamrnn.errors import DataError, UnsupportedError
from streamrnn.plugins.spark import score, state_to_arrow, worker_errors
from streamrnn.plugins.spark.partition import scoring

pytestmark = pytest.mark.filterwarnings(sessions.PANDAS)


def reading(pipeline: Pipeline, note: Path, fail: str = "") -> Pipeline:
    """The pipeline, whose workers note each batch, and fail once, at the third of them."""
    contract, path, number = pipeline.loaded.contract, str(note), int(signal.SIGKILL)

    class Noted(type(contract)):  # type: ignore[misc]  # sent by value, as it is local
        def read(self, batch: Any, origin: Any) -> Any:
            with open(path, "ab", buffering=0) as file:
                file.write(f"{os.getpid()}\n".encode())
                end = file.tell()  # of this line, whatever another worker adds at the same time
            with open(path, "rb") as lines:
                count = lines.read(end).count(b"\n")
            if count == 3 and fail == "kill":
                os.kill(os.getpid(), number)
            if count == 3 and fail:
                raise RuntimeError(fail)
            return super().read(batch, origin)

    noted = object.__new__(Noted)
    noted.__dict__.update(vars(contract))
    pipeline.loaded.contract = noted
    return pipeline


@pytest.mark.parametrize("fail", ["kill", "a disk of this node is full"])
def test_a_task_that_is_tried_again_gives_the_same_bits(
    fail: str, spark: Any, tmp_path: Path
) -> None:
    """The third batch of the first attempt meets SIGKILL, or an error of the machine."""
    (path,) = sessions.write_days(logs.random_log(400, nulls=0.1), tmp_path / "log", 1)
    options = {"nulls": "previous", "batch_rows": 64}
    pipeline = sessions.pipeline(tmp_path, "out", source=options)
    pipeline.run()
    failing = reading(sessions.pipeline(tmp_path, source=options), tmp_path / "note", fail)
    result = score(spark.read.parquet(path), failing, order=sessions.ORDER)
    found = result.rows.toArrow()
    expected = pq.read_table(tmp_path / "out").cast(found.schema)
    assert sessions.by_stream(found).equals(sessions.by_stream(expected))
    expected_state = pipeline.state.to_arrow().sort_by("id")
    assert state_to_arrow(result.state).sort_by("id").equals(expected_state)
    workers = (tmp_path / "note").read_text().splitlines()
    assert len(workers) > 3
    assert workers[2] not in workers[3:] or fail != "kill"


def test_all_results_are_computed_once(
    spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one exchange and one sort, of rows and state together."""
    (path,) = sessions.write_days(logs.random_log(300), tmp_path / "log", 1)
    frame = spark.read.parquet(path)
    first = score(frame, sessions.pipeline(tmp_path), order=sessions.ORDER)
    pipeline = reading(sessions.pipeline(tmp_path, source={"late": "apply"}), tmp_path / "note")
    result = score(frame, pipeline, first.state, sessions.ORDER, partitions=2)
    capsys.readouterr()
    result.both.explain()
    plan = capsys.readouterr().out.partition("InMemoryRelation")[0]
    assert len(re.findall(r"\bExchange\b", plan)) == 1
    assert "hashpartitioning" in plan
    assert len(re.findall(r"\bSort \[", plan)) == 1
    result.summary()
    batches = (tmp_path / "note").read_text()
    assert batches
    assert result.rows.count() == 300
    assert result.state.count() == first.state.count() > 0
    assert result.rejects.count() == 0
    assert (tmp_path / "note").read_text() == batches
    result.unpersist()
    first.unpersist()
    assert not result.both.is_cached


def test_a_worker_without_the_package_says_so(tmp_path: Path) -> None:
    """What Spark sends is code: it runs in a Python that cannot import the package, or another
    version of it."""
    from pyspark import cloudpickle

    content = cloudpickle.dumps(scoring(None))
    (tmp_path / "sent").write_bytes(content)
    load = (
        "import sys, pickle; sys.path.insert(0, sys.argv[2]); from pyspark import cloudpickle\n"
        "{}\nscore = pickle.load(open(sys.argv[1], 'rb'))\nlist(score(iter(())))"
    )
    for before, expected in [
        ("sys.modules['streamrnn'] = None", "a Spark worker cannot import streamrnn."),
        (
            "import streamrnn; streamrnn.__version__ = '0.0.0'",
            "a Spark worker has streamrnn 0.0.0, the driver has",
        ),
    ]:
        command = [sys.executable, "-c", load.format(before), str(tmp_path / "sent"), "."]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert expected in done.stderr
        assert f"This worker's Python is {sys.executable}." in done.stderr
        with pytest.raises(UnsupportedError, match="set PYSPARK_PYTHON"), worker_errors():
            raise RuntimeError(done.stderr + "\n\n\tat org.apache.spark…")


def test_an_error_of_a_worker_is_raised_as_it_was(spark: Any, tmp_path: Path) -> None:
    """With its file and row, and without the stack of the JVM."""
    (path,) = sessions.write_days(logs.random_log(200, nulls=0.1), tmp_path / "log", 1)
    frame = spark.read.parquet(path)
    result = score(frame, sessions.pipeline(tmp_path), order=sessions.ORDER, partitions=1)
    with pytest.raises(DataError) as caught:
        result.summary()
    assert re.fullmatch(
        r"file:/\S*/log/0.parquet: row \d+ \(from 0\): stream id='s\d+': column '[ab]': value is "
        r'null, and nulls = "error". Invalid rows in this record batch: \d+. Fix the data, set '
        r'`nulls` for the column, or set \[source\] bad = "reject".',
        str(caught.value),
    )
    with pytest.raises(DataError, match=r"row \d+ \(from 0\): stream"), worker_errors():
        result.rows.collect()


def test_errors_of_spark_pass_through() -> None:
    with pytest.raises(RuntimeError, match="no space left"), worker_errors():
        raise RuntimeError("no space left")
    with pytest.raises(DataError, match="ours"), worker_errors():
        raise DataError("ours")
