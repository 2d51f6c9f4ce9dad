"""[state] idle: a stream that was silent for longer starts again, whether it was dropped or not.

`STREAMRNN_IDLE=200 pytest -n 0 tests/jobs/running/test_idle.py` cuts as many logs; by default 4.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path
from typing import Any

import logs
import naive
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rowwise
from command_line import run_command
from jobs.engines.in_process import TasksHere
from jobs.engines.same import rows
from selection import slow

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DTypeError
from streamrnn.jobs.engines import opening
from streamrnn.models import load_model
from streamrnn.outputs import history, read_states, rewind, verify
from streamrnn.stream.checkpoints import versions
from streamrnn.stream.states import table as table_module

LOGS = int(os.environ.get("STREAMRNN_IDLE", "4"))
MINUTE = 60_000_000
IDLE = 40
RULES = {"nulls": "previous", "reset": "new", "late": "drop"}
START = np.datetime64("2024-01-01T00:00", "us").astype(np.int64)


@pytest.fixture(autouse=True)
def base(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model; tiny states are written as changes too, and even one idle stream is dropped."""
    monkeypatch.setattr(versions, "SMALL", 0)
    monkeypatch.setattr(table_module, "_IDLE_SHARE", 0)
    logs.small_model(units=4).save("m.safetensors")


def log(count: int = 500, seed: int = 7, *, jitter: int = 5) -> pa.Table:
    """Streams come, are silent for less or more than `IDLE`, come again, and go."""
    rng = np.random.default_rng(seed)
    minutes = np.cumsum(rng.integers(1, 4, count))
    old = rng.random(count) < 0.05
    ids = minutes // 30 + rng.integers(0, 4, count)
    ids = np.where(old, rng.integers(0, ids + 1), ids)
    minutes = minutes - rng.integers(0, jitter + 1, count)
    return pa.table(
        [
            pa.array([f"s{i}" for i in ids]),
            pa.array(START + minutes * MINUTE).cast(logs.SCHEMA.field("t").type),
            pa.array(rng.normal(size=count), mask=rng.random(count) < 0.1),
            pa.array(rng.integers(-3, 4, count).astype(np.int32), mask=rng.random(count) < 0.1),
            pa.array(rng.random(count) < 0.03),
        ],
        schema=logs.SCHEMA,
    )


def config(out: str | None, path: str = "in", **tables: Any) -> dict[str, Any]:
    source = {**RULES, **tables.pop("source", {})}
    state = {"idle": f"{IDLE}m", **tables.pop("state", {})}
    return logs.config(path, "m.safetensors", out, source=source, state=state, **tables)


def run(out: str, path: str = "in", **tables: Any) -> Any:
    return Pipeline.from_dict(config(out, path, **tables)).run()


def in_one_piece(table: pa.Table, **tables: Any) -> tuple[pa.Table, pa.Table]:
    """Rows and states of one run with one commit, which drops no stream."""
    out = f"whole-{len(table)}"
    logs.write(table, Path(f"{out}-in/0.parquet"))
    summary = run(out, f"{out}-in", **tables, checkpoint={"every": 10**6})
    assert summary.dropped_streams == 0
    return rows(out), read_states(out)


def assert_states(found: pa.Table, expected: pa.Table) -> int:
    """Those that are left are as expected, the others were idle; return how many are gone."""
    wanted = {row["id"]: row for row in expected.to_pylist()}
    for row in found.to_pylist():
        assert row == wanted.pop(row["id"])
    newest = pc.max(expected["last_time"]).as_py()
    for row in wanted.values():
        assert (newest - row["last_time"]).total_seconds() > 2 * IDLE * 60
    return len(wanted)


