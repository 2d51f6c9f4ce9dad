"""A session owns the output as a run does, and commits what a run would have."""

import itertools
import logging
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.base.storage.local import LocalFiles
from streamrnn.cli import main
from streamrnn.errors import (
    AlreadyProcessed,
    CheckpointError,
    ConfigError,
    DataError,
    DTypeError,
    LateRowError,
    SinkError,
)
from streamrnn.jobs.session import session as session_module
from streamrnn.outputs import export_state, history, read_states, rewind, verify
from streamrnn.pipeline import Session
from streamrnn.stream.checkpoints import OutputFolder, read_manifest, versions
from streamrnn.stream.states import arrays

LOG = logs.random_log(240, streams=9, nulls=0.1)
SOURCE = {"nulls": "previous", "max_gap": "3h"}


@pytest.fixture(autouse=True)
def folder(model_dir: Path) -> None:
    """The output of a run over the first 80 rows, and one over all of them."""
    day(0)
    pipeline().run()
    logs.write(LOG, Path("whole-in/0.parquet"))
    pipeline("whole", path="whole-in").run()


def day(number: int) -> None:
    logs.write(LOG.slice(80 * number, 80), Path(f"in/{number}.parquet"))


def pipeline(out: str | None = "out", path: str = "in", **tables: Any) -> Pipeline:
    tables["source"] = {**SOURCE, **tables.get("source", {})}
    return Pipeline.from_dict(logs.config(path, "m.safetensors", out, **tables))


def same(out: str = "out", rows: int = 240) -> None:
    """The output is that of a run over the first rows."""
    assert pq.read_table(out, partitioning=None) == pq.read_table("whole").slice(0, rows)
    if rows == len(LOG):
        assert read_states(out) == read_states("whole")


def test_runs_and_sessions_go_on_from_each_other() -> None:
    with pipeline().session() as session:
        first = session.process(LOG.slice(80, 30), position={"p": 30})
        assert first == pq.read_table("whole").slice(80, 30)
        assert session.commit() == 2
        assert session.commit() == 2  # there is nothing new
        session.process(LOG.slice(110, 50).to_pylist(), position={"p": 80, "q": "a"})
        assert session.counts.rows == 80
    day(2)
    summary = pipeline().run()
    assert summary.rows == 80
    assert "sessions have scored 80 rows of this output" in summary.state_notes[0]
    same()
    with pipeline().session() as session:
        assert session.position == {"p": 80, "q": "a"}
        with pytest.raises(AlreadyProcessed):
            session.process(LOG.slice(110, 50), position={"p": 80})
    assert read_manifest("out").commit == 4  # a session without rows makes no commit
    verify("out")


def test_the_first_commit_of_an_output_may_be_one_of_a_session() -> None:
    with pipeline("new", "rest").session() as session:
        session.process(LOG.slice(0, 100))
    logs.write(LOG.slice(100), Path("rest/0.parquet"))
    pipeline("new", "rest").run()
    same("new")
    assert not Path("new/_streamrnn/_replay").exists()


def test_files_that_the_initial_state_has_seen_are_used_after_a_session_too() -> None:
    export_state("out", "s.arrow")
    init = {"state": {"init": "s.arrow"}}
    with pipeline("new", **init).session() as session:
        assert session.process(LOG.slice(80, 80)) == pq.read_table("whole").slice(80, 80)
    day(2)
    assert pipeline("new", **init).run().rows == 80
    assert read_states("new") == read_states("whole")


def test_types_come_from_the_initial_state_where_the_source_has_no_files() -> None:
    export_state("out", "s.arrow")
    Path("none").mkdir()
    for source in ("none", "in"):
        with pipeline("new", source, state={"init": "s.arrow"}).session() as session:
            schema, _ = session.start()
            assert schema.field("t").type == LOG["t"].type


def test_a_run_that_was_interrupted_goes_on_after_a_session() -> None:
    stop = threading.Event()
    log = LOG.slice(80).sort_by("id")  # the streams of a session are not those of the rest
    logs.write(log.slice(0, 100), Path("in/1.parquet"))
    rest, live = log.slice(0, 100), log.slice(100)
    ids = set(rest["id"].to_pylist())
    live = live.filter(pa.array([key not in ids for key in live["id"].to_pylist()]))
    every = {"source": {"batch_rows": 20}, "checkpoint": {"every": 1}}
    pipeline(**every).run(stop=stop, progress=lambda p: stop.set() if p.rows >= 40 else None)
    before = read_manifest("out")
    assert (before.complete, before.position is None) == (False, False)
    with pipeline(**every).session() as session:
        session.process(live)
    after = read_manifest("out")
    assert (after.complete, after.position) == (False, before.position)
    assert after.counters == {**before.counters, "live": len(live)}
    summary = pipeline(**every).run()
    assert "Resumed at row" in str(summary.resumed)
    assert summary.rows + before.counters["rows_read"] == 100
    expected = pq.read_table("whole").to_pylist()
    found = {(row["id"], row["t"]): row for row in pq.read_table("out").to_pylist()}
    assert all(found.get((row["id"], row["t"]), row) == row for row in expected)
    assert len(found) == 180 + len(live)


