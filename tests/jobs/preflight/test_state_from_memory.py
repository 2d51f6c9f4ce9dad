"""A state in memory starts a pipeline as the same state in a file does; `Pipeline.state`."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline, StateTable
from streamrnn.errors import CheckpointError, ConfigError, DataError, DTypeError, StateError
from streamrnn.outputs import export_state, read_states
from streamrnn.states import write_state_file

LOG = logs.random_log(200, streams=6, nulls=0.1)
HALF = 120
Given = Callable[[pa.Table], Any]


class Capsule:
    """An object that only speaks the PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


IN_MEMORY: dict[str, Given] = {
    "table": lambda table: table,
    "chunks": lambda table: pa.concat_tables([table.slice(0, 2), table.slice(2)]),
    "state table": StateTable.from_arrow,
    "capsule": Capsule,
}
PATHS: dict[str, Given] = {
    "file": lambda table: "s.parquet",
    "path": lambda table: Path("s.parquet"),
    "folder": lambda table: "first",
}


@pytest.fixture(autouse=True)
def base(model_dir: Path) -> Path:
    """The state of the first half of a log: in the folder `first`, and in `s.parquet`."""
    logs.write(LOG.slice(0, HALF), Path("in/0.parquet"))
    Pipeline.from_dict(config("first")).run()
    export_state("first", "s.parquet")
    logs.write(LOG.slice(HALF), Path("rest/0.parquet"))
    return model_dir


def config(out: str | None, source: str = "in", **tables: Any) -> dict[str, Any]:
    rules = {"nulls": "previous", "max_gap": "2h"}
    return logs.config(source, "m.safetensors", out, source=rules, **tables)


def first_state() -> pa.Table:
    return read_states("first")


def rest(out: str, given: Any = None, **tables: Any) -> Pipeline:
    """A pipeline over the second half of the log."""
    return Pipeline.from_dict(config(out, "rest", **tables), state=given)


@pytest.mark.parametrize("given", [*IN_MEMORY, *PATHS])
def test_a_given_state_is_what_init_is(given: str) -> None:
    """Output, state and summary of a run; the same rows from process; from TOML too."""
    init = Pipeline.from_dict(config("init", "rest", state={"init": "s.parquet"}))
    summary = init.run()
    state = {**IN_MEMORY, **PATHS}[given](first_state())
    found = rest("given", state)
    assert found.run().fresh_init_streams == summary.fresh_init_streams
    assert pq.read_table("given") == pq.read_table("init")
    assert read_states("given").equals(read_states("init"), check_metadata=True)
    scored = rest("none", state).process(LOG.slice(HALF))
    assert scored == pq.read_table("init").combine_chunks()
    Path("p.toml").write_text(
        '[source]\npath = "rest"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        'nulls = "previous"\nmax_gap = "2h"\n[model]\npath = "m.safetensors"\n'
        '[state]\ninit = "nowhere.parquet"\n'
    )
    scored = Pipeline.from_toml("p.toml", ["window.lanes=3"], state=state).process(LOG.slice(HALF))
    assert scored == pq.read_table("init").combine_chunks()


def test_init_takes_an_output_folder() -> None:
    Pipeline.from_dict(config("a", "rest", state={"init": "first"})).run()
    Pipeline.from_dict(config("b", "rest", state={"init": "s.parquet"})).run()
    assert pq.read_table("a") == pq.read_table("b")


def _second(table: pa.Table, name: str, value: Any) -> pa.Table:
    values = table.column(name).to_pylist()
    values[1] = value
    field = table.schema.field(name)
    return table.set_column(table.column_names.index(name), name, pa.array(values, field.type))