def test_values_are_those_of_the_oracle_which_forgets_idle_streams() -> None:
    table = log()
    logs.write(table, Path("in/0.parquet"))
    summary = run("out", source={"batch_rows": 30}, checkpoint={"every": 1})
    assert summary.dropped_streams > 20
    assert summary.streams + summary.dropped_streams == summary.new_streams
    columns = [rowwise.Column(name, "previous") for name in ("a", "b")]
    settings = rowwise.Settings(columns, late="drop", idle=IDLE * MINUTE)
    given = table.set_column(1, "t", table["t"].cast(pa.int64())).to_pylist()
    *gru, kernel, bias = logs.small_model(units=4).get_weights()
    model = rowwise.Model(naive.gru(*gru), kernel, bias)
    expected = rowwise.score(given, model, settings, {})
    found = pq.read_table("out")["score"].to_pylist()
    assert [value is None for value in found] == [y is None for _, y, _ in expected]
    pairs = [(value, y[0]) for value, (_, y, _) in zip(found, expected, strict=True) if y]
    np.testing.assert_allclose(*np.transpose(pairs), rtol=0, atol=1e-5)


def _cut_anywhere(seed: int) -> int:
    """Runs, sessions, shards, commits, calls of `process`; return how many streams were dropped."""
    rng = random.Random(seed)
    table = log(rng.randint(200, 500), seed)
    windows: list[dict[str, Any]] = [
        {"output": {"warmup": 2}},
        {"output": {"emit": "last", "last_of": 3}},
        {"window": {"kind": "independent", "steps": 5, "stride": 2}},
    ]
    kind: dict[str, Any] = rng.choice(windows)
    kind = {**kind, "source": {"late": rng.choice(["drop", "apply", "reject"])}}
    if rng.random() < 0.3:
        kind["source"]["max_gap"] = rng.choice(["20m", "3h"])
    expected, states = in_one_piece(table, **kind)
    edges = [0, *sorted(rng.sample(range(1, len(table)), 3)), len(table)]
    pipeline, parts = Pipeline.from_dict(_of_calls(kind)), []
    for number, (first, stop) in enumerate(itertools.pairwise(edges)):
        day = table.slice(first, stop - first)
        engine = {"type": rng.choice(["local", "ray"]), "shards": rng.choice([1, 3])}
        tables = {**kind, "engine": {**engine, "epoch_rows": rng.choice([40, 200])}}
        tables["source"] = {**kind["source"], "batch_rows": rng.choice([7, 40, 1000])}
        tables["checkpoint"] = {"every": rng.choice([1, 3])}
        size = rng.choice([1, 9, 1000])
        pieces = [day.slice(start, size).combine_chunks() for start in range(0, len(day), size)]
        if rng.random() < 0.3:
            with Pipeline.from_dict(config("out", **tables)).session() as session:
                for piece in pieces:
                    session.process(piece)
                    if rng.random() < 0.2:
                        session.commit()
        else:
            logs.write(day, Path(f"in/{number}.parquet"), row_group=rng.choice([15, 50]))
            assert run("out", **tables).started_behind == 0
        parts += [pipeline.process(piece) for piece in pieces]
        if rng.random() < 0.7:
            pipeline.checkpoint("checkpoint.arrow")
        if rng.random() < 0.3:
            pipeline.checkpoint("checkpoint.arrow")
            pipeline = Pipeline.resume("checkpoint.arrow")
    assert rows("out") == expected, seed
    dropped = assert_states(read_states("out"), states)
    pq.write_table(pa.concat_tables(parts), "calls.parquet")
    assert rows("calls.parquet") == expected, seed
    assert_states(pipeline.state.to_arrow(), states)
    verify("out")
    return dropped


def _of_calls(kind: dict[str, Any]) -> dict[str, Any]:
    data = config(None, "unused", **kind)
    del data["source"]["path"]
    return data


def test_where_work_is_cut_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = random.SystemRandom().randrange(10**6)
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(first))
    dropped = 0
    for number in range(LOGS):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        Path("m.safetensors").symlink_to(tmp_path / "m.safetensors")
        dropped += _cut_anywhere(first + number)
    assert dropped > LOGS


def test_a_final_row_is_written_though_its_stream_is_idle() -> None:
    """Streams stay while final rows are held; at its end the next run drops them."""
    table = log(900)
    output = {"output": {"emit": "final"}}
    expected, _ = in_one_piece(table.slice(0, 500), **output)
    tables = {**output, "source": {"batch_rows": 30}, "checkpoint": {"every": 1}}
    logs.write(table.slice(0, 500), Path("in/0.parquet"))
    assert run("out", **tables).dropped_streams == 0
    assert rows("out") == expected
    logs.write(table.slice(500), Path("in/1.parquet"))
    assert run("out", **tables).dropped_streams > 20
    _, states = in_one_piece(table)
    assert assert_states(read_states("out").drop("pending"), states) > 20