def test_what_an_exception_ends_is_not_committed() -> None:
    sessions = []

    def block() -> None:
        with pipeline().session() as session:
            sessions.append(session)
            session.process(LOG.slice(80, 20), position=1)
            session.commit()
            session.process(LOG.slice(100, 20), position=2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()
    same(rows=100)
    with pytest.raises(SinkError, match=r"is over: its block has ended.*from commit 2"):
        sessions[0].process(LOG.slice(120, 20), position=3)
    with pytest.raises(SinkError, match="is over"):
        sessions[0].commit()
    with pipeline().session() as session:
        assert session.position == 1
        session.process(LOG.slice(100, 140), position=2)
    same()


def test_an_error_of_the_data_changes_nothing() -> None:
    bad = LOG.slice(80).set_column(0, "id", pa.array([*LOG["id"].to_pylist()[80:239], None]))
    with pipeline().session() as session:
        for data, error in (
            (bad, DataError),
            ([{"id": "s0"}], DataError),
            (7, DTypeError),
            (LOG.drop_columns(["t"]), DataError),
        ):
            with pytest.raises(error):
                session.process(data)
        assert session.counts.rows == 0
        session.process(LOG.slice(80))
        with pytest.raises(LateRowError):
            session.process(LOG.slice(80, 9))
        assert session.counts.rows == 160
    same()


def test_nobody_else_writes_meanwhile() -> None:
    with pipeline().session() as session:
        session.process(LOG.slice(80, 20))
        session.commit()
        with pytest.raises(CheckpointError, match="in use by another run"), pipeline().session():
            pass
        with pytest.raises(CheckpointError, match="in use by another run"):
            pipeline().run()
        with pytest.raises(CheckpointError, match="in use by another run"):
            rewind("out", to=1, force=True)
    with pipeline().session() as session:
        session.process(LOG.slice(100))
    same()


def test_a_session_goes_on_from_where_the_output_was_rewound_to() -> None:
    with pipeline(checkpoint={"keep": 9}).session() as session:
        for number in range(3):
            session.process(LOG.slice(80 + 40 * number, 40), position=number)
            session.commit()
    rewind("out", to=1, force=True)
    with pipeline().session() as session:
        assert session.position is None
        session.process(LOG.slice(80), position=0)
    same()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"window": {"kind": "whole"}}, r'session: kind "whole" needs all rows at once'),
        ({"output": {"emit": "final"}}, r'session: \[output\] emit = "final"'),
        ({"sink": {"path": "-"}}, r"session: expected \[sink\] path .*received '-'"),
        ({"sink": {"path": "in"}}, r"\[sink\] path: in and the source in overlap"),
    ],
)
def test_what_a_session_cannot_do(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message), pipeline(**tables).session():
        pass


def test_another_pipeline_or_model_is_refused() -> None:
    with (
        pipeline(source={"max_gap": "9h"}).session() as session,
        pytest.raises(CheckpointError, match=r"source\.max_gap"),
    ):
        session.process(LOG.slice(80))
    logs.small_model("LSTM").save("m.safetensors")
    with pipeline().session() as session, pytest.raises(CheckpointError, match="another model"):
        session.process(LOG.slice(80))
    with (
        pipeline(model={"on_change": "replay"}).session() as session,
        pytest.raises(ConfigError, match="Replay is for `streamrnn run`"),
    ):
        session.process(LOG.slice(80))
    with pipeline(model={"on_change": "reset"}).session() as session:
        session.process(LOG.slice(80))
    parts = read_manifest("out").parts
    assert parts[0].model != parts[1].model


