"""What a run reports to a scheduler: parts, commit, files read, times and seconds by phase."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pytest

from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.stream.scoring.loop import PHASES, Stopwatch

LOG = logs.random_log(rows=100, streams=3)


@pytest.fixture
def pipeline(model_dir: Path) -> Any:
    """Make a pipeline over `in`, in batches of 10 rows and a commit each two."""

    def make(**tables: Any) -> Pipeline:
        usual = {"source": {"batch_rows": 10}, "checkpoint": {"every": 2}}
        return Pipeline.from_dict(logs.config("in", "m.safetensors", "out", **{**usual, **tables}))

    return make


def test_a_run_reports_its_commit_its_parts_and_its_times(pipeline: Any) -> None:
    """Parts are those that the run added: exactly the new files of the output."""
    logs.write(LOG.slice(0, 60), Path("in/a.parquet"))
    first = pipeline().run()
    known = {path.name for path in Path("out").glob("*.parquet")}
    assert (first.commit, set(first.parts), first.files_read) == (3, known, 1)
    logs.write(LOG.slice(60), Path("in/b.parquet"))
    second = pipeline().run()
    added = {path.name for path in Path("out").glob("*.parquet")} - known
    assert (second.commit, set(second.parts), second.files_read) == (5, added, 1)
    times = LOG["t"].cast(pa.string()).to_pylist()
    assert (first.first_time, first.last_time) == (times[0], times[59])
    assert (second.first_time, second.last_time) == (times[60], times[99])
    third = pipeline().run()
    assert (third.commit, third.parts, third.files_read, third.first_time) == (5, [], 0, None)
    fresh = pipeline().run(full_refresh=True)
    assert (fresh.rows_out, len(fresh.parts), fresh.files_read) == (100, 5, 2)


def test_rows_with_invalid_times_have_no_time(pipeline: Any) -> None:
    """A null time is no first time: such a row is rejected."""
    null = pa.array([None, *LOG["t"].to_pylist()[1:]], LOG.schema.field("t").type)
    logs.write(LOG.set_column(1, LOG.schema.field("t"), null), Path("in/a.parquet"))
    summary = pipeline(source={"bad": "reject"}).run()
    assert (summary.rejected, summary.first_time) == (1, str(LOG["t"].cast(pa.string())[1]))


def test_an_interrupted_run_counts_the_files_that_it_has_read(pipeline: Any) -> None:
    """Twelve files are listed; the run stops in the first."""
    for i in range(12):
        logs.write(LOG.slice(i * 8, 8), Path(f"in/{i}.parquet"))
    stop = threading.Event()
    summary = pipeline().run(stop=stop, progress=lambda _: stop.set())
    assert summary.interrupted
    assert summary.files == 12
    assert 1 <= summary.files_read <= 3
    assert f"from {summary.files_read} of 12 files\n" in in_words(summary)


def test_the_seconds_of_phases_are_busy_seconds(pipeline: Any) -> None:
    """All phases are measured; none is longer than the run (three run on threads of their own)."""
    logs.write(LOG, Path("in/a.parquet"))
    began = time.perf_counter()
    summary = pipeline().run()
    took = time.perf_counter() - began
    assert tuple(summary.seconds_by_phase) == PHASES
    assert all(0 < seconds < took for seconds in summary.seconds_by_phase.values())
    assert set(json.loads(json.dumps(summary.as_dict()))["seconds_by_phase"]) == set(PHASES)


def test_a_stopwatch_counts_calls_and_not_what_the_caller_does_between() -> None:
    """An iteration counts the time of the iterator only, also if it raises."""
    seconds: dict[str, float] = {}
    watch = Stopwatch(seconds)

    def items() -> Any:
        time.sleep(0.02)
        yield 1
        time.sleep(0.02)
        raise ValueError("no more")

    counted = watch.each("read", items())
    assert next(counted) == 1
    time.sleep(0.2)
    with pytest.raises(ValueError, match="no more"):
        next(counted)
    assert 0.04 <= seconds["read"] < 0.2
    assert watch.timed("score", lambda: 3) == 3
    assert seconds["write"] == 0


def test_measuring_costs_less_than_one_percent() -> None:
    """Ten measurements per record batch, whose scoring takes milliseconds."""
    watch = Stopwatch({})
    began = time.process_time()
    for _ in range(10_000):
        watch.timed("read", int)
    assert (time.process_time() - began) / 10_000 * 10 < 0.01 * 2e-3


@pytest.mark.parametrize("late", ["drop", "reject"])
def test_a_late_row_is_shown_with_the_row_that_made_it_late(pipeline: Any, late: str) -> None:
    """One row that is ahead of its stream makes all after it late, until its time has come."""
    times = [0, 1, 9, 2, 3, 4, 9, 10]
    rows = {"id": ["s"] * 8, "t": times, "a": [0.0] * 8, "b": [0.0] * 8}
    logs.write(pa.table(rows), Path("in/1.parquet"))
    summary = pipeline(source={"late": late, "batch_rows": 5}).run()
    assert (summary.rejected, summary.dropped_late) == ((3, 0) if late == "reject" else (0, 3))
    note = (
        "the first late row is in/1.parquet: row 3 (from 0): stream id='s': t 2 is before 9, the "
        "last time of this stream, set by in/1.parquet: row 2 (from 0)"
    )
    assert f"note     {note}\n" in in_words(summary) + "\n"
    logs.write(pa.table(rows).slice(3, 1), Path("in/2.parquet"))
    assert "set by an earlier batch or run" in in_words(pipeline(source={"late": late}).run())