def test_rewind_and_another_model_pass_over_commits_that_dropped() -> None:
    """Back to a commit with streams that later ones dropped, and on again; then a replay."""
    whole = log(800)
    table = whole.slice(0, 600)
    expected, _ = in_one_piece(table)
    tables = {"source": {"batch_rows": 30}, "checkpoint": {"every": 1}}
    streams = []
    for day in range(3):
        logs.write(table.slice(day * 200, 200), Path(f"in/{day}.parquet"), row_group=30)
        streams.append({*read_states("out")["id"].to_pylist()} if day else set())
        assert run("out", **tables).dropped_streams > 5
    state = read_states("out")
    assert streams[1] - {*state["id"].to_pylist()}
    rewind("out", history("out")[0].commit)
    assert {*read_states("out")["id"].to_pylist()} == streams[1]
    run("out", **tables)
    assert rows("out") == expected
    assert read_states("out") == state
    other = logs.small_model("LSTM", units=3)
    other.save("m.safetensors")
    logs.write(whole.slice(600), Path("in/3.parquet"), row_group=30)
    data = config("out", **tables)
    Pipeline.from_dict(data).run(new_model="replay")
    logs.write(whole, Path("other-in/0.parquet"))
    run("other", "other-in", checkpoint={"every": 10**6})
    last = pc.field("t") > pc.max(table["t"])
    assert rows("out").filter(last) == rows("other").filter(last)
    assert assert_states(read_states("out"), read_states("other")) > 20
    verify("out")


def test_streams_that_a_replay_dropped_are_not_without_a_row() -> None:
    """Also where no commit before it has dropped them."""
    table = log()
    in_one_piece(table.slice(0, 300))
    logs.small_model("LSTM", units=3).save("m.safetensors")
    logs.write(table.slice(300), Path("whole-300-in/1.parquet"))
    cut = {"source": {"batch_rows": 30}, "checkpoint": {"every": 1}}
    data = config("whole-300", "whole-300-in", **cut)
    summary = Pipeline.from_dict(data).run(new_model="replay")
    assert (summary.replayed, summary.replay_fresh_streams) == (300, 0)
    expected, states = in_one_piece(table)
    last = pc.field("t") > pc.max(table["t"].slice(0, 300))
    assert rows("whole-300").filter(last) == expected.filter(last)
    assert assert_states(read_states("whole-300"), states) > 20