def test_a_column_whose_type_is_unknown_is_refused() -> None:
    rows = [{**row, "text": None} for row in LOG.slice(0, 4).to_pylist()]
    texts = LOG.slice(0, 4).append_column("text", pa.array(["a", None, "b", "c"]))
    columns = {"output": {"columns": ["id", "t", "text"]}}
    with pipeline("new", **columns).session() as session:
        with pytest.raises(DTypeError, match=r"column 'text': no row has a value, so its type"):
            session.process(rows)
        session.process(texts)
        session.process([{**row, "t": LOG["t"][9].as_py()} for row in rows])
    assert pq.read_table("new")["text"].to_pylist() == ["a", None, "b", "c", *[None] * 4]


def test_small_parts_are_merged_before_there_are_more_than_60() -> None:
    most = 0
    with pipeline(checkpoint={"keep": 3}).session() as session:
        for row in range(80, 240):
            session.process(LOG.slice(row, 1), position=row)
            session.commit()
            most = max(most, len(read_manifest("out").parts))
    assert most == 59
    assert len(list(Path("out").glob("*.parquet"))) == len(read_manifest("out").parts)
    same()
    verify("out")
    assert [commit.rows for commit in history("out")] == [80, 240]


@pytest.mark.parametrize("keep", first_quick([2, 0, 1000]))
def test_partitions_are_merged_each(keep: int) -> None:
    """Each to fewer than 60 parts, and one up to each end of a session that is retained.

    Slow: no commit retained, and all of them.
    """
    rows = LOG.filter(pc.is_in(LOG["id"], pa.array(["s0", "s1"])))
    streams = {"sink": {"partition_by": ["id"]}, "checkpoint": {"keep": keep}}
    sessions, most = (0, 3, len(rows)), 0
    assert len(rows) > 80
    for first, end in itertools.pairwise(sessions):
        with pipeline("parts", **streams).session() as session:
            for row in range(first, end):
                session.process(rows.slice(row, 1))
                session.commit()
                found = [part.folder for part in read_manifest("parts").parts]
                most = max(most, *map(found.count, found))
    assert 50 < most < 60
    assert verify("parts").rows == len(rows)
    assert [commit.rows for commit in history("parts")] == [*([3] if keep else []), len(rows)]


