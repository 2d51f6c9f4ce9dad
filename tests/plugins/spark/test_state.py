"""The state between Spark jobs and local runs, and states that are refused before a job."""

from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="needs the engines extra")
from plugins.spark import sessions

from streamrnn import Pipeline, StateTable
from streamrnn.errors import ConfigError, StateError
from streamrnn.outputs import export_state
from streamrnn.spark import score, state_from_arrow, state_to_arrow
from streamrnn.states import write_state_file

pytestmark = pytest.mark.filterwarnings(sessions.PANDAS)
POLICY = {"nulls": "previous", "max_gap": "40m", "reset": "new"}


def _pipeline(base: Path, out: str, part: str, **more: Any) -> Pipeline:
    return sessions.pipeline(base, out, source={**POLICY, "path": part}, **more)


def test_spark_and_local_runs_hand_the_state_to_one_another(spark: Any, tmp_path: Path) -> None:
    """Spark, local, Spark, by files on the way, beside one local run."""
    log = logs.random_log(600, nulls=0.05, resets=0.03)
    parts = sessions.write_days(log, tmp_path / "log")
    whole = sessions.pipeline(tmp_path, "whole", source=POLICY)
    whole.run()
    pipeline = _pipeline(tmp_path, "unused", parts[0])
    first = score(spark.read.parquet(parts[0]), pipeline, order=sessions.ORDER)
    first.state.write.parquet(str(tmp_path / "state"))
    table = state_to_arrow(spark.read.parquet(str(tmp_path / "state")))
    write_state_file(table, str(tmp_path / "state.arrow"))
    second = _pipeline(tmp_path, "second", parts[1], state={"init": str(tmp_path / "state.arrow")})
    second.run()
    export_state(str(tmp_path / "second"), str(tmp_path / "second.parquet"))
    third = score(
        spark.read.parquet(parts[2]), pipeline, pq.read_table(tmp_path / "second.parquet"), ["t"]
    )
    found = third.rows.toArrow()
    rows = [first.rows.toArrow(), pq.read_table(tmp_path / "second").cast(found.schema), found]
    expected = pq.read_table(tmp_path / "whole").cast(found.schema)
    assert sessions.by_stream(pa.concat_tables(rows)).equals(sessions.by_stream(expected))
    state = state_to_arrow(third.state).sort_by("id")
    assert state.equals(whole.state.to_arrow().sort_by("id"))
    again = state_to_arrow(state_from_arrow(spark, StateTable.from_arrow(state)))
    assert again.equals(state, check_metadata=True)


def test_a_state_that_the_pipeline_names_is_where_a_first_job_starts(
    spark: Any, tmp_path: Path
) -> None:
    """[state] init, and `state=` of a Pipeline; a worker needs neither."""
    parts = sessions.write_days(logs.random_log(300), tmp_path / "log", 2)
    whole = sessions.pipeline(tmp_path, "whole")
    whole.run()
    first = sessions.pipeline(tmp_path, "first", source={"path": parts[0]})
    first.run()
    config = first.config.model_dump(exclude_unset=True)
    second = Pipeline.from_dict(config, state=first.state)
    result = score(spark.read.parquet(parts[1]), second, order=sessions.ORDER)
    expected = whole.state.to_arrow().sort_by("id")
    assert state_to_arrow(result.state).sort_by("id").equals(expected)


def test_another_model_takes_a_state_over_if_the_pipeline_says_so(
    spark: Any, tmp_path: Path
) -> None:
    """[model] on_change = "carry" or "reset", as in a local run; without it, and for "replay",
    which reads files again, the driver refuses."""
    (path,) = sessions.write_days(logs.random_log(100), tmp_path / "log", 1)
    before = sessions.pipeline(tmp_path, "out")
    before.run()
    other = logs.small_model("LSTM")
    other.set_weights([w * 2 for w in other.get_weights()])
    other.save(tmp_path / "other.safetensors")
    state = state_from_arrow(spark, before.state)
    model = {"path": str(tmp_path / "other.safetensors")}
    frame = spark.read.parquet(path).limit(0)
    with pytest.raises(StateError, match="the state DataFrame: this is the state of another model"):
        score(frame, sessions.pipeline(tmp_path, model=model), state, ["t"])
    carrying = sessions.pipeline(tmp_path, model={**model, "on_change": "carry"})
    table = state_to_arrow(score(frame, carrying, state, ["t"]).state)
    old, new = before.state.to_arrow(), table.sort_by("id")
    assert new.equals(old.sort_by("id"))  # but for the fingerprint
    assert new.schema.metadata != old.schema.metadata
    again = sessions.pipeline(tmp_path, model={**model, "on_change": "reset"})
    table = state_to_arrow(score(frame, again, state, ["t"]).state).sort_by("id")
    assert set(table["steps"].to_pylist()) == {0}
    assert table["last_time"].equals(old.sort_by("id")["last_time"])
    replaying = sessions.pipeline(tmp_path, model={**model, "on_change": "replay"})
    with pytest.raises(ConfigError, match=r'on_change = "replay": only a run reads the rows'):
        score(frame, replaying, state, ["t"])


def test_states_that_do_not_fit_are_refused_by_the_driver(spark: Any, tmp_path: Path) -> None:
    """Without a job: by their schema."""
    (path,) = sessions.write_days(logs.random_log(100), tmp_path / "log", 1)
    pipeline = sessions.pipeline(tmp_path, "out")
    pipeline.run()
    frame = spark.read.parquet(path)
    state = state_from_arrow(spark, pipeline.state)
    before = sessions.jobs(spark)
    cases = [
        (state.drop("rnn/h"), "column 'rnn/h' not found. Available columns: id, steps"),
        (frame, "the state DataFrame: not a state: .* Columns: id, t, a, b, new"),
        (state.withColumn("steps", state["steps"] + 1), "no column `steps` with a schema"),
    ]
    for wrong, text in cases:
        with pytest.raises(StateError, match=text):
            score(frame, pipeline, wrong, ["t"])
    table = pipeline.state.to_arrow()
    words = table.set_column(0, "id", pa.array(range(len(table))))
    words = words.replace_schema_metadata(table.schema.metadata)
    with pytest.raises(StateError, match="column 'id': expected string, received int64"):
        score(frame, pipeline, words, ["t"])
    assert sessions.jobs(spark) == before
