"""Runs whose paths, files, state or end are not as they should be."""

import logging
import os
import threading
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, ConfigError, DataError, MissingFileError
from streamrnn.outputs import export_state, history, import_state, read_states
from streamrnn.stream.checkpoints import read_manifest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    logs.small_model().save(tmp_path / "m.safetensors")
    logs.write(logs.random_log(120), tmp_path / "in" / "1.parquet")
    return tmp_path


def _config(base: Path, **tables: Any) -> dict[str, Any]:
    return logs.config(str(base / "in"), str(base / "m.safetensors"), str(base / "out"), **tables)


@pytest.mark.parametrize(
    "tables",
    [
        {"sink": {"path": "file://{base}/in/out"}},
        {"sink": {"rejects": "{base}/in/rejects"}},
        {"state": {"save": "{base}/in/state.parquet"}},
        {"state": {"save": "{base}/out/state.parquet"}},
        {"sink": {"rejects": "{base}/out/rejects"}},
        {"sink": {"rejects": "{base}/out"}},
    ],
    ids=str,
)
def test_outputs_stay_clear_of_the_source_and_of_one_another(base: Path, tables: Any) -> None:
    filled = {t: {k: v.format(base=base) for k, v in keys.items()} for t, keys in tables.items()}
    pipeline = Pipeline.from_dict(_config(base, **filled))
    with pytest.raises(ConfigError, match="overlap"):
        pipeline.run()
    with pytest.raises(ConfigError, match="overlap"):
        pipeline.validate()
    assert not (base / "out").exists()


