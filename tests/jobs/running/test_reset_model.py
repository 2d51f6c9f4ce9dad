"""`--new-model`: its values, and reset: every stream starts again, but late rows are still late."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command

from streamrnn import Pipeline
from streamrnn.errors import ConfigError, StateError
from streamrnn.outputs import read_states

LOG = logs.random_log(400, streams=60, nulls=0.15)
DAYS = (LOG.slice(0, 170), LOG.slice(170))
WAYS = "\n  carry: each stream keeps its state"
SOURCE = {"nulls": "previous", "late": "drop"}


@pytest.fixture
def base(workdir: Path) -> Path:
    """Two models, the second one with other layers; and two days, the first of them in `in`."""
    logs.small_model().save("m1.safetensors")
    logs.small_model("LSTM", units=7).save("m2.safetensors")
    logs.write(DAYS[0], Path("in/0.parquet"))
    return workdir


def _run(weights: str, out: str = "out", path: str = "in", **options: Any) -> Any:
    config = logs.config(path, f"{weights}.safetensors", out, **options.pop("tables", {}))
    config["source"] |= SOURCE
    return Pipeline.from_dict(config).run(**options)


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"output": {"warmup": 3}},
        {"output": {"emit": "last", "last_of": 4}},
        {"output": {"emit": "final"}},
        {"window": {"kind": "independent", "steps": 6, "stride": 4}},
    ],
    ids=str,
)
def test_every_stream_starts_again(base: Path, tables: dict[str, Any]) -> None:
    """Rows, steps and states are those of the new model over the second day alone."""
    _run("m1", tables=tables)
    before = read_states("out")
    rows = pq.read_table("out").num_rows
    logs.write(DAYS[1], Path("in/1.parquet"))
    summary = _run("m2", tables=tables, new_model="reset")
    assert any("start again with model" in note for note in summary.state_notes)
    logs.write(DAYS[1], Path("alone/1.parquet"))
    _run("m2", "expected", "alone", tables=tables)
    assert pq.read_table("out").slice(rows).equals(pq.read_table("expected"))
    after, expected = read_states("out"), read_states("expected")
    assert set(before["id"].to_pylist()) - set(expected["id"].to_pylist())  # some have no new row
    found = {row["id"]: row for row in after.to_pylist()}
    for row in expected.to_pylist():
        assert found.pop(row["id"]) == row
    times = dict(zip(before["id"].to_pylist(), before["last_time"].to_pylist(), strict=True))
    for name, row in found.items():
        assert row["steps"] == 0
        assert row["last_time"] == times[name]
        assert not any(np.ravel(value or 0).any() for key, value in row.items() if "/" in key)


def test_a_late_row_is_still_late(base: Path) -> None:
    _run("m1")
    logs.write(pa.concat_tables([DAYS[0].slice(5, 1), DAYS[1]]), Path("in/1.parquet"))
    assert _run("m2", new_model="reset").dropped_late == 1


def test_the_pipeline_file_and_a_new_output_say_reset_too(base: Path) -> None:
    """A first run whose [state] init is another model's: its last times are taken over."""
    _run("m1")
    logs.write(DAYS[1], Path("in/1.parquet"))
    reset = {"model": {"on_change": "reset"}}
    assert _run("m2", "two", tables={**reset, "state": {"init": "out"}}).rows == len(DAYS[1])
    assert _run("m2", tables=reset).rows == len(DAYS[1])
    assert read_states("two").equals(read_states("out"))
    assert pq.read_table("two").equals(pq.read_table("out").slice(len(DAYS[0])))


def test_a_checkpoint_is_resumed_with_a_reset(base: Path) -> None:
    config = logs.config("in", "m1.safetensors", None, source={"nulls": 0.0})
    job = Pipeline.from_dict(config)
    job.process(DAYS[0])
    job.checkpoint("c.arrow")
    resumed = Pipeline.resume("c.arrow", "m2.safetensors", on_change="reset")
    scored = resumed.process(DAYS[1])
    config["model"]["path"] = "m2.safetensors"
    fresh = Pipeline.from_dict(config)
    assert scored.equals(fresh.process(DAYS[1]))
    with pytest.raises(StateError, match="another model"):
        Pipeline.resume("c.arrow", "m2.safetensors")


@pytest.mark.parametrize("value", [True, False, "keep", ""])
def test_a_value_that_is_no_way_is_refused_with_all_of_them(base: Path, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"new_model: expected .*, received") as caught:
        _run("m1", new_model=value)
    assert WAYS in str(caught.value)


@pytest.mark.parametrize("words", [[], ["--set", "sink.path=out"], ["keep"]], ids=str)
def test_the_flag_needs_a_value(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error, also where it is the last word."""
    code, _, error = run_command(capsys, "run", "p.toml", "--new-model", *words)
    assert (code, WAYS in error) == (2, True)
