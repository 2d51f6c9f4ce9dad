"""Upkeep of committed state: streams dropped, reset, let go of, and what a crash left removed."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import ConfigError, MissingFileError, StateError
from streamrnn.jobs.outputs.streams import clear_leftovers
from streamrnn.outputs import (
    compact,
    diff_states,
    drop_idle,
    drop_streams,
    export_state,
    history,
    import_state,
    publish,
    read_states,
    reset_streams,
    rewind,
    verify,
)
from streamrnn.states import read_state_file

LOG = logs.random_log(rows=200, streams=6)
HALF = 120


@pytest.fixture
def run(model_dir):
    """Score part `name` of the log, in the folder `out`; the rows written so far."""
    Path("in").mkdir()

    def run(name, rows):
        pq.write_table(rows, f"in/{name}.parquet")
        config = logs.config("in", "m.safetensors", "out", source={"nulls": "previous"})
        Pipeline.from_dict(config).run()
        return pq.read_table("out")

    return run


def states_by_id():
    return {row["id"]: row for row in read_states("out").to_pylist()}


def alone(rows, tmp_path):
    """What a fresh run gives for the rows."""
    path = logs.write(rows, tmp_path / "alone.parquet")
    config = logs.config(path, str(tmp_path / "m.safetensors"), str(tmp_path / "alone"))
    Pipeline.from_dict(config).run()
    return pq.read_table(tmp_path / "alone").column("score").to_pylist()


def rows_of(table, name):
    return table.filter(pc.equal(table.column("id"), name))


def scores_of(table, name):
    return rows_of(table, name).column("score").to_pylist()


def test_a_dropped_stream_begins_anew_and_no_other_changes(run, tmp_path):
    run("one", LOG.slice(0, HALF))
    before = states_by_id()
    assert drop_streams("out", ["s1", "s2"]) == 2
    after = states_by_id()
    assert after == {name: row for name, row in before.items() if name not in ("s1", "s2")}
    undisturbed = run("two", LOG.slice(HALF))
    rest = rows_of(LOG.slice(HALF), "s1")
    done = len(rows_of(LOG.slice(0, HALF), "s1"))
    assert scores_of(undisturbed, "s1")[done:] == alone(rest, tmp_path)


def test_a_reset_stream_begins_fresh_but_keeps_its_last_time(run, tmp_path):
    run("one", LOG.slice(0, HALF))
    before = states_by_id()
    assert reset_streams("out", ["s1"]) == 1
    after = states_by_id()
    assert list(after) == list(before)
    assert {name for name in before if before[name] != after[name]} == {"s1"}
    assert (after["s1"]["steps"], after["s1"]["rnn/h"]) == (0, [0.0] * 5)
    assert after["s1"]["previous/a"] is None
    assert after["s1"]["last_time"] == before["s1"]["last_time"]
    scored = run("two", LOG.slice(HALF))
    done = len(rows_of(LOG.slice(0, HALF), "s1"))
    assert scores_of(scored, "s1")[done:] == alone(rows_of(LOG.slice(HALF), "s1"), tmp_path)


def test_a_reset_needs_the_model_that_made_the_state(run):
    run("one", LOG.slice(0, HALF))
    logs.small_model(units=4).save("m.safetensors")
    with pytest.raises(StateError, match="no longer the model that made the state of out"):
        reset_streams("out", ["s1"])


def test_idle_streams_are_let_go(run):
    run("one", LOG)
    last = {name: row["last_time"] for name, row in states_by_id().items()}
    newest = max(last.values())
    silence = newest - sorted(last.values())[2]
    expected = {name for name, time in last.items() if newest - time <= silence}
    assert 0 < len(expected) < len(last)
    assert drop_idle("out", silence) == len(last) - len(expected)
    assert set(states_by_id()) == expected
    assert drop_idle("out", silence) == 0
    with pytest.raises(ConfigError, match="above zero"):
        drop_idle("out", timedelta())


@pytest.mark.parametrize(
    ("kind", "hour", "last"),
    [(pa.timestamp("ns", "UTC"), 3600 * 10**9, 2**62 + 1), (pa.timestamp("s"), 3600, 10**13)],
    ids=str,
)
def test_idle_streams_in_other_units(model_dir, kind, hour, last):
    """Nanoseconds that are not whole microseconds; seconds beyond the range of microseconds."""
    times = pa.array([last - hour - 1, last - hour, last]).cast(kind)
    log = pa.table({"id": ["s1", "s2", "s3"], "t": times, "a": [1.0] * 3, "b": [1.0] * 3})
    logs.write(log, Path("in/0.parquet"))
    Pipeline.from_dict(logs.config("in", "m.safetensors", "out")).run()
    assert drop_idle("out", timedelta(hours=1)) == 1
    assert read_states("out")["id"].to_pylist() == ["s2", "s3"]


def test_keys_that_are_not_there(run):
    run("one", LOG)
    before = states_by_id()
    with pytest.raises(ConfigError, match=r'--key s11: no such stream in out; did .*"s'):
        drop_streams("out", ["s1", "s11"])
    with pytest.raises(ConfigError, match=r"expected 1 value \(id\), received 2"):
        drop_streams("out", ["s1,s2"])
    with pytest.raises(ConfigError, match="double quotes around a value that has a line break"):
        drop_streams("out", ["s1\ns2"])
    with pytest.raises(ConfigError, match="expected string, the type of the key column 'id'"):
        drop_streams("out", ["\udcff"])
    with pytest.raises(ConfigError, match=r"expected a list of strings, .* write \['s1'\]"):
        drop_streams("out", "s1")  # or letter by letter: stream 12 would be streams 1 and 2
    with pytest.raises(ConfigError, match=r"expected a string per stream, .* received 12"):
        drop_streams("out", [12])
    assert states_by_id() == before


def test_keys_of_several_columns_and_types(workdir):
    logs.small_model().save("m.safetensors")
    numbers = pa.array([i % 2 for i in range(len(LOG))], pa.int16())
    pq.write_table(LOG.append_column("part", numbers), "in.parquet")
    source = {"path": "in.parquet", "key": ["id", "part"], "features": ["a", "b"]}
    sink = {"path": "out"}
    config = {"source": source, "model": {"path": "m.safetensors"}, "sink": sink}
    Pipeline.from_dict(config).run()
    before = len(read_states("out"))
    assert drop_streams("out", ["s1,0", '"s2",1']) == 2
    assert len(read_states("out")) == before - 2
    with pytest.raises(ConfigError, match="expected int16, the type of the key column 'part'"):
        drop_streams("out", ["s1,x"])
    with pytest.raises(StateError, match="last_time is not kept"):
        drop_idle("out", timedelta(hours=1))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (pa.array([bytes(15) + b"\1", bytes(15) + b"\2"], pa.uuid()), f"{UUID(int=1)}"),
        (pa.array(['"a"', '"b"'], pa.json_()), '"""a"""'),
        (pa.array([b"\xff\xfe", b"\xff"]), r"\xff\xfe"),
        (pa.array([1, 10**8], pa.int32()).cast(pa.date32()), "1970-01-02"),
    ],
    ids=["uuid", "json", "binary", "date"],
)
def test_keys_of_all_types_are_named_as_they_are_shown(tmp_path, keys, text):
    file = str(tmp_path / "states.parquet")
    table = pa.table({"id": keys, "steps": [1, 2]})
    pq.write_table(table.replace_schema_metadata({"streamrnn.keys": '["id"]'}), file)
    assert read_states(file, keys=[text])["steps"].to_pylist() == [1]
    with pytest.raises(ConfigError, match="--key 2026-01-01: "):
        read_states(file, keys=["2026-01-01"])


def test_leftovers_are_cleared(run):
    run("one", LOG)
    Path("out/_streamrnn/staging/part-00009.parquet.tmp").write_bytes(b"half")
    assert clear_leftovers("out") == 1
    assert clear_leftovers("out") == 0


def test_no_folder_is_made_where_there_is_none(run):
    for change in (clear_leftovers, lambda out: drop_streams(out, ["s1"])):
        with pytest.raises(MissingFileError, match="no such output folder"):
            change("nowhere")
    assert not Path("nowhere").exists()


def test_paths_may_be_of_any_kind(run):
    run("one", LOG)
    out, file, rejects = Path("out"), Path("s.arrow"), Path("out.rejects")
    assert export_state(out, file) == len(read_states(out))
    assert import_state(file, out) == read_state_file(file).num_rows
    assert not diff_states(out, file)
    assert verify(out, rejects=rejects).rows == history(out)[-1].rows == len(LOG)
    assert compact(out, rejects=rejects) is None
    with pytest.raises(ConfigError, match="no retained commit made before any row of in/one"):
        rewind(out, before=Path("in/one.parquet"))
    with pytest.raises(ConfigError, match="names no table"):
        publish(out, rejects=rejects)
    assert (drop_streams(out, ["s1"]), reset_streams(out, ["s2"])) == (1, 1)
    assert drop_idle(out, timedelta(days=9000)) == 0
