"""State tables that come from outside: into a folder, or as the start of a run."""

import hashlib
import json
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from command_line import run_command

from streamrnn import Pipeline, Sequential, layers
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, StateError
from streamrnn.jobs.outputs.streams import drop_idle
from streamrnn.outputs import diff_states, export_state, history, import_state, read_states
from streamrnn.states import write_state_file

LOG = logs.random_log(200, streams=6, nulls=0.1)
HALF = 120


@pytest.fixture
def base(model_dir: Path) -> Path:
    """A folder with a model, and `out`: the first half of a log with its state."""
    _run("out", LOG.slice(0, HALF))
    return model_dir


def _config(out: str | None, model: str = "m.safetensors", **tables: Any) -> dict[str, Any]:
    source = {"nulls": "previous", **tables.pop("source", {})}
    return logs.config(f"{out}.in", model, out, source=source, **tables)


def _run(out: str, rows: pa.Table, model: str = "m.safetensors", **tables: Any) -> Any:
    logs.write(rows, Path(f"{out}.in/{len(list(Path().glob(f'{out}.in/*')))}.parquet"))
    return Pipeline.from_dict(_config(out, model, **tables)).run()


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def _second(table: pa.Table, name: str, value: Any) -> pa.Table:
    """The table with another value in its second row."""
    values = table.column(name).to_pylist()
    values[1] = value
    return _set(table, name, pa.array(values, table.schema.field(name).type))


def _meta(table: pa.Table, value: bytes) -> pa.Table:
    return table.replace_schema_metadata({**table.schema.metadata, b"streamrnn.keys": value})


