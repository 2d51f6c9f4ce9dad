"""The files that a new output reads: those that its state has not seen, or `[source] after`."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError, StateError
from streamrnn.outputs import export_state, read_states
from streamrnn.states import read_state_file, write_state_file
from streamrnn.stream.checkpoints import seen_files
from streamrnn.stream.scoring.summary import Summary

LOG = logs.random_log(500)


@pytest.fixture
def base(model_dir: Path) -> Path:
    """A model, and a log of four days."""
    for day in range(4):
        _put(day)
    return model_dir


def _put(day: int) -> None:
    logs.write(
        LOG.slice(100 * day, 100), Path(f"in/year=2013/month=1/day={day + 8}/part-0.parquet")
    )


def _run(
    out: str, options: dict[str, Any] | None = None, time: bool = True, **tables: Any
) -> Summary:
    config = logs.config("in", "m.safetensors", out, **tables)
    if not time:
        del config["source"]["time"]
    return Pipeline.from_dict(config).run(**(options or {}))


def _rows(out: str) -> pa.Table:
    return pq.read_table(out, partitioning=None).select(["id", "score"])


def _two_days_then() -> None:
    """Run the first two days into `one`, export its state, and put the last two days back."""
    shutil.move("in/year=2013/month=1/day=10", "later-10")
    shutil.move("in/year=2013/month=1/day=11", "later-11")
    _run("one")
    export_state("one", "state.parquet")
    shutil.move("later-10", "in/year=2013/month=1/day=10")
    shutil.move("later-11", "in/year=2013/month=1/day=11")


@pytest.mark.parametrize("init", ["state.parquet", "one", "state.arrow"])
@pytest.mark.parametrize("time", [True, False])
def test_a_new_output_reads_what_its_initial_state_has_not_seen(
    base: Path, init: str, time: bool
) -> None:
    """Without times nothing else would keep rows from being scored twice."""
    _two_days_then()
    write_state_file(read_state_file("state.parquet"), "state.arrow")
    summary = _run("two", state={"init": init}, time=time)
    assert summary.rows == 200
    assert any("2 files not read" in note for note in summary.state_notes)
    _run("whole")
    assert _rows("two") == _rows("whole").slice(200)
    assert _run("two", state={"init": init}, time=time).nothing_new
    assert _run("two", {"full_refresh": True}, state={"init": init}, time=time).rows == 200


def test_a_state_in_memory_and_a_saved_one_carry_the_files_too(base: Path) -> None:
    _run("one", state={"save": "saved.parquet"})
    _put(4)
    for state in (read_states("one", seen=True), "saved.parquet"):
        config = logs.config("in", "m.safetensors", "two")
        assert Pipeline.from_dict(config, state=state).run(full_refresh=True).rows == 100


def test_a_state_from_the_middle_of_a_file_resumes_there(base: Path) -> None:
    stop = threading.Event()
    stop.set()
    source = {"batch_rows": 30}
    checkpoint = {"every": 1}
    assert _run("one", {"stop": stop}, source=source, checkpoint=checkpoint).interrupted
    rows = pq.read_table("one").num_rows
    assert 0 < rows < 100
    export_state("one", "state.parquet")
    assert _run("two", state={"init": "state.parquet"}).rows == 400 - rows
    _run("whole")
    assert _rows("two") == _rows("whole").slice(rows)
    shutil.rmtree("in/year=2013/month=1/day=8")  # a narrower source
    assert _run("three", state={"init": "state.parquet"}).rows == 300


def test_a_state_that_has_seen_all_files_has_nothing_to_do(base: Path) -> None:
    """Also if they were touched, and are compared by content."""
    state = {"init": _exported()}
    for path in Path("in").rglob("*.parquet"):
        path.touch()
    assert _run("two", state=state).nothing_new
    assert not Path("two").exists()
    _put(4)
    assert _run("two", state=state).rows == 100


def test_a_file_that_changed_since_is_refused(base: Path) -> None:
    _two_days_then()
    path = Path("in/year=2013/month=1/day=8/part-0.parquet")
    logs.write(LOG.slice(0, 90), path)
    with pytest.raises(CheckpointError, match="changed after its rows were used"):
        _run("two", state={"init": "state.parquet"})


def test_a_damaged_list_of_files_is_refused(base: Path) -> None:
    table = read_state_file(_exported())
    facts = {"sources": [], "position": None, "home": "", "schema": {}}
    wrong = [{**facts, "sources": [{}]}, {**facts, "home": 5}]
    for text in (b"{", b"[]", *(json.dumps(each).encode() for each in wrong)):
        metadata = {**table.schema.metadata, b"streamrnn.sources": text}
        write_state_file(table.replace_schema_metadata(metadata), "bad.parquet")
        with pytest.raises(StateError, match="list of used files"):
            _run("two", state={"init": "bad.parquet"})
    assert seen_files(table.replace_schema_metadata(None), "x") is None


def _exported() -> str:
    _run("one")
    export_state("one", "state.parquet")
    return "state.parquet"


@pytest.mark.parametrize(
    ("after", "rows"),
    [
        ({"path": "day=9/part-0.parquet"}, 200),
        ({"path": "in/year=2013/month=1/day=11/part-0.parquet"}, 0),
        ({"partition": "year=2013/month=1/day=9"}, 200),
        ({"partition": "year=2013/month=1"}, 0),
        ({"partition": "year=2012"}, 400),
        ({"partition": "year=2013"}, 0),
        ({"time": "last of day 9"}, 200),
        ({"time": "1999-01-01"}, 400),
    ],
    ids=str,
)
def test_only_files_after_are_read(base: Path, after: dict[str, Any], rows: int) -> None:
    if after.get("time") == "last of day 9":
        after = {"time": str(pc.max(LOG["t"].slice(0, 200)).as_py()).replace("+00:00", "Z")}
    summary = _run("out", source={"after": after})
    assert summary.rows == rows
    assert _run("out", source={"after": after}).rows == 0


@pytest.mark.parametrize(
    ("after", "error", "message"),
    [
        ({"path": "nope.parquet"}, ConfigError, "no such file among the 4"),
        ({"partition": "hour=1"}, ConfigError, "in no partition 'hour'"),
        ({"partition": "year=2013/month=1/day=x"}, ConfigError, "expected a number"),
        ({"time": "yesterday"}, ConfigError, "received 'yesterday'"),
        ({}, ConfigError, "expected one of path, partition and time"),
        ({"time": "2013-01-01", "path": "x"}, ConfigError, "expected one of"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_refused(
    base: Path, after: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _run("out", source={"after": after})


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (
            {"partition": "day=9"},
            "does not divide the files: in/year=2013/month=1/day=11/part-0.parquet is in the "
            "partitions year, month, day. Name them from the first one on: year=…/month=…/day=9. ",
        ),
        ({"partition": "month=1/day=9"}, "the first one on: year=…/month=1/day=9. Or set { time"),
        ({"partition": "month=1/year=2013"}, "the first one on: year=2013/month=1. "),
        ({"partition": "9"}, "the first one on: year=…/month=…/day=…. "),
        ({"partition": "2013/1"}, "the first one on: year=…/month=…/day=…. "),
        (
            {"path": "part-0.parquet"},
            "path: part-0.parquet: 4 files have this name: in/year=2013/month=1/day=8/part-0.parq"
            "uet, in/year=2013/month=1/day=9/part-0.parquet, in/year=2013/month=1/day=10/part-0.pa"
            "rquet and 1 more. Name one by more of its path",
        ),
    ],
    ids=str,
)
def test_what_does_not_divide_the_files_is_refused(
    base: Path, after: dict[str, Any], message: str
) -> None:
    """A lower level alone would be compared within each partition above it."""
    pipeline = Pipeline.from_dict(
        logs.config("in", "m.safetensors", "out", source={"after": after})
    )
    for act in (pipeline.run, pipeline.explain):
        with pytest.raises(ConfigError) as caught:
            act()
        assert message in str(caught.value)
    assert not Path("out").exists()


def test_a_path_that_several_removed_files_had_is_refused(base: Path) -> None:
    _run("out")
    for day in (8, 9):
        shutil.rmtree(f"in/year=2013/month=1/day={day}")
    for day in (10, 11):
        folder = Path(f"in/year=2013/month=1/day={day}")
        (folder / "part-0.parquet").rename(folder / "part-1.parquet")
    with pytest.raises(ConfigError, match="4 files have this name"):
        _run("out", source={"after": {"path": "part-0.parquet"}})


def test_a_whole_path_is_not_the_end_of_another(base: Path) -> None:
    shutil.rmtree("in")
    for number, name in enumerate(("1", "in/1", "in/2")):
        logs.write(LOG.slice(10 * number, 10), Path(f"in/{name}.parquet"))
    assert _run("out", source={"after": {"path": "in/1.parquet"}}).rows == 20


def test_files_left_out_may_hold_rows_that_the_initial_state_has_seen(base: Path) -> None:
    """As in a copy of the source, in which they have other names."""
    _two_days_then()
    shutil.copytree("in", "copy")
    source = {"path": "copy", "after": {"partition": "year=2013/month=1/day=9"}}
    tables = {"source": source, "state": {"init": "one"}}
    pipeline = Pipeline.from_dict(logs.config("in", "m.safetensors", "two", **tables))
    assert pipeline.explain()["new_files"] == 2
    summary = pipeline.run()
    assert summary.rows == 200
    assert not any("not read" in note for note in summary.state_notes)
    assert Pipeline.from_dict(logs.config("in", "m.safetensors", "two", **tables)).run().nothing_new
    _run("whole")
    assert _rows("two") == _rows("whole").slice(200)
    del source["after"]
    with pytest.raises(CheckpointError, match="2 new files of the source hold the rows of 2 used"):
        _run("three", **tables)


def test_a_file_on_both_sides_of_a_time_is_refused(base: Path) -> None:
    middle = str(LOG["t"][150].as_py()).replace("+00:00", "Z")
    with pytest.raises(DataError, match="has rows before and after"):
        _run("out", source={"after": {"time": middle}})


def test_windows_preview_and_explain_read_what_a_first_run_would(base: Path) -> None:
    """Neither what the initial state has seen, nor what does not come after."""
    _two_days_then()
    _put(4)
    for out, tables in (
        ("two", {"state": {"init": "one"}}),
        ("three", {"source": {"after": {"path": "day=9/part-0.parquet"}}}),
    ):
        pipeline = Pipeline.from_dict(logs.config("in", "m.safetensors", out, **tables))
        assert pipeline.explain()["new_files"] == 3
        assert sum(int(window.lengths.sum()) for window in pipeline.windows()) == 300
        preview = pipeline.preview(20)
        assert pipeline.run().rows == 300
        assert preview.equals(pq.read_table(out, partitioning=None).slice(0, 20))


def _correct(day: int) -> None:
    """Write another version of a day that the initial state has seen."""
    other = LOG.slice(100 * day, 100)
    logs.write(
        other.set_column(2, "a", pc.add(other["a"], 1.0)),
        Path(f"in/year=2013/month=1/day={day + 8}/part-0.parquet"),
    )


def _refusal(options: dict[str, Any] | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        _run("two", options, state={"init": "state.parquet"})
    return str(caught.value)


@pytest.mark.parametrize("committed", [False, True])
def test_a_changed_file_that_the_initial_state_has_seen_is_scored_where_it_was_made(
    base: Path, committed: bool
) -> None:
    """The refusal names the output of the state, and all that it names leads on."""
    _two_days_then()
    if committed:
        assert _run("two", state={"init": "state.parquet"}).rows == 200
    _correct(0)
    for options in ({}, {"reload": True}):
        refusal = _refusal(options)
        assert f"where the state was made ({base}/one), with --reload; export" in refusal
        assert "The initial state has seen" in refusal
        assert "state.parquet" in refusal
        assert ("with --full-refresh" in refusal) == committed
        assert "with --force" in refusal
    moved = [shutil.move(f"in/year=2013/month=1/day={day}", f"later-{day}") for day in (10, 11)]
    with pytest.raises(CheckpointError, match="Start over with --full-refresh"):
        _run("one", {"reload": True})  # there was one run, so no commit before
    _run("one", {"full_refresh": True})
    export_state("one", "state.parquet")
    for path in moved:
        shutil.move(path, f"in/year=2013/month=1/day={path.rpartition('-')[2]}")
    options = {"full_refresh": committed}
    assert _run("two", options, state={"init": "state.parquet"}).rows == 200
    _run("whole")
    assert _rows("two") == _rows("whole").slice(200)


def test_a_changed_file_that_the_initial_state_has_seen_is_skipped_by_force(base: Path) -> None:
    _two_days_then()
    _run("expected", state={"init": "state.parquet"})
    for path in ("later-10", "later-11"):
        shutil.move(f"in/year=2013/month=1/day={path[6:]}", path)
    _correct(0)
    assert _run("two", {"force": True}, state={"init": "state.parquet"}).changed_files == 1
    for path in ("later-10", "later-11"):
        shutil.move(path, f"in/year=2013/month=1/day={path[6:]}")
    assert _run("two", state={"init": "state.parquet"}).rows == 200
    assert _rows("two") == _rows("expected")


def test_a_file_of_the_run_is_reloaded_past_one_that_the_initial_state_has_seen(base: Path) -> None:
    """With --force, as what the initial state has seen stays as it is."""
    _two_days_then()
    shutil.move("in/year=2013/month=1/day=11", "later-11")
    _run("two", state={"init": "state.parquet"})
    shutil.move("later-11", "in/year=2013/month=1/day=11")
    _run("two", state={"init": "state.parquet"})
    before = _rows("two")
    _correct(0)
    _correct(3)
    assert "The initial state has seen" in _refusal({"reload": True})
    assert _rows("two") == before
    summary = _run("two", {"reload": True, "force": True}, state={"init": "state.parquet"})
    assert (summary.rows, summary.changed_files) == (100, 1)
    assert _rows("two").slice(0, 100) == before.slice(0, 100)
    assert _rows("two") != before
    assert _run("two", state={"init": "state.parquet"}).nothing_new


@pytest.mark.parametrize(
    "path",
    [
        "in/year=2013/month=1/day=9/part-0.parquet",
        "{base}/in/year=2013/month=1/day=9/part-0.parquet",
        "day=9/part-0.parquet",
    ],
)
def test_a_path_that_has_been_removed_still_divides_the_files(base: Path, path: str) -> None:
    """What comes before it stays unread, a late file between it and the used ones is read."""
    after = {"path": path.format(base=base)}
    shutil.move("in/year=2013/month=1/day=11", "later-11")
    assert _run("out", source={"after": after}).rows == 100
    shutil.move("later-11", "in/year=2013/month=1/day=11")
    shutil.rmtree("in/year=2013/month=1/day=9")
    pipeline = Pipeline.from_dict(
        logs.config("in", "m.safetensors", "out", source={"after": after})
    )
    assert pipeline.explain()["new_files"] == 1
    assert _run("out", source={"after": after}).rows == 100
    assert _run("out", source={"after": after}).nothing_new
    shutil.rmtree("in/year=2013/month=1/day=10")
    assert _run("out", source={"after": after}).nothing_new
    with pytest.raises(ConfigError, match="no such file among the 2"):
        _run("new", source={"after": after})


def test_a_removed_path_that_the_output_had_used_divides_the_files(base: Path) -> None:
    """It was set later: the first used file comes before it."""
    for day in (9, 10, 11):
        shutil.move(f"in/year=2013/month=1/day={day}", f"later-{day}")
    _run("out")
    shutil.move("later-10", "in/year=2013/month=1/day=10")
    _run("out")
    shutil.move("later-9", "in/year=2013/month=1/day=9")
    shutil.move("later-11", "in/year=2013/month=1/day=11")
    shutil.rmtree("in/year=2013/month=1/day=10")
    assert _run("out", source={"after": {"path": "day=10/part-0.parquet"}}).rows == 100
    assert _rows("out").num_rows == 300


@pytest.mark.parametrize(
    ("values", "partition", "rows"),
    [
        (("2024-01-01", "2024-01-02", "2024-01-03"), "date=2024-1-2", 100),
        (("2024-1-9", "2024-1-10", "2024-1-11"), "date=2024-01-09", 200),
        (("9", "10", "11"), "9", 200),
        (("0.5", "1.25", "10.0"), "date=9", 100),
        (("a2", "a10", "__HIVE_DEFAULT_PARTITION__"), "date=a9", 200),
        (("a2", "a10", "__HIVE_DEFAULT_PARTITION__"), "date=__HIVE_DEFAULT_PARTITION__", 0),
    ],
    ids=str,
)
def test_partitions_are_compared_as_in_the_order_of_paths(
    base: Path, values: tuple[str, ...], partition: str, rows: int
) -> None:
    shutil.rmtree("in")
    for day, value in enumerate(values):
        logs.write(LOG.slice(100 * day, 100), Path(f"in/date={value}/part-0.parquet"))
    assert _run("out", source={"after": {"partition": partition}}).rows == rows