@pytest.mark.parametrize("small", [0, versions.SMALL])
def test_calls_go_on_while_a_commit_copies_the_states(
    monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """The copy has those at the commit, if all streams have changed, or some of them."""
    monkeypatch.setattr(versions, "SMALL", small)
    monkeypatch.setattr(versions, "_FEW", 0)
    monkeypatch.setattr(arrays, "_SLICE", 1)
    few = next(n for n in range(1, 80) if len(LOG["id"].slice(100, n).unique()) == 3)
    with pipeline("new").session() as session:
        session.process(LOG.slice(0, 100))
        session.commit()
        session.process(LOG.slice(100, few))
        finish, sizes = arrays.SlicedCopy.finish, []

        def later(copy: Any, locked: Any) -> None:
            sizes.append(len(copy.arrays[0]))
            session.process(LOG.slice(100 + few))
            finish(copy, locked)

        with monkeypatch.context() as patch:
            patch.setattr(arrays.SlicedCopy, "finish", later)
            session.commit()
        assert sizes == [3 if small == 0 else len(LOG["id"].slice(0, 100).unique())]
        alone = pipeline(None)
        alone.process(LOG.slice(0, 100 + few))
        assert read_states("new") == alone.state.to_arrow()
    same("new")


def test_threads_score_beside_commits() -> None:
    """Each has streams of its own; rows and states are those of one after another."""
    owner = pa.array([int(key[1:]) % 4 for key in LOG["id"].to_pylist()])
    pieces = [LOG.filter(pc.equal(owner, number)) for number in range(4)]

    def work(rows: pa.Table) -> None:
        for row in range(len(rows)):
            session.process(rows.slice(row, 1))
            if row % 8 == 0:
                session.commit()

    with pipeline("new", checkpoint={"keep": 0}).session() as session:
        threads = [threading.Thread(target=work, args=(rows,)) for rows in pieces]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = pq.read_table("new").sort_by([("id", "ascending"), ("t", "ascending")])
    expected = pq.read_table("whole").sort_by([("id", "ascending"), ("t", "ascending")])
    assert found == expected
    assert read_states("new").sort_by("id") == read_states("whole").sort_by("id")
    assert read_manifest("new").commit > 9


def test_an_interrupt_between_state_and_output_ends_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state has rows that the output will not have: neither is committed."""
    over = r"out: this session is over: KeyboardInterrupt: \. Open another .* from commit 2"

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    def block() -> None:
        with pipeline().session() as session:
            session.process(LOG.slice(80, 20), position=1)
            session.commit()
            with monkeypatch.context() as patch:
                patch.setattr(session, "_queue", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    session.process(LOG.slice(100, 20), position=2)
            with pytest.raises(SinkError, match=over):
                session.process(LOG.slice(120, 20), position=3)
            with pytest.raises(SinkError, match=over):
                session.commit()

    with pytest.raises(SinkError, match=over):
        block()
    same(rows=100)


def test_an_interrupted_commit_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be made or not: the next one could not build on it."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    def commit(session: Session) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(session._writer, "wait", interrupt)
            session.commit()

    def block() -> None:
        with pipeline().session() as session:
            session.process(LOG.slice(80, 20), position=1)
            with pytest.raises(KeyboardInterrupt):
                commit(session)
            session.process(LOG.slice(100, 20), position=2)

    with pytest.raises(SinkError, match="is over: KeyboardInterrupt"):
        block()
    with pipeline().session() as session:
        session.process(LOG.slice(100 if session.position == 1 else 80), position=3)
    same()


@pytest.mark.parametrize("call", ["write", "sync", "rename"])
def test_a_disk_that_fails_ends_the_session(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing after the last commit is kept; the next session goes on from there."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def block() -> None:
        with pipeline().session() as session:
            session.process(LOG.slice(80, 20), position=1)
            session.commit()
            session.process(LOG.slice(100, 20), position=2)
            with monkeypatch.context() as patch:
                patch.setattr(LocalFiles.disk, call, full)
                with pytest.raises(SinkError, match="No space left"):
                    session.commit()
            with pytest.raises(SinkError, match=r"session is over: SinkError: .*No space left"):
                session.process(LOG.slice(120, 20), position=3)

    with pytest.raises(SinkError, match=r"No space left on device.* from commit 2"):
        block()
    same(rows=100)
    with pipeline().session() as session:
        assert session.position == 1
        session.process(LOG.slice(100), position=3)
    same()


def test_a_folder_that_was_rewound_meanwhile_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there are no locks, as on object stores; on a disk the rewind is refused."""
    manifest = "_streamrnn/_manifest.json"

    def block() -> None:
        with pipeline().session() as session:
            session.process(LOG.slice(80, 20), position=1)
            session.commit()
            shutil.copytree("out", "copy", ignore=shutil.ignore_patterns("_lock*"))
            rewind("copy", to=1, force=True)
            shutil.copy(f"copy/{manifest}", f"out/{manifest}")
            monkeypatch.setattr(LocalFiles, "local", False)
            session.process(LOG.slice(100, 20), position=2)
            session.commit()

    with pytest.raises(CheckpointError, match="another run has committed since this one started"):
        block()


def test_calls_keep_an_output_on_an_object_store_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = []
    monkeypatch.setattr(OutputFolder, "renew", lambda folder: renewed.append(folder.path))
    with pipeline().session() as session:
        session.process(LOG.slice(80, 1))
        assert not renewed
        monkeypatch.setattr(session_module, "_RENEW_SECONDS", -1.0)
        session.process(LOG.slice(81, 1))
    assert renewed == ["out"]


def test_late_rows_of_a_run_after_a_session_are_explained() -> None:
    with pipeline().session() as session:
        session.process(LOG.slice(80, 80))
    day(1)
    with pytest.raises(LateRowError) as caught:
        pipeline().run()
    text = str(caught.value)
    assert "The output has 80 rows of sessions: no list of files says" in text
    (time,) = re.findall(r'\[source\] after = \{ time = "([^"]+)" \}', text)
    day(2)
    assert pipeline(source={"after": {"time": time}}).run().rows == 80
    same()


def test_rows_that_no_source_has_go_only_if_they_may() -> None:
    with pipeline(checkpoint={"keep": 9}).session() as session:
        session.process(LOG.slice(80, 80))
    day(2)
    pipeline().run()
    lost = "out: 80 rows of sessions after commit 1 are in no source"
    with pytest.raises(CheckpointError, match=lost):
        rewind("out", to=1)
    with pytest.raises(CheckpointError, match=r"has 80 rows that are in none of its used files"):
        pipeline().run(full_refresh=True)
    rewind("out", to=2)
    with pytest.raises(CheckpointError, match=lost):
        rewind("out", to=1)
    same(rows=160)
    rewind("out", to=1, force=True)
    same(rows=80)
    assert read_manifest("out").live == 0


def test_a_file_is_not_reloaded_over_rows_of_a_session() -> None:
    with pipeline("new", "log", checkpoint={"keep": 9}).session() as session:
        session.process(LOG.slice(0, 20))
    logs.write(LOG.slice(20, 60), Path("log/0.parquet"))
    pipeline("new", "log").run()
    with pipeline("new", "log").session() as session:
        session.process(LOG.slice(80, 20))
    with pytest.raises(CheckpointError, match="20 rows of sessions after commit 1 are in no"):
        pipeline("new", "log").run(reload=["0.parquet"])
    same("new", rows=100)
    summary = pipeline("new", "log").run(reload=["0.parquet"], force=True)
    assert summary.rows == 60
    same("new", rows=80)


def test_a_replay_leaves_rows_of_a_session_out_only_if_told() -> None:
    with pipeline().session() as session:
        session.process(LOG.slice(80, 80), position=1)
    day(2)
    logs.small_model("LSTM").save("m.safetensors")
    with pytest.raises(CheckpointError, match=r"replay: out has 80 rows .* or a session"):
        pipeline().run(new_model="replay")
    summary = pipeline().run(new_model="replay", force=True)
    assert (summary.replayed, summary.rows) == (80, 80)
    assert any("80 rows in no used file: not replayed" in note for note in summary.state_notes)


def test_commands_name_rows_of_sessions(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "streamrnn")
    with pipeline().session() as session:
        session.process(LOG.slice(80, 80))
    assert "out: commit 2 with 80 rows of a session" in caplog.text
    with pipeline("live").session() as session:  # no commit has read a file
        session.process(LOG.slice(0, 10))
    shown = {}
    for command in ("verify out", "rewind out", "state show out", "rewind whole", "rewind live"):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(command.split())
        shown[command] = capsys.readouterr().out
    assert "160 rows (80 read by sessions)" in shown["verify out"]
    assert "of sessions" in shown["rewind out"]
    assert "of sessions" in shown["rewind live"]
    assert "of sessions" not in shown["rewind whole"]
    assert "after 80 rows of sessions" in shown["state show out"]
    with pytest.raises(SystemExit, match=r"^(?!0$)"):
        main(["rewind", "out", "--to", "1"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["rewind", "out", "--to", "1", "--force"])
    same(rows=80)


def test_metrics_of_a_session_add_up() -> None:
    for number in (1, 2):
        with pipeline().session() as session:
            session.process(LOG.slice(80 * number, 80))
            session.write_metrics("m.prom")
    assert re.search(r"streamrnn_rows_read_total\{[^}]*\} 160", Path("m.prom").read_text())


def test_rejected_rows_are_committed_with_the_rows() -> None:
    rows = LOG.slice(80, 40).set_column(0, "id", pa.array([None, *LOG["id"].to_pylist()[81:120]]))
    limits = {"source": {"bad": "reject", "max_rejects": 1}}
    with pipeline("new", **limits).session() as session:
        session.process(rows)
        with pytest.raises(DataError, match="max_rejects = 1"):
            session.process(rows.slice(0, 1))
    assert len(pq.read_table("new")) == 39
    assert pq.read_table("new.rejects")["reason"].to_pylist() == ["column 'id': key is null"]


def _late(minutes: list[int], a: pa.Array) -> pa.Table:
    """Rows of one stream; `a` has the type of an array."""
    rows = LOG.slice(0, len(minutes))
    times = pa.array(minutes, pa.timestamp("ms")).cast(LOG["t"].type)
    rows = rows.set_column(0, "id", pa.array(["late"] * len(minutes)))
    return rows.set_column(1, "t", times).set_column(2, "a", a)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("commit_between", [False, True])
def test_rejects_of_a_feature_that_gets_a_type_later(
    form: str, commit_between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are committed in two parts, which a merge makes one of."""
    monkeypatch.setattr(session_module, "_MOST_PARTS", 4)
    config = {"source": {"late": "reject"}, "sink": {"format": form}}
    untyped, typed = pa.nulls(2), pa.array([0.5, 1.5])
    with pipeline("new", **config).session() as session:
        session.process(_late([10, 1], untyped))
        if commit_between:
            session.commit()
        session.process(_late([20, 2], typed))
        session.commit()
        assert verify("new").rejected == 2
        for number in range(3):
            session.process(_late([30 + number, 3], typed))
            session.commit()
    assert verify("new").rejected == 5
    part, *_ = sorted(Path("new.rejects").glob(f"part-*.{form}"))
    merged = ds.dataset(part, format=form).to_table()["a"]
    assert merged.to_pylist()[:4] == [None, 1.5, 1.5, 1.5]
    assert pa.types.is_floating(merged.type)