@pytest.mark.parametrize("sink", ["mounted/out", "mounted"])
def test_a_bind_mount_hides_no_output_in_the_source(
    base: Path, sink: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that has one volume in another: `mounted` is `in`."""
    (base / "mounted").mkdir()
    stat = os.stat

    def through_the_mount(path: Any, **options: Any) -> os.stat_result:
        inside = os.fspath(path).replace(f"{base}/mounted", f"{base}/in")
        return stat(inside, **options)

    monkeypatch.setattr(os, "stat", through_the_mount)
    pipeline = Pipeline.from_dict(_config(base, sink={"path": str(base / sink)}))
    with pytest.raises(ConfigError, match="overlap"):
        pipeline.run()


def test_state_files_may_be_uris(base: Path) -> None:
    uri = f"file://{base}/saved.parquet"
    Pipeline.from_dict(_config(base, state={"save": uri})).run()
    assert read_states(uri) == read_states(str(base / "saved.parquet"))
    again = _config(base, state={"init": uri}, sink={"path": str(base / "two")})
    logs.write(logs.random_log(120).slice(0, 0), base / "in" / "2.parquet")
    Pipeline.from_dict(again).run()
    assert read_states(str(base / "two")) == read_states(uri)


def test_a_state_file_that_could_not_be_written_is_refused_at_the_start(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"state\.save: expected a file name ending in"):
        Pipeline.from_dict(_config(base, state={"save": str(base / "state.csv")}))


def test_import_keeps_the_commits_and_the_rejects_of_the_folder(base: Path) -> None:
    table = logs.random_log(120)
    values = table.column("a").to_pylist()
    values[50] = float("nan")
    logs.write(table.set_column(2, "a", pa.array(values)), base / "in" / "1.parquet")
    config = _config(
        base,
        source={"batch_rows": 20, "bad": "reject"},
        sink={"rejects": str(base / "my rejects")},
        checkpoint={"every": 1, "keep": 4},
    )
    Pipeline.from_dict(config).run()
    out = str(base / "out")
    before = history(out)
    export_state(out, str(base / "s.arrow"))
    import_state(str(base / "s.arrow"), out)
    assert history(out)[:-1] == before
    assert read_manifest(out).named("rejects").rows == 1
    with pytest.raises(MissingFileError, match="no such output folder"):
        import_state(str(base / "s.arrow"), str(base / "mistyped"))
    assert not (base / "mistyped").exists()


def test_an_interrupted_run_that_committed_nothing_says_so(base: Path) -> None:
    stop = threading.Event()
    stop.set()
    config = _config(base, window={"kind": "whole"})
    summary = Pipeline.from_dict(config).run(stop=stop)
    assert summary.interrupted
    assert summary.commits == 0
    text = in_words(summary)
    assert "nothing was committed" in text
    assert "state show" not in text


def test_what_a_start_repaired_is_logged_and_in_the_summary(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run was killed before its last commit had its part in place, and amid another part."""
    first = Pipeline.from_dict(_config(base)).run()
    assert first.recovered == []
    out = base / "out"
    (part,) = read_manifest(str(out)).parts
    staging = out / "_streamrnn" / "staging"
    (out / part.name).rename(staging / part.staged)
    (staging / "00002-000-0000.parquet.tmp").write_bytes(b"PAR1")
    repairs = ["finished commit 1: 1 part in place", "removed 1 file that no commit names"]
    with caplog.at_level(logging.INFO, "streamrnn"):
        summary = Pipeline.from_dict(_config(base)).run()
    assert summary.recovered == summary.as_dict()["recovered"] == repairs
    records = [(r.name, r.levelname, r.getMessage()) for r in caplog.records]
    assert records == [("streamrnn.checkpoints", "INFO", f"{out}: {each}") for each in repairs]
    for each in repairs:
        assert f"note     repaired what an earlier run left behind: {each}" in in_words(summary)
    assert Pipeline.from_dict(_config(base)).run().recovered == []


def test_explain_says_that_a_run_would_refuse(base: Path) -> None:
    Pipeline.from_dict(_config(base)).run()
    assert "would_refuse" not in Pipeline.from_dict(_config(base)).explain()
    other = Pipeline.from_dict(_config(base, output={"warmup": 3})).explain()
    assert "output.warmup" in other["would_refuse"]
    logs.write(logs.random_log(90), base / "in" / "1.parquet")
    assert "1.parquet" in Pipeline.from_dict(_config(base)).explain()["would_refuse"]


def test_force_is_remembered_and_vanished_files_are_counted(base: Path) -> None:
    logs.write(logs.random_log(10, seed=1).slice(0, 0), base / "in" / "2.parquet")
    pipeline = Pipeline.from_dict(_config(base))
    pipeline.run()
    rows = pq.read_table(base / "out").num_rows
    logs.write(logs.random_log(90), base / "in" / "1.parquet")
    os.remove(base / "in" / "2.parquet")
    with pytest.raises(CheckpointError, match=r"1\.parquet"):
        Pipeline.from_dict(_config(base)).run()
    forced = Pipeline.from_dict(_config(base)).run(force=True)
    assert (forced.changed_files, forced.vanished_files, forced.rows) == (1, 1, 0)
    plain = Pipeline.from_dict(_config(base)).run()
    assert plain.nothing_new
    assert plain.changed_files == 0
    assert pq.read_table(base / "out").num_rows == rows


def test_process_counts_rejects_over_its_calls(base: Path) -> None:
    config = _config(base, source={"bad": "reject", "max_rejects": 1})
    pipeline = Pipeline.from_dict(config)
    table = logs.random_log(40)
    values = table.column("a").to_pylist()
    values[3] = values[23] = float("nan")
    spoilt = table.set_column(2, "a", pa.array(values))
    pipeline.process(spoilt.slice(0, 20))
    before = pa.table(pipeline.state)
    with pytest.raises(DataError, match="2 rejected rows, more than"):
        pipeline.process(spoilt.slice(20))
    assert pa.table(pipeline.state) == before
    pipeline.process(table.slice(20))


def test_a_reset_in_one_stream_changes_no_bit_of_another(base: Path) -> None:
    table = logs.random_log(120)
    new = table.column("new").to_pylist()
    ids = table.column("id").to_pylist()
    first = ids.index(ids[60])
    new[60] = True
    assert first < 60
    config = _config(base, source={"reset": "new"})
    plain = Pipeline.from_dict(config).process(table)
    other = Pipeline.from_dict(config).process(table.set_column(4, "new", pa.array(new)))
    same = pa.array([key != ids[60] or i < 60 for i, key in enumerate(ids)])
    assert plain.filter(same) == other.filter(same)
    assert plain.column("score")[60] != other.column("score")[60]


@pytest.mark.parametrize("every", [1, 2])
def test_what_was_due_is_committed_where_the_next_file_cannot_be_read(
    base: Path, every: int
) -> None:
    """And once the file is mended the run goes on from there."""
    for name in ("2", "3"):
        logs.write(logs.random_log(120, seed=int(name)), base / "in" / f"{name}.parquet")
    sound = (base / "in" / "3.parquet").read_bytes()
    torn = bytearray(sound)
    torn[40:400] = b"\xff" * 360
    (base / "in" / "3.parquet").write_bytes(torn)
    source = {"late": "apply", "batch_rows": 120}  # a file each
    config = _config(base, checkpoint={"every": every}, source=source)
    for _ in range(2):
        with pytest.raises(DataError, match=r"3\.parquet"):
            Pipeline.from_dict(config).run()
        assert pq.read_table(base / "out").num_rows == 240
    (base / "in" / "3.parquet").write_bytes(sound)
    Pipeline.from_dict(config).run()
    whole = _config(base, source={"late": "apply"}, sink={"path": str(base / "whole")})
    Pipeline.from_dict(whole).run()
    assert pq.read_table(base / "out") == pq.read_table(base / "whole")
    assert read_states(str(base / "out")) == read_states(str(base / "whole"))
