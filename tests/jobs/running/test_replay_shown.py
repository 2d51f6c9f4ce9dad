"""Where a replay is shown, and what else a run does around it."""

import io
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import swaps
from command_line import run_command
from swaps import DAYS, REPLAY, config, day, run

from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.outputs import import_state, read_states
from streamrnn.stream.checkpoints import read_manifest

ON_CHANGE = {"on_change": "replay"}


@pytest.fixture
def base(workdir: Path) -> Path:
    swaps.make()
    run("old")
    day(3)
    return workdir


def _same_from(row: int, out: str, path: str = "in") -> None:
    """From a row on, an output is that of the new model over the whole log."""
    run("new", "whole", path)
    found, whole = pq.read_table(out), pq.read_table("whole")
    assert found.slice(row).equals(whole.slice(row))
    assert read_states(out).equals(read_states("whole"))


def test_explain_and_validate_show_what_is_read(base: Path) -> None:
    pipeline = Pipeline.from_dict(config("new", model=ON_CHANGE))
    replay = {"range": "all earlier rows", "files": 3, "rows_at_most": 450}
    assert pipeline.explain()["replay"] == replay
    assert "the new model replays all earlier rows: at most 450 rows" in pipeline.validate()
    range_ = {**ON_CHANGE, "replay": "1h"}
    plan = Pipeline.from_dict(config("new", model=range_)).explain()["replay"]
    assert plan["range"].startswith("the rows since 2024-01-01 ")
    assert plan["files"] < 3
    assert "replay" not in Pipeline.from_dict(config("old", model=ON_CHANGE)).explain()
    Path("in/0.parquet").unlink()
    messages = [Pipeline.from_dict(config("new", model=ON_CHANGE)).explain()["would_refuse"]]
    for verb in ("validate", "run"):
        with pytest.raises(CheckpointError) as caught:
            getattr(Pipeline.from_dict(config("new", model=ON_CHANGE)), verb)()
        messages.append(str(caught.value))
    assert messages[0] == messages[1] == messages[2]
    assert "1 used file of out with rows to read is not in the source" in messages[0]


def test_the_command_line_shows_it(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
nulls = "previous"
late = "drop"
bad = "reject"
reset = "new"
max_gap = "2h"
[window]
kind = "carry"
[model]
path = "new.safetensors"
on_change = "replay"
[sink]
path = "out"
"""
    Path("p.toml").write_text(text)
    for arguments, words in (
        (
            ["explain", "p.toml"],
            "all earlier rows: at most 450 rows of 3 files, into the states of",
        ),
        (["run", "p.toml"], "450 rows replayed (all earlier rows)"),
    ):
        code, out, _ = run_command(capsys, *arguments)
        assert (code, words in out) == (0, True)


def test_metrics_and_the_summary_count_it_also_when_it_is_stopped(base: Path) -> None:
    stop = threading.Event()

    def first(_: Any) -> None:
        stop.set()

    options = {**REPLAY, "metrics": "m.prom", "progress": first, "stop": stop}
    summary = run("new", options=options)
    assert "Interrupted in the replay, after 50 rows; rerun the same command" in in_words(summary)
    assert _metric("replayed_rows") == 50
    assert _metric("last_run_exit_code") == 130
    summary = run("new", options={**REPLAY, "metrics": "m.prom"})
    assert _metric("replayed_rows") == 450
    assert _metric("rows_written_total") == len(pq.read_table("out"))
    assert summary.as_dict()["replayed"] == 450
    assert summary.replay_fresh_streams == 0
    assert "replay" in summary.seconds_by_phase


def _metric(name: str) -> float:
    lines = Path("m.prom").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"streamrnn_{name}{{"))
    return float(line.rpartition(" ")[2])


def test_without_a_new_row_nothing_is_replayed(base: Path) -> None:
    Path("in/3.parquet").unlink()
    summary = run("new", options=REPLAY)
    assert summary.nothing_new
    assert summary.replayed == 0


def test_a_reload_replays_the_rows_before_the_file_that_changed(base: Path) -> None:
    """Across models; and one that is refused leaves the output as it is."""
    for number in range(3):
        day(number, "days")
        run("old", "daily", "days")
    logs.write(DAYS[1].slice(7), Path("days/1.parquet"))
    with pytest.raises(CheckpointError, match="--reload --new-model replay, carry or reset"):
        run("new", "daily", "days", options={"reload": True})
    before = read_manifest("daily").commit
    Path("days/0.parquet").rename("0.parquet")
    with pytest.raises(CheckpointError, match="replay: 1 used file"):
        run("new", "daily", "days", options={"reload": True, **REPLAY})
    assert read_manifest("daily").commit == before
    Path("0.parquet").rename("days/0.parquet")
    summary = run("new", "daily", "days", options={"reload": True, **REPLAY})
    assert (summary.replayed, summary.rows) == (150, 293)
    _same_from(150, "daily", "days")


def test_a_run_that_was_stopped_within_a_file_is_taken_over_there(base: Path) -> None:
    """The new model replays the first rows of the file, and scores the others."""
    stop = threading.Event()
    seen = []

    def within(now: Any) -> None:
        seen.append(now.rows)
        if now.rows >= 60:
            stop.set()

    run("old", options={"progress": within, "stop": stop})
    assert read_manifest("out").position is not None
    before = len(pq.read_table("out"))
    summary = run("new", options=REPLAY)
    assert summary.replayed == 600 - summary.rows
    assert summary.replayed > 450
    _same_from(before, "out")


def test_a_folder_that_was_moved_with_its_source_replays_it(base: Path) -> None:
    Path("moved").mkdir()
    for name in ("in", "out"):
        Path(name).rename(f"moved/{name}")
    before = len(pq.read_table("moved/out"))
    assert run("new", "moved/out", "moved/in", options=REPLAY).replayed == 450
    _same_from(before, "moved/out", "moved/in")


def test_rows_of_process_cannot_be_replayed(base: Path) -> None:
    job = Pipeline.from_dict(config("old"), state="output")
    job.process(DAYS[3], position="3")
    job.checkpoint("c.arrow")
    import_state("c.arrow", "out")
    with pytest.raises(CheckpointError, match="rows that `process` scored"):
        run("new", options=REPLAY)


def _piped(monkeypatch: pytest.MonkeyPatch, table: pa.Table) -> None:
    data = io.BytesIO()
    with pa.ipc.new_stream(data, table.schema) as writer:
        writer.write_table(table)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data.getvalue())))


def test_rows_of_a_pipe_cannot_be_replayed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither into a pipe, nor from files after one, though late rows were dropped since."""
    _piped(monkeypatch, DAYS[3])
    with pytest.raises(ConfigError, match="replay: a pipe cannot be read again"):
        run("new", path="-", options=REPLAY)
    _piped(monkeypatch, DAYS[0].slice(0, 3))
    drop = {"source": {"late": "drop"}}
    run("old", "mixed", "-", **drop)
    day(1, "rest")
    assert run("old", "mixed", "rest", **drop).dropped_late > 3
    day(2, "rest")
    with pytest.raises(CheckpointError, match="replay: mixed has 3 rows that are in none"):
        run("new", "mixed", "rest", options=REPLAY, **drop)
    run("new", "mixed", "rest", options={"new_model": "reset"}, **drop)
    day(3, "rest")
    with pytest.raises(CheckpointError, match="replay: mixed has 3 rows that are in none"):
        run("old", "mixed", "rest", options=REPLAY, **drop)
