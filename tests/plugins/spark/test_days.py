"""Days scored in Spark, the state handed on, beside a local run: the same bits."""

from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="needs the engines extra")
from plugins.spark import sessions

from streamrnn.errors import ConfigError, DataError, DTypeError, StateError
from streamrnn.spark import score, state_to_arrow, worker_errors

pytestmark = pytest.mark.filterwarnings(sessions.PANDAS)

POLICY = {"nulls": "previous", "reset": "new", "max_gap": "40m", "bad": "reject"}
COUNTS = ("rows", "rows_out", "rejected", "dropped_late", "repeated", "filled", "fresh_starts")
LIMITS = [{"name": "a", "valid": [-2, 2], "clip": [-1, 1]}, "b"]
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "all": {
        "source": {**POLICY, "late": "reject", "repeated": "reject", "features": LIMITS},
        "output": {"warmup": 2, "model_column": "model"},
    },
    "last": {
        "source": {"nulls": "skip", "late": "drop", "repeated": "skip"},
        "output": {"emit": "last", "last_of": 3},
    },
    "applied": {"source": {**POLICY, "late": "apply"}, "window": {"lanes": 2, "steps": 3}},
    "final": {"source": {**POLICY, "late": "drop"}, "output": {"emit": "final", "warmup": 1}},
    "independent": {
        "source": {**POLICY, "late": "reject"},
        "window": {"kind": "independent", "steps": 6, "stride": 2},
    },
    "idle": {"source": {**POLICY, "late": "drop"}, "state": {"idle": "50m"}},
}


@pytest.mark.parametrize("name", CASES)
def test_days_give_the_bits_of_a_local_run(name: str, spark: Any, tmp_path: Path) -> None:
    """Rows by stream, rejects with their places, and the state with its schema; every day ends a
    run of the other side too, as it writes the final rows."""
    log = logs.random_log(900, nulls=0.05, resets=0.03, jitter=4)
    tables = {**CASES[name], "source": {**CASES[name]["source"], "batch_rows": 64}}
    pipeline = sessions.pipeline(tmp_path, "out", **tables)
    state, rows, rejects, streams, dropped = None, [], [], 0, 0
    if name == "idle":  # streams that come and go
        ids = [f"{row['id']}-{number // 100}" for number, row in enumerate(log.to_pylist())]
        log = log.set_column(0, "id", pa.array(ids))
    days = sessions.write_days(log, tmp_path / "all", 3 if name in ("all", "idle") else 2)
    for day, part in enumerate(days):
        path = logs.write(pq.read_table(part), tmp_path / "log" / f"{day}.parquet")
        local = pipeline.run()
        result = score(spark.read.parquet(path), pipeline, state, sessions.ORDER)
        summary = result.summary()
        for count in COUNTS:
            assert getattr(summary, count) == getattr(local, count), count
        assert _first(summary.first_repeated) == _first(local.first_repeated)
        if name != "idle":  # each partition drops by its newest time
            assert (summary.streams, summary.new_streams) == (local.streams, local.new_streams)
        left = summary.new_streams - summary.dropped_streams
        streams, dropped = streams + left, dropped + summary.dropped_streams
        assert summary.streams == streams
        rows.append(result.rows.toArrow())
        rejects.append(result.rejects.toArrow())
        state = result.state
    found, expected = pa.concat_tables(rows), pq.read_table(tmp_path / "out")
    assert found.schema.names == expected.schema.names
    expected = sessions.by_stream(expected.cast(found.schema))
    assert sessions.by_stream(found).equals(expected)
    utc = pa.concat_tables(rejects).cast(_in_utc(rejects[0].schema))
    assert sessions.rejected(utc) == sessions.local_rejects(tmp_path, "out")
    table, whole = state_to_arrow(state).sort_by("id"), pipeline.state.to_arrow().sort_by("id")
    both = set(table["id"].to_pylist()) & set(whole["id"].to_pylist())
    assert len(both) == len(whole) or name == "idle"
    assert (dropped > 0) == (name == "idle")
    table, whole = (t.filter(pc.is_in(t["id"], pa.array(both))) for t in (table, whole))
    assert table.equals(whole, check_metadata=True)
    assert len(expected) > 15
    assert name != "all" or len(sessions.local_rejects(tmp_path, "out")) > 15


def _first(text: str | None) -> str | None:
    """The row and its stream: Spark has other paths."""
    return text and text.partition(".parquet: ")[2].partition(": t ")[0]


def _in_utc(schema: pa.Schema) -> pa.Schema:
    kind = pa.timestamp("us", "UTC")
    return pa.schema([f.with_type(kind) if pa.types.is_timestamp(f.type) else f for f in schema])