@slow
def test_memory_and_files_are_bounded_with_ever_new_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many slots, and as large files of state, after ten times as many streams.

    Slow: the memory of many streams.
    """
    monkeypatch.setattr(versions, "SMALL", 1 << 20)
    monkeypatch.setattr(table_module, "_IDLE_SHARE", 1 / 8)
    sizes = []
    for name, count in (("few", 4_000), ("many", 40_000)):
        minutes = np.arange(count) // 20
        table = log(count, jitter=0)
        table = table.set_column(0, "id", pa.array([f"{i // 2}" for i in range(count)]))
        times = pa.array(START + minutes * MINUTE).cast(logs.SCHEMA.field("t").type)
        logs.write(table.set_column(1, "t", times), Path(f"{name}-in/0.parquet"))
        pipeline = Pipeline.from_dict(
            config(name, f"{name}-in", source={"batch_rows": 200}, checkpoint={"every": 2})
        )
        summary = pipeline.run()
        assert summary.dropped_streams + summary.streams == summary.new_streams == count // 2
        state = pipeline.state
        files = sum(file.stat().st_size for file in Path(name, "_streamrnn").glob("_state*"))
        sizes.append((len(state), len(pq.read_table(name)), files))
    (few, _, small), (many, written, large) = sizes
    assert written == 40_000
    assert 800 <= few <= 1200
    assert many <= 1200
    assert large <= 1.5 * small


def _ever_new(part: int) -> pa.RecordBatch:
    """40 streams that have rows in this hour alone."""
    table = log(40, part, jitter=0)
    later = pc.add(table["t"], pa.scalar(part * 3600 * 10**6, pa.duration("us")))
    ids = pa.array([f"{part}-{i}" for i in range(40)])
    table = table.set_column(0, "id", ids).set_column(1, "t", later)
    return table.combine_chunks().to_batches()[0]


def test_a_live_pipeline_drops_streams_at_checkpoints() -> None:
    pipeline = Pipeline.from_dict(_of_calls({}))
    for part in range(50):
        pipeline.process(_ever_new(part))
        pipeline.checkpoint("checkpoint.arrow")
        assert len(pipeline.state) <= 40 * 4
    assert pipeline.counts.dropped_streams == 50 * 40 - len(pipeline.state)
    assert len(Pipeline.resume("checkpoint.arrow").state) == len(pipeline.state)


@slow
def test_a_session_drops_streams_at_commits() -> None:
    """Also at the commit before another model; a commit without new rows is none.

    Slow: a session; test_where_work_is_cut has short ones.
    """
    shutil.copy("m.safetensors", "same.safetensors")
    pipeline = Pipeline.from_dict(_of_calls({}))
    with Pipeline.from_dict(config("out")).session() as session:
        for part in range(20):
            if part == 10:
                session.load_model("same.safetensors", "carry")
            batch = _ever_new(part)
            assert session.process(batch) == pipeline.process(batch)
            if part == 9:
                continue
            commit = session.commit()
            assert len(read_states("out")) <= 40 * 4
            assert session.commit() == commit
        assert session.counts.dropped_streams == 20 * 40 - len(read_states("out"))
    assert_states(read_states("out"), pipeline.state.to_arrow())


# --- rows behind --------------------------------------------------------------------------------


def _backfill(order: list[str]) -> None:
    """A file for each stream, one after the other, over the same three days."""
    for number, name in enumerate(order):
        table = log(200, number, jitter=0)
        ids = pa.array([name] * 200)
        times = pa.array(START + np.arange(200) * 20 * MINUTE).cast(logs.SCHEMA.field("t").type)
        table = table.set_column(0, "id", ids).set_column(1, "t", times)
        logs.write(table, Path(f"in/{number}.parquet"), row_group=20)


def test_a_stream_that_is_read_is_not_dropped_however_far_behind_it_is() -> None:
    """Files of one stream each: it has rows in each commit. Its start is counted."""
    _backfill(["a", "b", "c"])
    whole = run("whole", checkpoint={"every": 10**6})
    cut = run("cut", source={"batch_rows": 20}, checkpoint={"every": 1})
    assert rows("cut") == rows("whole")
    assert (whole.started_behind, cut.started_behind) == (0, 2)
    assert cut.dropped_streams == 0


def test_a_stream_that_was_dropped_and_goes_on_behind_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It starts again where it would have gone on: the one case in which dropping shows."""
    first = log(20, jitter=0)
    for number, (name, minute) in enumerate([("a", 0), ("b", 1000), ("a", 10), ("b", 1010)]):
        times = START + np.arange(minute * 60, minute * 60 + 20) * 10**6
        times = pa.array(times).cast(logs.SCHEMA.field("t").type)
        table = first.set_column(0, "id", pa.array([name] * 20)).set_column(1, "t", times)
        logs.write(table, Path(f"in/{number}.parquet"))
    whole = run("whole", checkpoint={"every": 10**6})
    cut = run("cut", source={"batch_rows": 20}, checkpoint={"every": 1})
    assert (whole.started_behind, whole.dropped_streams) == (0, 0)
    assert (cut.started_behind, cut.dropped_streams) == (1, 2)
    assert rows("cut") != rows("whole")
    code, *said = run_command(capsys, "run", _file(tmp_path))
    assert code == 0
    for note in ("1 stream began more than [state] idle before", "2 streams dropped at commits"):
        assert f"note     {note}" in "".join(said)


def _file(place: Path) -> str:
    text = (
        '[source]\npath = "in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\nlate = "apply"\n'
        'nulls = "previous"\nreset = "new"\nbatch_rows = 20\n[model]\npath = "m.safetensors"\n'
        f'[sink]\npath = "out"\n[state]\nidle = "{IDLE}m"\n[checkpoint]\nevery = 1\n'
    )
    (place / "p.toml").write_text(text)
    return str(place / "p.toml")


