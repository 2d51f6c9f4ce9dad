"""Rows that `process` has scored, and a run over files that have them, too."""

import re
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.cli import main
from streamrnn.errors import AlreadyProcessed, LateRowError, StateError
from streamrnn.outputs import drop_streams, import_state, read_states, rewind
from streamrnn.states import write_state_file
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.scoring.summary import Summary
from streamrnn.stream.states.positions import from_json

LOG = logs.random_log(300)
DAYS = [LOG.slice(start, 100) for start in (0, 100, 200)]
POSITION = {"day": "2.parquet", 0: 7, b"\xff": 1}


@pytest.fixture(autouse=True)
def folder(model_dir: Path) -> Path:
    """Day 1 scored by a run, day 2 by `process` from the state of its output."""
    logs.write(DAYS[0], Path("in/1.parquet"))
    _run("out")
    live = Pipeline.from_dict(logs.config("in", "m.safetensors", "out"), state="output")
    live.process(DAYS[1], position=POSITION)
    live.checkpoint("c.arrow")
    for day in (1, 2):
        logs.write(DAYS[day], Path(f"in/{day + 1}.parquet"))
    return model_dir


def _run(out: str, **tables: Any) -> Summary:
    return Pipeline.from_dict(logs.config("in", "m.safetensors", out, **tables)).run()


def _positions(out: str) -> object:
    return from_json(read_manifest(out).positions)


def _assert_the_rest_is_scored_once(out: str, days: list[int]) -> None:
    """The rows of a run over all three days, but for those that `process` has scored."""
    _run("whole")
    expected = pq.read_table("whole")
    kept = pa.concat_tables([expected.slice(100 * day, 100) for day in days])
    assert pq.read_table(out) == kept
    assert read_states(out).sort_by("id") == read_states("whole").sort_by("id")


def test_an_import_takes_the_position_of_a_checkpoint_along() -> None:
    assert _positions("out") is None
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["state", "import", "c.arrow", "out"])
    assert _positions("out") == POSITION
    drop_streams("out", ["s0"])
    assert _positions("out") == POSITION
    live = Pipeline.from_dict(logs.config("in", "m.safetensors", "out"), state="output")
    for _ in range(2):
        assert live.position == POSITION
        with pytest.raises(AlreadyProcessed):
            live.process(DAYS[1], position=POSITION)


def test_a_position_belongs_to_its_state() -> None:
    """A table without one, and an earlier commit, do not keep it; a run does."""
    write_state_file(read_states("out"), "before.arrow")
    import_state("c.arrow", "out")
    _run("out", source={"after": {"path": "2.parquet"}})
    assert _positions("out") == POSITION
    rewind("out", to=1)
    assert _positions("out") is None
    import_state("c.arrow", "out")
    import_state("before.arrow", "out")
    assert _positions("out") is None


def test_a_manifest_without_a_position_has_no_key_for_it() -> None:
    assert b"positions" not in Path("out/_streamrnn/_manifest.json").read_bytes()


@pytest.mark.parametrize("way", ["import", "init"])
def test_a_run_over_files_that_process_has_read_says_so_and_what_to_do(way: str) -> None:
    """What it says is done, and each row is scored once."""
    out, tables = "out", dict[str, Any]()
    if way == "import":
        import_state("c.arrow", "out")
    else:
        out, tables = "rest", {"state": {"init": "c.arrow"}}
        Path("in/1.parquet").rename("1.parquet")
    with pytest.raises(LateRowError) as caught:
        _run(out, **tables)
    text = str(caught.value)
    assert f"a checkpoint of `process`, whose last position is {POSITION!r}" in text
    assert "in/2.parquet" in text
    (time,) = re.findall(r'\[source\] after = \{ time = "([^"]+)" \}', text)
    assert _run(out, source={"after": {"time": time}}, **tables).rows == 100
    assert _run(out, source={"after": {"time": time}}, **tables).nothing_new
    if way == "init":
        Path("1.parquet").rename("in/1.parquet")
    _assert_the_rest_is_scored_once(out, [0, 2] if way == "import" else [2])


def test_a_file_with_rows_on_both_sides_is_divided_as_its_message_says() -> None:
    import_state("c.arrow", "out")
    logs.write(LOG.slice(150, 150), Path("in/2.parquet"))
    Path("in/3.parquet").unlink()
    with pytest.raises(LateRowError) as caught:
        _run("out")
    (time,) = re.findall(r'after = \{ time = "([^"]+)" \}', str(caught.value))
    after = {"source": {"after": {"time": time}}}
    with pytest.raises(Exception, match="or write the later rows to another file"):
        _run("out", **after)
    logs.write(DAYS[2], Path("in/3.parquet"))
    logs.write(LOG.slice(150, 50), Path("in/2.parquet"))
    assert _run("out", **after).rows == 100


def test_a_damaged_position_is_refused() -> None:
    table = pa.ipc.open_file("c.arrow").read_all()
    for text in (b'{"positions": [[]]}', b'{"positions": {"a": 1}}', b"7", b"{"):
        metadata = {**table.schema.metadata, b"streamrnn.session": text}
        write_state_file(table.replace_schema_metadata(metadata), "d.arrow")
        with pytest.raises(StateError, match=r"^d\.arrow: the position in its metadata is damaged"):
            import_state("d.arrow", "out")
