"""The body of the Airflow task of pipelines/etl/airflow_days.py; the DAG itself is not run."""

import json
import signal
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from selection import slow

from pipelines import days
from streamrnn import Pipeline
from streamrnn.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    LateRowError,
    MissingFileError,
    SinkError,
    StreamRNNError,
)
from streamrnn.outputs import read_states, verify

SMALL = "[checkpoint]\nevery = 1"


@pytest.fixture(scope="module")
def job() -> ModuleType:
    return days.load("airflow_days")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return days.write_log(tmp_path_factory.mktemp("days") / "log")


@pytest.fixture
def pipeline(log: Path, tmp_path: Path) -> Path:
    """A pipeline that commits every ten rows."""
    path = days.write_pipeline(tmp_path / "days.toml", log, tmp_path / "out", SMALL)
    text = path.read_text().replace("[source]\n", "[source]\nbatch_rows = 10\n")
    path.write_text(text.replace(days.COLUMNS, 'columns = ["origin", "date", "temp"]'))
    return path


def assert_is_one_run(pipeline: Path, out: Path) -> None:
    """One run over the whole folder gives the same rows and states."""
    once = out.with_name("once")
    Pipeline.from_toml(pipeline, [f"sink.path={once}"]).run()
    rows = pq.read_table(once)
    assert rows.num_rows == 72 * len(days.DAYS)
    assert days.bits(pq.read_table(out)).equals(days.bits(rows))
    assert read_states(str(out)).equals(read_states(str(once)))
    verify(str(out))


@pytest.mark.parametrize("second", [0, 1])
@slow
def test_two_at_once_end_in_the_right_state_or_one_message(
    job: ModuleType, pipeline: Path, second: int
) -> None:
    """Retries of what was refused end in the right state, unless a later day came first.

    Slow: two processes; the quick tests have two jobs on one checkpoint.
    """
    asked = [(pipeline, days.DAYS[0]), (pipeline, days.DAYS[second])]
    done = days.at_once(Path(str(job.__file__)), *asked)
    assert 0 in [status for status, _ in done]
    for status, error in done:
        assert status in (0, 1, 65), error
        assert status == 0 or error.count("\n") == 1, error
    if done[0][0] == 0:
        for day in days.DAYS:
            job.score_day(str(pipeline), day)
        assert_is_one_run(pipeline, pipeline.with_name("out"))


def test_days_are_scored_one_by_one_and_once(job: ModuleType, pipeline: Path) -> None:
    out = pipeline.with_name("out")
    for day in days.DAYS:
        first = job.score_day(str(pipeline), day)
        again = job.score_day(str(pipeline), day)
        assert (first["rows"], first["nothing_new"]) == (72, False)
        assert (first["first_time"][:10], first["last_time"][:10]) == (day, day)
        assert (again["rows"], again["parts"], again["nothing_new"]) == (0, [], True)
        assert again["commit"] == first["commit"]
        assert json.loads(json.dumps(first)) == first  # as XCom stores it
    assert_is_one_run(pipeline, out)
    assert job.score_day(str(pipeline), days.DAYS[0])["nothing_new"]


@slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_task_is_resumed_by_its_retry(job: ModuleType, pipeline: Path, when: str) -> None:
    """Slow: kills; quick tests kill the job of test_exactly_once."""
    job.score_day(str(pipeline), days.DAYS[0])
    step = ("streamrnn.stream.checkpoints:OutputFolder.commit", when, 3)
    assert days.killed(step, job, pipeline, days.DAYS[1]) == -signal.SIGKILL
    with pytest.raises(CheckpointError, match="later rows have not been read yet"):
        job.score_day(str(pipeline), days.DAYS[2])
    retry = job.score_day(str(pipeline), days.DAYS[1])
    assert retry["rows"] == (72 - 20 if when == "before" else 72 - 30)
    assert retry["resumed"].startswith("Resumed at row")
    for day in days.DAYS[2:]:
        job.score_day(str(pipeline), day)
    assert_is_one_run(pipeline, pipeline.with_name("out"))


def test_a_day_after_later_ones_is_refused(job: ModuleType, pipeline: Path) -> None:
    job.score_day(str(pipeline), days.DAYS[1])
    with pytest.raises(LateRowError, match="time goes backwards") as caught:
        job.score_day(str(pipeline), days.DAYS[0])
    assert job.is_final(caught.value)
    assert job.score_day(str(pipeline), days.DAYS[2])["rows"] == 72


def test_a_day_without_files_is_retried(job: ModuleType, pipeline: Path) -> None:
    with pytest.raises(MissingFileError, match=r"\*=2013-02-30/\*\*: no file") as caught:
        job.score_day(str(pipeline), "2013-02-30")
    assert not job.is_final(caught.value)


def test_the_query_of_a_uri_remains_at_its_end(job: ModuleType) -> None:
    files = job.files_of_day("s3://bucket/log/?region=eu-west-3", "2013-01-02")
    assert files == "s3://bucket/log/*=2013-01-02/**?region=eu-west-3"


def test_invalid_data_and_configs_are_final_and_other_errors_are_not(job: ModuleType) -> None:
    errors = (DataError, ConfigError, CheckpointError, SinkError, StreamRNNError)
    assert [job.is_final(error("any")) for error in errors] == [True, True, False, False, False]