# --- the key ------------------------------------------------------------------------------------


def test_integers_as_time_take_a_number_of_ticks() -> None:
    table = log(jitter=0)
    minutes = (table["t"].cast(pa.int64()).to_numpy() - START) // MINUTE
    ticks = table.set_column(1, "t", pa.array(minutes, pa.int32()))
    logs.write(table, Path("in/0.parquet"))
    logs.write(ticks, Path("ticks-in/0.parquet"))
    cut = {"source": {"batch_rows": 30}, "checkpoint": {"every": 1}}
    assert run("out", **cut).dropped_streams > 20
    assert run("ticks", "ticks-in", **cut, state={"idle": IDLE}).dropped_streams > 20
    assert rows("ticks")["score"] == rows("out")["score"]
    with pytest.raises(DTypeError, match=r"\[state\] idle: column 't': expected a timestamp, "):
        run("other", "ticks-in")
    with pytest.raises(DTypeError, match=r"expected an integer, received timestamp.*1000 a number"):
        run("other", state={"idle": 40})


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"source": {"time": None, "late": "error"}}, r"state\.idle: needs source\.time"),
        ({"window": {"kind": "whole"}}, r'state\.idle: kind = "whole" keeps no state'),
        ({"state": {"idle": 0}}, "expected a duration such as .* from 1 on, received"),
        ({"state": {"idle": True}}, "expected a duration such as .*received the boolean true"),
        ({"state": {"idle": "soon"}}, "expected a duration such as"),
        ({"state": {"idle": "0s"}}, "expected a duration above zero"),
    ],
)
def test_what_cannot_be_idle_is_refused(tables: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Pipeline.from_dict(config("out", **tables))


def test_an_output_keeps_its_idle() -> None:
    logs.write(log(), Path("in/0.parquet"))
    run("out")
    with pytest.raises(CheckpointError, match=r'state\.idle: was "40m", is now "1h"'):
        run("out", state={"idle": "1h"})
    run("none", state={"idle": ""})
    with pytest.raises(CheckpointError, match=r'state\.idle: was null, is now "40m"'):
        run("none")


def test_explain_and_validate_say_it() -> None:
    logs.write(log(), Path("in/0.parquet"))
    pipeline = Pipeline.from_dict(config("out"))
    said = '[state] idle = "40m": a stream starts again after a longer silence, and is dropped'
    for notes in (pipeline.validate(), pipeline.explain()["notes"]):
        assert len([note for note in notes if note.startswith(said)]) == 1
    plain = Pipeline.from_dict(config("out", state={"idle": ""}))
    assert not [note for note in plain.validate() if "idle" in note]


def test_counts_are_in_the_metrics() -> None:
    logs.write(log(), Path("in/0.parquet"))
    data = config("out", source={"batch_rows": 30}, checkpoint={"every": 1})
    summary = Pipeline.from_dict(data).run(metrics="m.prom")
    found = Path("m.prom").read_text()
    label = f'{{pipeline="{summary.output}"}}'
    assert f"streamrnn_streams_dropped_total{label} {summary.dropped_streams}\n" in found
    assert f"streamrnn_streams_started_behind_total{label} 0\n" in found
    assert summary.as_dict()["dropped_streams"] == summary.dropped_streams > 20


def test_a_fit_sees_the_resets_of_a_run() -> None:
    """Weights after idle gaps are those after gaps."""
    logs.write(log(jitter=0), Path("in/0.parquet"))
    made = [{"type": "GRU", "units": 3}, {"type": "Dense", "units": 1}]
    weights = []
    for name, gap, idle in (("a", None, "40m"), ("b", "40m", None), ("c", None, None)):
        data = config(
            None,
            source={"nulls": 0.0, "max_gap": gap, "late": "error"},
            state={"idle": idle},
            target={"column": "b", "rows": 1},
            train={"epochs": 2},
        )
        data["model"] = {"path": f"{name}.safetensors", "layers": made}
        Pipeline.from_dict(data).fit()
        weights.append([w.tolist() for w in load_model(f"{name}.safetensors").get_weights()])
    assert weights[0] == weights[1] != weights[2]