def test_the_days_of_one_run_are_the_days_of_spark(spark: Any, tmp_path: Path) -> None:
    """Three days in Spark, one run over all of them, and more partitions than streams."""
    log = logs.random_log(600, streams=5, nulls=0.05, resets=0.03)
    pipeline = sessions.pipeline(tmp_path, "out", source=POLICY)
    state, rows = None, []
    for path in sessions.write_days(log, tmp_path / "log"):
        frame = spark.read.parquet(path)
        result = score(frame, pipeline, state, sessions.ORDER, partitions=9)
        rows.append(result.rows.toArrow())
        state = result.state
    pipeline.run()
    found = pa.concat_tables(rows)
    expected = pq.read_table(tmp_path / "out").cast(found.schema)
    assert sessions.by_stream(found).equals(sessions.by_stream(expected))
    expected_state = pipeline.state.to_arrow().sort_by("id")
    assert state_to_arrow(state).sort_by("id").equals(expected_state)


def test_a_stream_as_one_sequence(spark: Any, tmp_path: Path) -> None:
    """Kind whole; and its refusal of a stream that was scored before."""
    (path,) = sessions.write_days(logs.random_log(300, resets=0.05), tmp_path / "log", 1)
    tables = {"source": {"reset": "new", "late": "apply"}, "window": {"kind": "whole", "steps": 8}}
    pipeline = sessions.pipeline(tmp_path, "out", **tables)
    pipeline.run()
    frame = spark.read.parquet(path)
    result = score(frame, pipeline, order=sessions.ORDER)
    found = result.rows.toArrow()
    expected = pq.read_table(tmp_path / "out").cast(found.schema)
    assert sessions.by_stream(found).equals(sessions.by_stream(expected))
    again = score(frame, pipeline, result.state, sessions.ORDER)
    with worker_errors(), pytest.raises(DataError, match="was scored by an earlier run"):
        again.summary()


def test_hours_are_those_of_the_zone_that_is_named(spark: Any, tmp_path: Path) -> None:
    """Spark keeps instants only, and a local run finds the zone in the file."""
    zone = "Asia/Kolkata"
    log = logs.random_log(200)
    kind = pa.timestamp("us", zone)
    log = log.set_column(1, pa.field("t", kind), log.column("t").cast(kind))
    logs.small_model("LSTM", features=4).save(tmp_path / "m.safetensors")
    pipeline = sessions.pipeline(tmp_path, "out", source={"time_features": ["hour"]})
    path = logs.write(log, tmp_path / "log" / "0.parquet")
    pipeline.run()
    frame = spark.read.parquet(path)
    result = score(frame, pipeline, order=["t"], zone=zone)
    found = result.rows.toArrow()
    expected = pq.read_table(tmp_path / "out").cast(found.schema)
    assert sessions.by_stream(found).equals(sessions.by_stream(expected))
    state = state_to_arrow(result.state).sort_by("id")
    assert state.equals(pipeline.state.to_arrow().sort_by("id"))
    with pytest.raises(StateError, match=r"last_time.*tz=UTC\], received .*tz=Asia/Kolkata\]"):
        score(frame, pipeline, result.state, order=["t"])
    with pytest.raises(DTypeError, match="expected a time zone in the time zone database"):
        score(frame, pipeline, order=["t"], zone="Mars/Olympus")


def test_the_zone_of_the_pipeline_file_is_that_of_spark(spark: Any, tmp_path: Path) -> None:
    """Rows and states are those of a local run on times in UTC; another zone is refused."""
    log = logs.random_log(200)
    logs.small_model("LSTM", features=4).save(tmp_path / "m.safetensors")
    keys = {"time_features": ["hour"], "time_zone": "Asia/Kolkata"}
    pipeline = sessions.pipeline(tmp_path, "out", source=keys)
    path = logs.write(log, tmp_path / "log" / "0.parquet")
    pipeline.run()
    frame = spark.read.parquet(path)
    result = score(frame, pipeline, order=["t"])
    found = result.rows.toArrow()
    expected = pq.read_table(tmp_path / "out").cast(found.schema)
    assert sessions.by_stream(found).equals(sessions.by_stream(expected))
    state = state_to_arrow(result.state).sort_by("id")
    assert state.equals(pipeline.state.to_arrow().sort_by("id"))
    named = score(frame, pipeline, order=["t"], zone="Asia/Kolkata").rows.toArrow()
    assert sessions.by_stream(named).equals(sessions.by_stream(expected))
    with pytest.raises(ConfigError, match=r"zone='UTC' and \[source\] time_zone = 'Asia/Kolkata'"):
        score(frame, pipeline, order=["t"], zone="UTC")