NAN = float("nan")
ROW = r"row 1 \(from 0\): stream id='s\d': .*"
Spoil = Callable[[pa.Table], pa.Table]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "key twice": (lambda t: _second(t, "id", t.column("id")[0].as_py()), "each stream once"),
    "null key": (lambda t: _second(t, "id", None), "row 1 .*'id': key is null"),
    "NaN state": (lambda t: _second(t, "rnn/h", [NAN] * 5), ROW + "'rnn/h': .*received NaN"),
    "null state": (lambda t: _second(t, "rnn/h", None), ROW + "'rnn/h': state is null"),
    "negative steps": (lambda t: _second(t, "steps", -1), ROW + "'steps': .*from 0 to"),
    "null steps": (lambda t: _second(t, "steps", None), ROW + "'steps': .*received null"),
    "another width": (
        lambda t: _set(t, "rnn/h", pa.array([[1, 2]] * len(t), pa.list_(pa.float32(), 2))),
        r"'rnn/h': expected .*\[5\], received .*\[2\]",
    ),
    "times of floats": (
        lambda t: _set(t, "last_time", pa.array([1.5] * len(t))),
        "'last_time': expected timestamp.*, received double",
    ),
    "a column twice": (
        lambda t: t.append_column("steps", t.column("steps")),
        "'steps': expected once, found 2",
    ),
    "a key twice": (
        lambda t: t.append_column("id", t.column("id")),
        "'id': expected once, found 2 times",
    ),
    "another model": (
        lambda t: t.replace_schema_metadata({**t.schema.metadata, b"streamrnn.fingerprint": b"0"}),
        "state of another model",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_import_refuses_what_init_refuses_and_commits_nothing(
    base: Path, name: str, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Or the output would be stuck: each run after it would refuse its own state."""
    spoil, message = SPOILT[name]
    good = read_states("out")
    write_state_file(spoil(good), f"s{suffix}")
    commits = history("out")
    with pytest.raises(StateError, match=f"^s{suffix}: .*{message}"):
        import_state(f"s{suffix}", "out")
    code, _, error = run_command(capfd, "state", "import", f"s{suffix}", "out")
    assert code == 78
    assert re.search(message, error)
    assert history("out") == commits
    assert read_states("out").equals(good, check_metadata=True)
    with pytest.raises(StateError, match=message):
        _run("two", LOG.slice(HALF), state={"init": f"s{suffix}"})
    assert not list(Path("two").rglob("*.parquet"))


def test_import_refuses_to_lose_times_and_init_notes_it(base: Path) -> None:
    """In a folder late checks would end in silence; a run that starts can say so."""
    good, commits = read_states("out"), history("out")
    nulls = pa.nulls(len(good), good.schema.field("last_time").type)
    for table, message, number in (
        (_second(good, "last_time", None), ROW + "'last_time': last time is null", 1),
        (
            _set(good, "last_time", nulls),
            r"row 0 .*'last_time': last time is null.* \(6 of 6 rows\)",
            6,
        ),
    ):
        write_state_file(table, "s.parquet")
        with pytest.raises(StateError, match=message):
            import_state("s.parquet", "out")
        assert history("out") == commits
        summary = _run(f"init{number}", LOG.slice(HALF), state={"init": "s.parquet"})
        assert summary.state_notes == [
            f"{number} of 6 streams in the state table have steps but no last_time: their "
            "first rows are never counted as late or after a gap"
        ]


@pytest.mark.parametrize("value", [b"{", b"\xff", b"7", b"[1]", b"[]", b'["nobody"]'])
def test_metadata_that_is_no_list_of_names_is_refused(base: Path, value: bytes) -> None:
    write_state_file(_meta(read_states("out"), value), "s.arrow")
    for look in (import_state, diff_states, lambda a, b: diff_states(b, a)):
        with pytest.raises(
            StateError, match=r"s\.arrow: (not a state table|column '.*' not found)"
        ):
            look("s.arrow", "out")


def test_a_table_without_a_column_of_the_folder_is_refused(base: Path) -> None:
    for column in ("previous/a", "rnn/h", "steps", "last_time"):
        write_state_file(read_states("out").drop_columns([column]), "s.arrow")
        with pytest.raises(StateError, match=rf"s\.arrow: column '{column}', which out has, is"):
            import_state("s.arrow", "out")


def test_import_takes_columns_in_any_order_and_rows_that_were_chosen(base: Path) -> None:
    good = read_states("out")
    some = good.select(good.column_names[::-1]).take(pa.array([4, 1]))
    pq.write_table(some.append_column("note", pa.array(["x", "y"])), "s.parquet")
    assert import_state("s.parquet", "out") == 2
    assert read_states("out").equals(good.take(pa.array([4, 1])), check_metadata=True)
    _run("out", LOG.slice(HALF))


@pytest.mark.parametrize(
    "tables",
    [
        {"window": {"kind": "independent", "steps": 4, "stride": 3}},
        {"output": {"emit": "final"}},
        {"window": {"kind": "whole"}},
    ],
    ids=["independent", "final", "whole"],
)
def test_a_state_of_any_kind_goes_out_and_in_again(
    base: Path, tables: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    _run("kind", LOG.slice(0, HALF), **tables)
    good = read_states("kind")
    export_state("kind", "s.parquet")
    assert import_state("s.parquet", "kind") == len(good)
    assert read_states("kind").equals(good, check_metadata=True)
    for line in (["state", "show", "kind"], ["state", "show", "s.parquet", "--json"]):
        code, _, error = run_command(capfd, *line)
        assert code == 0, error
    if tables.get("window", {}).get("kind") != "whole":
        _run("kind", LOG.slice(HALF), **tables)


def test_a_state_of_other_windows_is_refused_by_import_too(base: Path) -> None:
    _run("four", LOG.slice(0, HALF), window={"kind": "independent", "steps": 4, "stride": 3})
    _run("five", LOG.slice(0, HALF), window={"kind": "independent", "steps": 5, "stride": 3})
    export_state("four", "s.arrow")
    with pytest.raises(StateError, match=r"s\.arrow: row \d .*steps = 5, stride = 3: the state is"):
        import_state("s.arrow", "five")


def test_diff_refuses_keys_that_are_null_or_there_twice(base: Path) -> None:
    good = read_states("out")
    for spoilt, message in (
        (pa.concat_tables([good, good.slice(0, 1)]), "row 6 .* row 0 has the same key"),
        (_second(good, "id", None), "row 1 .* key is null"),
    ):
        write_state_file(spoilt, "s.arrow")
        for pair in (("s.arrow", "out"), ("out", "s.arrow")):
            with pytest.raises(StateError, match=rf"s\.arrow: {message}"):
                diff_states(*pair)


def test_a_column_of_states_is_no_key(base: Path) -> None:
    write_state_file(_meta(read_states("out"), b'["rnn/h"]'), "s.arrow")
    with pytest.raises(StateError, match="key column 'rnn/h': expected a type that a key can have"):
        diff_states("s.arrow", "s.arrow")


# ---- [state] map


def _renamed(path: str) -> None:
    """The same weights under other names: another model, whose outputs can be told."""
    model = logs.small_model()
    other = Sequential(
        [layers.Input((None, 2)), layers.GRU(5, name="new"), layers.Dense(1, name="score")]
    )
    other.set_weights(model.get_weights())
    other.save(path)


@pytest.mark.parametrize("window", [{}, {"kind": "independent", "steps": 4, "stride": 3}])
def test_a_new_model_takes_over_a_stream_with_all_that_is_known_of_it(
    base: Path, window: dict[str, Any]
) -> None:
    """Steps (warmup), last time (max_gap), previous values, rows that wait: as undisturbed."""
    _renamed("new.safetensors")
    tables: dict[str, Any] = {
        "output": {"warmup": 7},
        "window": window,
        "source": {"max_gap": "40m"},
    }
    _run("whole", LOG, **tables)
    _run("first", LOG.slice(0, HALF), **tables)
    export_state("first", "s.parquet")
    summary = _run(
        "second",
        LOG.slice(HALF),
        "new.safetensors",
        state={"init": "s.parquet", "map": {"new": "rnn"}},
        **tables,
    )
    assert summary.state_notes == []
    rows = [*pq.read_table("first").to_pylist(), *pq.read_table("second").to_pylist()]
    assert rows == pq.read_table("whole").to_pylist()
    assert any(row["score"] is None for row in pq.read_table("first").to_pylist()) or window
    ours, theirs = read_states("second"), read_states("whole")
    assert ours.column_names == [n.replace("rnn/", "new/") for n in theirs.column_names]
    assert [c.to_pylist() for c in ours.columns] == [c.to_pylist() for c in theirs.columns]


def test_late_rows_stay_late_under_a_new_model(base: Path) -> None:
    _renamed("new.safetensors")
    write_state_file(read_states("out"), "s.parquet")  # without the files that it has seen
    state = {"init": "s.parquet", "map": {"new": "rnn"}}
    with pytest.raises(Exception, match="time goes backwards"):
        _run("second", LOG.slice(0, HALF), "new.safetensors", state=state)


def test_what_a_table_lacks_is_said_in_the_summary_and_to_validate(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And such a state goes on in its own folder, where some streams have steps and no time."""
    _renamed("new.safetensors")
    table = read_states("out").drop_columns(["last_time", "previous/b"])
    write_state_file(table, "s.arrow")
    tables = {"state": {"init": "s.arrow", "map": {"new": "rnn"}}}
    summary = _run("second", LOG.slice(HALF, 3), "new.safetensors", **tables)
    assert [note.split(":")[0] for note in summary.state_notes] == [
        "the state table has no last_time",
        "the state table has no previous/b",
    ]
    assert "note     the state table has no last_time: " in in_words(summary)
    assert json.loads(json.dumps(summary.as_dict()))["state_notes"] == summary.state_notes
    # Once there is a commit, a run starts from its state.
    assert Pipeline.from_dict(_config("second", "new.safetensors", **tables)).validate() == []
    fresh = {**tables, "sink": {"path": "third"}}
    pipeline = Pipeline.from_dict(_config("second", "new.safetensors", **fresh))
    assert pipeline.validate() == summary.state_notes
    with caplog.at_level(logging.WARNING, "streamrnn.pipeline"):
        pipeline.process(LOG.slice(0, 1))
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == [
        "the state table has no last_time",
        "the state table has no previous/b",
    ]
    unknown = pc.sum(read_states("second").column("last_time").is_null()).as_py()
    assert 0 < unknown < 6
    assert drop_idle("second", timedelta(days=900)) == 0
    good = read_states("second")
    assert len(good) == 6
    export_state("second", "t.parquet")
    assert import_state("t.parquet", "second") == 6
    assert read_states("second").equals(good, check_metadata=True)
    summary = _run("third", LOG.slice(HALF + 3), "new.safetensors", state={"init": "t.parquet"})
    assert f"{unknown} of 6 streams in the state table have steps" in in_words(summary)
    _run("second", LOG.slice(HALF + 3), "new.safetensors", **tables)


@pytest.mark.usefixtures("base")
def test_a_state_of_another_layout_is_named_and_no_output_is_removed_for_it() -> None:
    """Its output cannot start over before that of the state does, as the advice of both says."""
    _run("second", LOG.slice(HALF), state={"init": "out"})
    for output in ("out", "second"):
        path = Path(output, "_streamrnn", "_manifest.json")
        _, rest = path.read_bytes().split(b' "layout": 1,\n')
        rest = b' "layout": 2,\n' + rest
        digest = hashlib.sha256(rest).hexdigest().encode()
        path.write_bytes(b'{\n "sha256": "' + digest + b'",\n' + rest)
    parts = {file: file.read_bytes() for file in Path("second").glob("part-*")}
    again = Pipeline.from_dict(_config("second", state={"init": "out"}))
    for output, options in (("second", {}), ("out", {"full_refresh": True})):
        with pytest.raises(CheckpointError, match=rf"/{output}/_.* start that one over first"):
            again.run(**options)
    assert parts
    assert {file: file.read_bytes() for file in Path("second").glob("part-*")} == parts
    Pipeline.from_dict(_config("out")).run(full_refresh=True)
    again.run(full_refresh=True)
    assert history("second")


def test_a_checkpoint_whose_session_is_damaged_is_refused(base: Path) -> None:
    config = _config(None)
    config["source"].pop("path")
    pipeline = Pipeline.from_dict(config)
    pipeline.process(LOG.slice(0, 20))
    pipeline.checkpoint("c.arrow")
    table = pa.ipc.open_file("c.arrow").read_all()
    session = json.loads(table.schema.metadata[b"streamrnn.session"])
    for change in (
        b"{",
        b"\xff",
        b"7",
        json.dumps({**session, "schema": "AAAA"}).encode(),
        json.dumps({**session, "config": "[]"}).encode(),
        json.dumps({**session, "rows": "7"}).encode(),
        json.dumps({"layout": 1, "rows": 7}).encode(),
    ):
        metadata = {**table.schema.metadata, b"streamrnn.session": change}
        del metadata[b"streamrnn.checksum"]
        write_state_file(table.replace_schema_metadata(metadata), "d.arrow")
        with pytest.raises(StateError, match=r"d\.arrow: the checkpoint is damaged"):
            Pipeline.resume("d.arrow")
    for layout, said in (({}, "was written before version 0.1.0"), ({"layout": 2}, "has layout 2")):
        other = {**{k: v for k, v in session.items() if k != "layout"}, **layout}
        metadata = {**table.schema.metadata, b"streamrnn.session": json.dumps(other).encode()}
        del metadata[b"streamrnn.checksum"]
        write_state_file(table.replace_schema_metadata(metadata), "d.arrow")
        with pytest.raises(StateError, match=rf"^d\.arrow: the checkpoint {re.escape(said)}; "):
            Pipeline.resume("d.arrow")
    assert Pipeline.resume("c.arrow").process(LOG.slice(20)) == pipeline.process(LOG.slice(20))