BROKEN: dict[str, Callable[[pa.Table], pa.Table]] = {
    "NaN": lambda t: _second(t, "rnn/h", [float("nan")] * 5),
    "a stream twice": lambda t: _second(t, "id", t.column("id")[0].as_py()),
    "negative steps": lambda t: _second(t, "steps", -1),
    "no metadata": lambda t: t.replace_schema_metadata(None),
    "another model": lambda t: t.replace_schema_metadata(
        {**t.schema.metadata, b"streamrnn.fingerprint": b"0"}
    ),
    "no last time": lambda t: t.drop_columns(["last_time"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_state_in_memory_is_refused_with_the_words_for_a_file(name: str) -> None:
    """But for its name."""
    table = BROKEN[name](first_state())
    write_state_file(table, "broken.parquet")
    with pytest.raises(StateError) as of_file:
        rest("x", "broken.parquet").run()
    with pytest.raises(StateError, match=r"\[state\] init: memory:[0-9a-f]{16}: ") as in_memory:
        rest("y", table).run()
    said = str(in_memory.value).partition(": memory:")[2][16:]
    assert said == str(of_file.value).partition("broken.parquet")[2]
    with pytest.raises(StateError, match="memory:"):
        rest("y", table).validate()
    assert not list(Path("y").rglob("*.parquet"))


def test_another_model_takes_it_over_by_a_map(caplog: pytest.LogCaptureFixture) -> None:
    tables = {"state": {"map": {"rnn": "rnn"}}}
    model = logs.small_model()
    model.set_weights([weight / 2 for weight in model.get_weights()])
    model.save("m.safetensors")
    with pytest.raises(StateError, match="state of another model"):
        rest("z", first_state()).run()
    lean = first_state().drop_columns(["previous/b"])
    write_state_file(lean, "lean.parquet")
    one, two = rest("a", lean, **tables), rest("b", "lean.parquet", **tables)
    assert one.run().state_notes == two.run().state_notes != []
    assert pq.read_table("a") == pq.read_table("b")
    with caplog.at_level(logging.WARNING, "streamrnn.pipeline"):
        rest("c", lean, **tables).process(LOG.slice(HALF, 1))
    assert "previous/b" in caplog.text
    with pytest.raises(StateError, match="'lstm' is not a layer of this model"):
        rest("e", lean, state={"map": {"lstm": "rnn"}}).run()


def test_what_is_no_table_or_damaged_is_refused_at_once() -> None:
    with pytest.raises(DTypeError, match=r"^state: expected a pyarrow\.Table.*received list"):
        rest("x", [1])
    offsets = pa.array([0, 900, 3], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abc")])
    with pytest.raises(DataError, match=r"^state: not a readable state table"):
        rest("x", pa.table({"id": text}))


def test_an_output_goes_on_with_the_state_it_began_with_alone() -> None:
    """A table has the name of its content: in other chunks it is the same, another is refused."""
    table = first_state()
    rest("out", table).run()
    assert rest("out", IN_MEMORY["chunks"](table)).run().nothing_new
    for other in (table.slice(1), "s.parquet"):
        with pytest.raises(CheckpointError, match=r"state\.init: was \"memory:.*, is now \".*"):
            rest("out", other).run()
    assert rest("out", table.slice(1)).run(full_refresh=True).streams == 6


def test_a_state_table_counts_as_it_was_when_it_was_given() -> None:
    live = Pipeline.from_dict(config(None))
    live.process(LOG.slice(0, HALF))
    given = rest("x", live.state)
    live.process(LOG.slice(HALF))
    assert given.process(LOG.slice(HALF, 30)) == rest("y", "s.parquet").process(LOG.slice(HALF, 30))


def test_it_is_pickled_and_not_part_of_a_checkpoint() -> None:
    """After a checkpoint `process` needs it no more, and a run says what it lacks."""
    given = rest("x", first_state())
    expected = rest("y", first_state()).process(LOG.slice(HALF))
    again = pickle.loads(pickle.dumps(given))
    assert again.process(LOG.slice(HALF)) == expected
    assert pickle.loads(pickle.dumps(again)).run().streams == 6
    given.process(LOG.slice(HALF, 10))
    given.checkpoint("c.arrow")
    resumed = Pipeline.resume("c.arrow")
    assert resumed.process(LOG.slice(HALF + 10)) == expected.slice(10)
    with pytest.raises(ConfigError, match=r"memory:.*was passed in memory.*state= of Pipeline"):
        resumed.run(full_refresh=True)


def test_tables_of_the_file_that_are_none_are_reported_as_such() -> None:
    with pytest.raises(ConfigError, match=r"state: expected a table \[state\]"):
        Pipeline.from_dict({**config("x"), "state": 7}, state=first_state())


# ---- Pipeline.state


@pytest.mark.parametrize("given", ["table", "state table", "file", "folder"])
def test_before_the_first_call_the_state_is_the_one_given(given: str) -> None:
    """With a source, with one that does not exist yet, and without."""
    state = {**IN_MEMORY, **PATHS}[given](first_state())
    for data in (config("x", "rest"), config("x", "not/yet"), config(None)):
        if data["sink"] == {}:
            data["source"].pop("path")
        pipeline = Pipeline.from_dict(data, state=state)
        assert pa.table(pipeline.state).equals(first_state(), check_metadata=True)
    assert pipeline.process(LOG.slice(HALF)).num_rows == 80


@pytest.mark.parametrize(
    "output",
    [
        {},
        {"emit": "final"},
        {"emit": "final", "columns": "*"},
        {"emit": "final", "columns": "*", "model_column": "model"},
    ],
)
@pytest.mark.parametrize("window", [{}, {"kind": "independent", "steps": 4}])
def test_it_has_the_columns_of_every_kind_and_emit_mode(
    output: dict[str, Any], window: dict[str, Any]
) -> None:
    data = config(None, output=output, window=window)
    data["source"].pop("path")
    first = Pipeline.from_dict(data)
    first.process(LOG.slice(0, HALF).select(["id", "t", "a", "b"]))
    exported = first.state.to_arrow()
    found = Pipeline.from_dict(data, state=exported).state.to_arrow()
    assert found.equals(exported, check_metadata=True)


def test_before_the_first_call_it_has_no_stream_without_an_initial_state() -> None:
    state = Pipeline.from_dict(config("x")).state
    assert state.to_arrow().equals(first_state().slice(0, 0), check_metadata=True)
    assert list(state.initial_states()) == ["rnn/h"]
    data = config(None)
    data["source"].pop("path")
    pipeline = Pipeline.from_dict(data)
    with pytest.raises(ConfigError, match=r"before the first call of process.*slice\(0, 0\)"):
        _ = pipeline.state
    pipeline.process(LOG.slice(0, 0))
    assert pipeline.state.to_arrow().equals(first_state().slice(0, 0), check_metadata=True)


def test_after_a_run_it_is_the_committed_one() -> None:
    """Until process has been called, which does not go on from what a run committed."""
    pipeline = rest("out", first_state())
    pipeline.run()
    assert pipeline.state.to_arrow().equals(read_states("out"), check_metadata=True)
    pipeline.run()
    assert pipeline.state.to_arrow().equals(read_states("out"), check_metadata=True)
    pipeline.process(LOG.slice(0, 0))
    assert pipeline.state.to_arrow().equals(first_state(), check_metadata=True)


def test_after_a_run_to_stdout_it_is_what_the_run_left(capfd: pytest.CaptureFixture[str]) -> None:
    pipeline = rest("-", first_state())
    pipeline.run()
    rest("out", first_state()).run()
    assert pipeline.state.to_arrow().equals(read_states("out"), check_metadata=True)


def test_after_a_run_that_failed_it_is_the_one_before() -> None:
    pipeline = rest("first", first_state())
    with pytest.raises(CheckpointError, match="another pipeline"):
        pipeline.run()
    assert pipeline.state.to_arrow().equals(first_state(), check_metadata=True)


def test_an_empty_state_is_not_taken_for_none() -> None:
    """A table without streams is false to Python."""
    logs.write(LOG.slice(0, 0), Path("empty/0.parquet"))
    pipeline = Pipeline.from_dict(config("out", "empty"), state=first_state().slice(0, 0))
    pipeline.run()
    assert len(pipeline.state) == 0


# ---- StateTable.from_arrow


def test_a_state_table_comes_from_what_other_libraries_make_of_one() -> None:
    """Large strings, lists for lists of a fixed size, another order of columns."""
    table = first_state()
    odd = table.select(table.column_names[::-1])
    for name, kind in (("id", pa.large_string()), ("rnn/h", pa.large_list(pa.float32()))):
        at = odd.column_names.index(name)
        odd = odd.set_column(at, name, odd.column(name).cast(kind))
    odd = odd.replace_schema_metadata(table.schema.metadata)
    found = StateTable.from_arrow(odd).to_arrow()
    assert found.column("rnn/h") == table.column("rnn/h")
    assert found.column("id").to_pylist() == table.column("id").to_pylist()
    assert rest("x", StateTable.from_arrow(odd)).state.to_arrow() == table


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda t: t.replace_schema_metadata(None), StateError, "the table: not a state table"),
        (
            lambda t: t.append_column("region", pa.array(["x"] * 6)),
            StateError,
            r"column 'region' \(string\) is not a column of a state table. Drop it",
        ),
        (BROKEN["NaN"], StateError, r"row 1 \(from 0\): stream id='s\d': column 'rnn/h': .*NaN"),
        (
            lambda t: t.slice(0, 0).set_column(
                t.column_names.index("rnn/h"), "rnn/h", pa.array([], pa.list_(pa.float32()))
            ),
            StateError,
            "column 'rnn/h': expected lists of a fixed size",
        ),
        (
            lambda t: t.replace_schema_metadata({**t.schema.metadata, b"streamrnn.layers": b"["}),
            StateError,
            "expected a JSON object as metadata",
        ),
        (lambda t: 7, DTypeError, "received int"),
    ],
)
def test_what_is_no_state_table_is_refused(
    spoil: Callable[[pa.Table], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        StateTable.from_arrow(spoil(first_state()))


def test_the_initial_state_is_known_where_it_was_given() -> None:
    table = first_state()
    with pytest.raises(StateError, match="the initial state of a stream is not in an Arrow table"):
        StateTable.from_arrow(table).initial_states()
    half = {"rnn/h": np.full(5, 0.5, np.float32)}
    known = StateTable.from_arrow(table, half)
    slots = known.find([pa.array(["new"])])
    assert known.to_arrow(slots).column("rnn/h").to_pylist() == [[0.5] * 5]
    assert known.initial_states()["rnn/h"].tolist() == [0.5] * 5
    assert json.loads(table.schema.metadata[b"streamrnn.keys"]) == ["id"]
