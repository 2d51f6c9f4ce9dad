"""The body of the Prefect flow of pipelines/etl/prefect_days.py; the flow itself is not run."""

import json
import shutil
import signal
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selection import first_quick, slow

from pipelines import days
from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, DataError, LateRowError, MissingFileError

FILES = 2 * len(days.DAYS)


@pytest.fixture(scope="module")
def job() -> ModuleType:
    return days.load("prefect_days")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return days.write_log(tmp_path_factory.mktemp("days") / "log")


@pytest.fixture(scope="module")
def once(log: Path) -> tuple[pa.Table, pa.Table]:
    """Rows and states of one run over the whole folder."""
    out = log.with_name("once")
    pipeline = Pipeline.from_toml(days.write_pipeline(log.with_name("once.toml"), log, out))
    pipeline.run()
    table = pq.read_table(out)
    assert table.num_rows == 72 * len(days.DAYS)
    return table, pipeline.state.to_arrow()


@pytest.fixture
def arguments(log: Path, tmp_path: Path) -> tuple[str, str, str]:
    pipeline = days.write_pipeline(tmp_path / "days.toml", Path("unused"), Path("unused"))
    return str(pipeline), str(log), str(tmp_path / "out")


def assert_is_one_run(out: str, once: tuple[pa.Table, pa.Table]) -> None:
    rows, state = once
    written = pq.read_table(out, partitioning=None)
    assert days.bits(written).equals(days.bits(rows))
    assert Pipeline.resume(f"{out}/_checkpoint.arrow").state.to_arrow().equals(state)


def test_days_are_scored_one_by_one_and_once(
    job: ModuleType, arguments: tuple[str, str, str], once: tuple[pa.Table, pa.Table]
) -> None:
    for day in days.DAYS:
        first = job.score_day(*arguments, day)
        again = job.score_day(*arguments, day)
        position = [day, "36.parquet", 36]
        assert first == {"day": day, "rows": 72, "nothing_new": False, "position": position}
        assert again == {"day": day, "rows": 0, "nothing_new": True, "position": position}
        assert json.loads(json.dumps(first)) == first
    assert job.score_day(*arguments, days.DAYS[0])["nothing_new"]
    assert_is_one_run(arguments[2], once)


@pytest.mark.parametrize("when", ["before", "after"])
@slow
def test_a_killed_flow_is_resumed_by_its_retry(
    job: ModuleType, arguments: tuple[str, str, str], once: tuple[pa.Table, pa.Table], when: str
) -> None:
    """Each day another step: the part, the checkpoint, and those of the second file. Slow: kills
    with Prefect; the quick tests have them with Airflow."""
    left = {"before": [72, 72, 36, 36], "after": [72, 36, 36, 0]}[when]
    for call, day in enumerate(days.DAYS, 1):
        status = days.killed(("os.replace", when, call), job, *arguments, day)
        assert status == -signal.SIGKILL
        assert job.score_day(*arguments, day)["rows"] == left[call - 1]
    assert len(list(Path(arguments[2]).glob("*/[!_]*.parquet"))) == FILES
    assert_is_one_run(arguments[2], once)


def test_a_day_or_a_file_after_later_ones_is_refused(
    job: ModuleType, arguments: tuple[str, str, str], log: Path, tmp_path: Path
) -> None:
    pipeline, _, out = arguments
    job.score_day(*arguments, days.DAYS[1])
    with pytest.raises(DataError, match=r"01-02/0-00000036\.parquet: not written before") as caught:
        job.score_day(*arguments, days.DAYS[0])
    assert job.is_final(caught.value)
    copy = shutil.copytree(log, tmp_path / "log")
    day = copy / f"date={days.DAYS[1]}"
    shutil.copy(day / "0.parquet", day / "1.parquet")
    with pytest.raises(DataError, match=r"1-00000036\.parquet: not written before"):
        job.score_day(pipeline, str(copy), out, days.DAYS[1])
    assert job.score_day(*arguments, days.DAYS[2])["rows"] == 72


def test_a_day_without_files_is_retried(job: ModuleType, arguments: tuple[str, str, str]) -> None:
    with pytest.raises(MissingFileError, match="date=2013-02-30: no file") as caught:
        job.score_day(*arguments, "2013-02-30")
    assert not job.is_final(caught.value)
    assert not Path(arguments[2]).exists()


def test_invalid_data_is_final_and_other_errors_are_not(job: ModuleType) -> None:
    errors = (DataError("any"), LateRowError("any", "", "", 0), CheckpointError("any"), OSError())
    assert [job.is_final(error) for error in errors] == [True, True, False, False]


def test_files_are_read_in_the_order_of_their_numbers(
    job: ModuleType, arguments: tuple[str, str, str], log: Path, tmp_path: Path
) -> None:
    """As positions are compared: 9 before 10."""
    pipeline, _, out = arguments
    day, copy = days.DAYS[0], tmp_path / "log"
    shutil.copytree(log / f"date={day}", copy / f"date={day}")
    for old, new in (("0", "part-9"), ("36", "part-10")):
        (copy / f"date={day}" / f"{old}.parquet").rename(copy / f"date={day}" / f"{new}.parquet")
    scored = job.score_day(pipeline, str(copy), out, day)
    assert (scored["rows"], scored["position"]) == (72, [day, "part-10.parquet", 36])


@pytest.mark.parametrize("first", first_quick([0, 1]), ids=["one day", "two days"])
def test_two_at_once_end_in_the_right_state_or_one_message(
    job: ModuleType, arguments: tuple[str, str, str], once: tuple[pa.Table, pa.Table], first: int
) -> None:
    """One is refused while the other scores; a day that the next one overtook says so.

    Slow: two days at once.
    """
    started = {days.DAYS[0], days.DAYS[first]}
    both = [(*arguments, days.DAYS[0]), (*arguments, days.DAYS[first])]
    done = days.at_once(Path(str(job.__file__)), *both)
    assert 0 in [status for status, _ in done]
    for status, error in done:
        assert status == 0 or error.count("\n") == 1, error
        assert status == 0 or "in use by another run" in error or "not written before" in error
    rows = pq.read_table(arguments[2], partitioning=None)
    alone = [day for day in sorted(started) if (Path(arguments[2]) / f"date={day}").exists()]
    if alone == sorted(started):
        assert days.bits(rows).equals(days.bits(once[0].slice(0, 72 * len(alone))))
    else:
        assert rows.num_rows == 72
