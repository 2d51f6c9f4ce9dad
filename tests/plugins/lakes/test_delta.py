"""Runs over Delta tables: what is new in a later version, and what is refused."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalog import DeltaLog
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, DataError, MissingFileError
from streamrnn.outputs import diff_states
from streamrnn.pipeline import Progress, draft_pipeline
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.sources import Table

LOG = logs.random_log(300, nulls=0.1)
PIECES = [LOG.slice(first, 60) for first in range(0, 300, 60)]


@pytest.fixture(autouse=True)
def base(model_dir: Path) -> Path:
    """A model and the log as one Parquet file, in the working directory."""
    pq.write_table(LOG, "log.parquet")
    return model_dir


def pipeline(path: str = "table", out: str = "out", **source: Any) -> Pipeline:
    tables = {"source": {"nulls": "previous", **source}, "checkpoint": {"every": 1, "keep": 9}}
    return Pipeline.from_dict(logs.config(path, "m.safetensors", out, **tables))


def run(path: str = "table", out: str = "out", **source: Any) -> int:
    """The number of rows that a run read."""
    rows: int = pipeline(path, out, **source).run().rows
    return rows


def stop_after(reports: int, out: str, rows: int) -> None:
    """Stop a run when it has reported its progress so often."""
    stop, left = threading.Event(), iter(range(reports))

    def report(_: Progress) -> None:
        if next(left, None) is None:
            stop.set()

    made = pipeline(out=out, batch_rows=rows).run(progress=report, stop=stop)
    assert made.interrupted


def read(out: str) -> pa.Table:
    parts = sorted(Path(out).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts])


def assert_right(out: str = "out") -> None:
    """Rows and state are those of the log in one file."""
    run("log.parquet", "right")
    assert read(out).equals(read("right"))
    assert not diff_states(out, "right")


def table(**options: Any) -> DeltaLog:
    return DeltaLog(Path("table").absolute(), LOG.schema, **options)


def test_each_version_gives_its_new_rows_whatever_was_rewritten() -> None:
    """Appends, rewrites of used and of unread files, deleted files: as one file in the end."""
    log = table()
    log.append(PIECES[0], PIECES[1])
    assert run() == 120
    log.optimize()
    assert run() == 0
    log.append(PIECES[2])
    log.optimize()
    assert run() == 60
    log.append(PIECES[3])
    log.vacuum()
    assert run() == 60
    log.append(PIECES[4].slice(0, 30))
    log.append(PIECES[4].slice(30))
    log.optimize(*list(log.files)[-2:])
    log.vacuum()
    assert run() == 60
    assert run() == 0
    assert_right()


@pytest.mark.parametrize("rows", first_quick([60, 25]))
def test_a_run_that_was_cut_goes_on_after_a_rewrite(rows: int) -> None:
    """In the old files while they are there; else it is refused. Slow: smaller record batches."""
    log = table()
    log.append(*PIECES)
    for commits in range(1, 4):
        stop_after(commits, f"out{commits}", rows)
    log.optimize()
    for commits in range(1, 4):
        assert 0 < run(out=f"out{commits}", batch_rows=rows) < 300
        assert_right(f"out{commits}")


def test_a_run_that_was_cut_is_refused_when_its_files_were_deleted() -> None:
    log = table()
    log.append(*PIECES)
    stop_after(3, "out", 25)
    log.optimize()
    log.vacuum()
    with pytest.raises(CheckpointError, match="OPTIMIZE in version 1, and the files were then"):
        run()


@pytest.mark.parametrize("operation", ["UPDATE", "DELETE", "MERGE", "WRITE"])
def test_changed_rows_are_refused_with_their_version(operation: str) -> None:
    """`force` keeps the output, and reads none of what replaced them."""
    log = table()
    log.append(PIECES[0], PIECES[1])
    run()
    log.optimize()
    old = next(iter(log.files))
    actions = [log.remove(old, True)]
    if operation != "DELETE":
        actions.append(log.add(PIECES[1], True, {}))
    log.commit(operation, actions)
    log.append(PIECES[2])
    with pytest.raises(CheckpointError, match=rf"removed by {operation} in version 2\n.*--force"):
        run()
    assert pipeline().run(force=True).rows == 60
    assert run() == 0
    log.append(PIECES[3])
    assert run() == 60


def test_a_run_starts_over_from_a_table_whose_log_explains_the_files_that_are_gone() -> None:
    """Merged, vacuumed; not if rows were deleted, nor by another table in its place."""
    log = table()
    log.append(PIECES[0], PIECES[1])
    run()
    log.optimize()
    log.vacuum()
    assert pipeline().run(full_refresh=True).rows == 120
    log.commit("DELETE", [log.remove(next(iter(log.files)), True)])
    log.append(PIECES[2])
    with pytest.raises(CheckpointError, match=r"start over with --full-refresh --force"):
        run()
    for _ in range(2):  # also once a run has noted that the file is gone
        with pytest.raises(CheckpointError, match=r"out has 120 rows of 1 file .* --force and"):
            pipeline().run(full_refresh=True)
        pipeline().run(force=True)
    assert pipeline().run(full_refresh=True, force=True).rows == 60
    old = next(iter(log.files))
    log.commit("UPDATE", [log.remove(old, True), log.add(PIECES[1], True, {})])
    log.append(PIECES[1])
    log.commit("DELETE", [log.remove(next(iter(log.files)), True)])
    with pytest.raises(CheckpointError, match=r"out has 60 rows of 1 file .* --force and"):
        pipeline().run(full_refresh=True)
    shutil.rmtree("table")
    table().append(PIECES[3])
    with pytest.raises(CheckpointError, match="start over with --full-refresh --force"):
        run()
    with pytest.raises(CheckpointError, match=r"out has 60 rows of 1 file that the source does"):
        pipeline().run(full_refresh=True)
    assert pipeline().run(full_refresh=True, force=True).rows == 60


def test_changed_rows_are_scored_again_with_reload() -> None:
    """From the commit before the file, as if its rows had been so from the start."""
    log = table()
    log.append(PIECES[0])
    run()
    wrong = PIECES[1].set_column(2, "a", pa.array([9.0] * 60))
    log.append(wrong)
    run()
    log.append(PIECES[2])
    old = list(log.files)[1]
    log.commit("UPDATE", [log.remove(old, True), log.add(PIECES[1], True, {})])
    log.append(PIECES[3], PIECES[4])
    with pytest.raises(CheckpointError, match=r"removed by UPDATE in version 3\n.*--reload"):
        run()
    assert pipeline(late="apply").run(reload=True).rows == 240
    made = read("out")
    assert sorted(map(str, made["t"].to_pylist())) == sorted(map(str, LOG["t"].to_pylist()))
    assert run(late="apply") == 0


def test_earlier_versions_can_be_read() -> None:
    log = table()
    log.append(PIECES[0])
    log.append(PIECES[1])
    log.optimize()
    log.append(PIECES[2])
    assert run(version=1, out="old") == 120
    assert run(version=2, out="old") == 0
    assert run(out="old") == 60
    assert run() == 180
    with pytest.raises(CheckpointError, match=r"version 1 of the table lacks files"):
        run(version=1)
    with pytest.raises(MissingFileError, match="expected a version from 0 to 3, received 7"):
        run(version=7)


def test_partition_columns_have_the_types_of_the_table() -> None:
    """They are in the log only; columns that older files lack are null."""
    schema = LOG.schema.append(pa.field("day", pa.date32())).append(pa.field("c", pa.int64()))
    log = DeltaLog(Path("table").absolute(), schema, ("day",))
    for i, piece in enumerate(PIECES):
        day = f"2024-01-0{i + 1}"
        with_day = piece.append_column("day", pa.array([day] * 60))
        log.append(with_day, day=day)
    config = logs.config("table", "m.safetensors", "out", source={"nulls": "previous"})
    config["output"] = {**config.get("output", {}), "columns": ["id", "t", "day", "c"]}
    Pipeline.from_dict(config).run()
    made = read("out")
    assert made.schema.field("day").type == pa.date32()
    assert made["c"].null_count == 300
    assert set(made["day"].cast(pa.string()).to_pylist()) == {f"2024-01-0{i}" for i in range(1, 6)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"protocol": {"minReaderVersion": 3, "readerFeatures": ["typeWidening", "v2"]}},
            r"requires reader features that are not supported \(typeWidening, v2\)",
        ),
        ({"protocol": {"minReaderVersion": 9}}, r"not supported \(reader version 9\)"),
        ({"configuration": {"delta.columnMapping.mode": "name"}}, r"column mapping \(.*= name\)"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    log = table(**options)
    log.append(PIECES[0])
    with pytest.raises(DataError, match=message):
        run()


def test_deletion_vectors_are_refused_by_name() -> None:
    log = table()
    vector = {"storageType": "u", "pathOrInlineDv": "x", "sizeInBytes": 1, "cardinality": 1}
    log.commit("DELETE", [log.add(PIECES[0], True, {}, deletionVector=vector)])
    with pytest.raises(DataError, match="a deletion vector deletes rows of this file in version 0"):
        run()


def test_a_log_with_a_hole_is_refused() -> None:
    log = table()
    for piece in PIECES[:3]:
        log.append(piece)
    Path("table/_delta_log/00000000000000000001.json").unlink()
    with pytest.raises(DataError, match="its log lacks version 1"):
        run()
    Path("empty").mkdir()
    with pytest.raises(MissingFileError, match=r"empty: not a Delta table: it has no _delta_log"):
        run("empty", format="delta")


def test_a_checkpoint_stands_for_the_versions_before_it() -> None:
    """Those may be gone from the log; what it still explains is known."""
    log = table()
    log.append(PIECES[0])
    log.append(PIECES[1])
    assert run() == 120
    log.append(PIECES[2])
    actions = [
        json.loads(line)
        for path in sorted(Path("table/_delta_log").glob("*.json"))
        for line in path.read_text().splitlines()
    ]
    kinds = ("add", "metaData", "protocol")
    rows = [{k: _mapped(a.get(k)) for k in kinds} for a in actions if a.keys() & set(kinds)]
    text = pa.map_(pa.string(), pa.string())
    schema = pa.Table.from_pylist(rows).schema
    add = pa.struct(
        [f.with_type(text) if f.name == "partitionValues" else f for f in schema.field("add").type]
    )
    metadata = pa.struct(
        [
            f.with_type(text)
            if f.name == "configuration"
            else f.with_type(pa.struct([("provider", pa.string()), ("options", text)]))
            if f.name == "format"
            else f.with_type(pa.list_(pa.string()))
            if f.name == "partitionColumns"
            else f
            for f in schema.field("metaData").type
        ]
    )
    fields = [("add", add), ("metaData", metadata), ("protocol", schema.field("protocol").type)]
    checkpoint = pa.Table.from_pylist(rows, pa.schema(fields))
    pq.write_table(checkpoint, f"table/_delta_log/{2:020}.checkpoint.parquet")
    for number in range(3):
        Path(f"table/_delta_log/{number:020}.json").unlink()
    assert run() == 60
    log.append(PIECES[3])
    log.optimize()
    log.append(PIECES[4])
    assert run() == 120
    assert_right()


def _mapped(value: Any) -> Any:
    """Tables of texts as Parquet's maps."""
    if not isinstance(value, dict):
        return value
    maps = ("partitionValues", "configuration", "options")
    return {k: list(v.items()) if k in maps else _mapped(v) for k, v in value.items()}


def test_a_table_without_rows_is_said_to_have_none() -> None:
    made = table()
    made.append()
    for call in (run, pipeline().explain, pipeline().validate):
        with pytest.raises(
            MissingFileError, match=r"version 0 of the table has no rows yet.*--foll"
        ):
            call()
    with pytest.raises(DataError, match="table has no rows"):
        draft_pipeline("table", "m.safetensors")
    made.append(LOG)
    assert run() == 300


def test_a_table_that_was_made_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that does not know the id of its table learns it; a table may change its id."""
    made = table()
    made.append(PIECES[0])
    with monkeypatch.context() as patch:
        patch.setattr(Table, "id", "")
        run()
    assert read_manifest("out").table == ""
    made.append(PIECES[1])
    assert run() == 60
    assert read_manifest("out").table == "1"
    made.commit("SET", [{"metaData": {**made.metadata, "id": "2"}}])
    made.append(PIECES[2])
    assert run() == 60
    shutil.move("table", "gone")
    again = table()
    again.metadata["id"] = "3"
    again.append(LOG)
    with pytest.raises(CheckpointError, match=r"expected the table 2, .* received the table 3"):
        run()
    assert "dropped and created again" in pipeline().explain()["would_refuse"]
