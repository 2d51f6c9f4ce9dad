"""Outputs in partitions: all that a plain output can, with the same rows."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.engines.in_process import TasksHere
from selection import first_quick
from stream.checkpoints.disks import HastyDisk
from stream.checkpoints.test_edited import MANIFEST, edit

from streamrnn import Pipeline
from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import CheckpointError, ConfigError, DataError, SinkError
from streamrnn.jobs.engines import opening
from streamrnn.outputs import compact, history, rewind, verify
from streamrnn.stream.checkpoints import partitioning_of, read_manifest
from streamrnn.stream.sinks import part

ROWS = 300
LOG = logs.random_log(ROWS, streams=6, nulls=0.05, jitter=3).set_column(
    3, "b", pa.array([None if i % 31 == 0 else i % 3 - 1 for i in range(ROWS)], pa.int32())
)
BY: list[Any] = ["b", {"hour": "hour(t)"}]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    logs.small_model().save(tmp_path / "m.safetensors")
    for index in range(3):
        logs.write(LOG.slice(index * 100, 100), tmp_path / f"log/{index}.parquet")
    return tmp_path


def pipeline(place: Path, out: str = "out", **tables: dict[str, Any]) -> Pipeline:
    tables["source"] = {
        "nulls": "previous",
        "late": "reject",
        "batch_rows": 20,
        **tables.get("source", {}),
    }
    tables["output"] = {"columns": ["id", "t", "b"], **tables.get("output", {})}
    tables.setdefault("checkpoint", {"every": 2})
    weights = str(place / "m.safetensors")
    return Pipeline.from_dict(logs.config(str(place / "log"), weights, str(place / out), **tables))


def rows(out: Path) -> pa.Table:
    """All rows with all columns, in the order of the parts."""
    manifest = read_manifest(str(out))
    partitioning = partitioning_of(manifest)
    return pa.Table.from_batches(
        [
            partitioning.complete(batch, item.name) if partitioning else batch
            for item in manifest.parts
            for batch in pq.ParquetFile(out / item.name).iter_batches()
        ]
    )


def assert_same_rows(out: Path, plain: Path) -> None:
    """Every row is there, of each partition in the order of the plain output."""
    one, other = rows(out), rows(plain)
    assert one.schema.names[: len(other.schema)] == other.schema.names
    assert all(one.schema.field(name) == other.schema.field(name) for name in other.schema.names)
    expected = defaultdict(list)
    for row in other.to_pylist():
        expected[row["b"], row["t"].hour].append(row)
    found = defaultdict(list)
    for row in one.to_pylist():
        hour = row.pop("hour")
        found[row["b"], hour].append(row)
    assert found == expected


EMITS: list[dict[str, Any]] = [{}, {"emit": "last", "last_of": 3}, {"emit": "final"}]


@pytest.mark.parametrize("emit", first_quick(EMITS), ids=["every", "last", "final"])
def test_the_rows_are_those_of_a_plain_output(place: Path, emit: dict[str, Any]) -> None:
    """Slow: outputs of the last and of final rows."""
    plain = pipeline(place, "plain", output=emit).run()
    summary = pipeline(place, output=emit, sink={"partition_by": BY}).run()
    assert summary.rows_out == plain.rows_out
    assert summary.rejected == plain.rejected > 0
    assert_same_rows(place / "out", place / "plain")
    assert verify(str(place / "out")).rows == plain.rows_out
    assert pq.read_table(place / "out.rejects").equals(pq.read_table(place / "plain.rejects"))
    assert not list((place / "out.rejects").glob("*=*"))


def test_a_part_tells_its_partition(place: Path) -> None:
    pipeline(place, sink={"partition_by": BY}).run()
    manifest = read_manifest(str(place / "out"))
    assert [item.number for item in manifest.parts] == list(range(len(manifest.parts)))
    for item in manifest.parts:
        assert list(item.partition) == ["b", "hour"]
        assert item.name == f"{item.folder}/part-{item.number:05d}.parquet"
        assert item.renamed(8).name == f"{item.folder}/part-{item.number:08d}.parquet"
    assert {item.partition["b"] for item in manifest.parts} >= {None, "-1", "1"}
    partitioning = partitioning_of(manifest)
    assert partitioning is not None
    assert partitioning.fields == (pa.field("b", pa.int32()), pa.field("hour", pa.int32()))


def test_days_are_appended_and_merged_and_undone(place: Path) -> None:
    """compact merges within partitions, and a rewind still finds each retained commit."""
    source = place / "log"
    later = [path.rename(place / path.name) for path in sorted(source.iterdir())[1:]]
    counts = []
    sink = {"partition_by": BY}
    for path in [None, *later]:
        if path is not None:
            path.rename(source / path.name)
        pipeline(place, sink=sink, checkpoint={"every": 1, "keep": 3}).run()
        counts.append(verify(str(place / "out")).rows)
    pipeline(place, "plain").run()
    before = read_manifest(str(place / "out"))
    compact(str(place / "out"))
    merged = read_manifest(str(place / "out"))
    assert len(merged.parts) < len(before.parts)
    numbers = [item.number for item in merged.parts]
    assert numbers == sorted(numbers)
    assert_same_rows(place / "out", place / "plain")
    assert [commit.rows for commit in history(str(place / "out"))] == counts
    first = history(str(place / "out"))[0].commit
    assert rewind(str(place / "out"), first).rows == counts[0]
    verify(str(place / "out"))
    pipeline(place, sink=sink).run()
    assert_same_rows(place / "out", place / "plain")
    assert verify(str(place / "out")).rows == counts[-1]


def test_more_digits(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "WIDTHS", (1, 3))
    pipeline(place, "plain").run()
    pipeline(place, sink={"partition_by": BY}).run()
    assert {item.width for item in read_manifest(str(place / "out")).parts} == {3}
    verify(str(place / "out"))
    assert_same_rows(place / "out", place / "plain")


def test_shards_write_their_own_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that are repeated, in any order."""
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(1))
    pipeline(place, "plain").run()
    engine = {"type": "ray", "shards": 3, "epoch_rows": 120}
    pipeline(place, sink={"partition_by": BY}, engine=engine).run()
    verify(str(place / "out"))
    one = rows(place / "out").select(["id", "t", "b", "score"])
    assert sorted(map(repr, one.to_pylist())) == sorted(
        map(repr, rows(place / "plain").to_pylist())
    )
    by_stream = defaultdict(list)
    for row in one.to_pylist():
        by_stream[row["id"], row["b"], row["t"].hour].append(row["t"])
    assert all(times == sorted(times) for times in by_stream.values())


def test_labels_are_matched_whatever_the_partitions(place: Path) -> None:
    """A stream goes from partition to partition and back; its rows are found all the same."""
    target = {"column": "a"}
    found = []
    for name, sink in (
        ("plain", {}),
        ("out", {"partition_by": BY}),
        ("key", {"partition_by": "id"}),
    ):
        made = pipeline(place, name, sink=sink, target=target)
        made.run()
        compact(str(place / name))
        found.append(made.evaluate())
    for other in found[1:]:
        assert other.counts() == found[0].counts()
        assert other.table.select(["output", "rows"]).equals(
            found[0].table.select(["output", "rows"])
        )
    assert found[0].rows > 200


def test_other_partitions_are_another_pipeline(place: Path) -> None:
    """And an output that is older than the key has none."""
    pipeline(place).run()
    with pytest.raises(CheckpointError, match=r"sink\.partition_by: was"):
        pipeline(place, sink={"partition_by": BY}).run()
    pipeline(place, sink={"partition_by": BY}).run(full_refresh=True)
    assert not list((place / "out").glob("*.parquet"))
    verify(str(place / "out"))
    with pytest.raises(CheckpointError, match=r'was \["b", "hour = hour\(t\)"\]'):
        pipeline(place, sink={"partition_by": [{"hour": "hour(t)"}, "b"]}).run()


def test_a_refresh_after_a_lost_manifest_removes_the_partitions(place: Path) -> None:
    pipeline(place, sink={"partition_by": BY}).run()
    Path(place, "out/_streamrnn/_manifest.json").write_text("lost")
    pipeline(place).run(full_refresh=True)
    assert not [path for path in (place / "out").iterdir() if "=" in path.name]
    verify(str(place / "out"))


def test_files_of_others_are_not_touched_and_are_told(place: Path) -> None:
    pipeline(place, sink={"partition_by": BY}).run()
    known = read_manifest(str(place / "out")).parts[0]
    for name in ("part-00099.parquet", "x=1/part-00099.parquet", f"{known.folder}/mine.parquet"):
        path = place / "out" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((place / "out" / known.name).read_bytes())
        with pytest.raises(CheckpointError, match="holds files with rows that none of its commits"):
            verify(str(place / "out"))
        logs.write(LOG.slice(0, 0), place / "log/empty.parquet")
        pipeline(place, sink={"partition_by": BY}).run()
        assert path.exists()
        path.unlink()


def test_folders_of_others_are_refused(place: Path) -> None:
    (place / "out/b=1").mkdir(parents=True)
    pq.write_table(pa.table({"v": [1]}), place / "out/b=1/part-00000.parquet")
    with pytest.raises(CheckpointError, match="is not empty"):
        pipeline(place, sink={"partition_by": BY}).run()
    (place / "out/b=1/part-00000.parquet").unlink()
    pipeline(place, sink={"partition_by": BY}).run()  # empty folders are what a dead run leaves


def test_a_missing_part_is_told_by_its_path(place: Path) -> None:
    pipeline(place, sink={"partition_by": BY}).run()
    name = read_manifest(str(place / "out")).parts[1].name
    (place / "out" / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        verify(str(place / "out"))
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        pipeline(place, sink={"partition_by": BY}).run()


def test_an_output_without_rows_has_no_partition(place: Path) -> None:
    for path in (place / "log").iterdir():
        path.unlink()
    logs.write(LOG.slice(0, 0), place / "log/empty.parquet")
    summary = pipeline(place, sink={"partition_by": BY}).run()
    assert summary.parts == []
    assert verify(str(place / "out")).parts == 0


def test_a_disk_that_ignores_case_is_noticed_before_the_commit(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`id=S1` would be written into the folder `id=s1`."""
    entries = LocalFiles.entries
    for index in range(3):
        table = LOG.slice(index * 100, 100)
        ids = [name.upper() if i % 2 else name for i, name in enumerate(table["id"].to_pylist())]
        logs.write(table.set_column(0, "id", pa.array(ids)), place / f"log/{index}.parquet")

    def first_of_each(self: LocalFiles, folder: str) -> list[str]:
        found: dict[str, str] = {}
        for name in entries(self, folder):
            found.setdefault(name.lower(), name)
        return sorted(found.values())

    monkeypatch.setattr(LocalFiles, "entries", first_of_each)
    with pytest.raises(SinkError, match="differs only in case or Unicode form"):
        pipeline(place, sink={"partition_by": "id"}).run()
    monkeypatch.undo()
    assert not (place / "out/_streamrnn/_manifest.json").exists()
    pipeline(place, sink={"partition_by": "id"}).run()
    assert verify(str(place / "out")).rows == ROWS


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        (
            {"path": "-", "partition_by": "b"},
            "partitions are folders, but the output goes to stdout",
        ),
        ({"partition_by": {"d": "week(t)"}}, "expected .*year.*day.*hour.*received 'week'"),
        ({"partition_by": {"d": "t"}}, "d: expected year, month, day or hour of a column"),
        ({"partition_by": ["b", "B"]}, '"b" and "B" differ only in case'),
        ({"partition_by": ["b", "b"]}, '"b" is given more than once'),
        ({"partition_by": ["_b"]}, "readers skip folders"),
        ({"partition_by": ["a/b"]}, "'/' cannot be in the name of a folder"),
        ({"partition_by": [1]}, "expected a column, or a table"),
    ],
)
def test_what_the_file_alone_shows_is_refused_by_name(
    place: Path, sink: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s)sink.partition_by.*{message}"):
        pipeline(place, sink={"path": str(place / "out"), **sink})


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("score", "'score' is float"),
        ("idd", r"'idd' is not a column of the output; did you mean .id"),
        ({"b": "day(t)"}, "'b' is also a column of the output"),
        ({"day": "day(b)"}, "expected a timestamp or a date, but 'b' is int32"),
    ],
)
def test_what_the_columns_show_is_refused_before_the_first_row(
    place: Path, by: Any, message: str
) -> None:
    made = pipeline(place, sink={"partition_by": by})
    for act in (made.explain, made.validate, made.run):
        with pytest.raises(ConfigError, match=message):
            act()
    assert not (place / "out").exists()


def test_explain_shows_the_levels(place: Path) -> None:
    found = pipeline(place, sink={"partition_by": BY}).explain()
    assert found["partition_by"] == ["b", "hour = hour(t)"]


def test_a_value_that_cannot_be_a_folder_stops_the_run(place: Path) -> None:
    table = LOG.slice(0, 100)
    ids = ["" if i == 70 else name for i, name in enumerate(table["id"].to_pylist())]
    logs.write(table.set_column(0, "id", pa.array(ids)), place / "log/0.parquet")
    with pytest.raises(DataError, match="column 'id' has the value ''"):
        pipeline(place, sink={"partition_by": "id"}).run()
    verify(str(place / "out"))


def test_a_name_that_was_edited_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline(place, sink={"partition_by": BY}).run()
    monkeypatch.chdir(place)
    good = json.loads(MANIFEST.read_bytes())
    del good["sha256"]
    for name in ("../part-00000.parquet", "part-00000.parquet", "b=1/hour=x/../part-00000.parquet"):
        edit(good, ("outputs", "rows", "parts", 0, "name"), name)
        with pytest.raises(CheckpointError, match="name of rows: expected b=…/hour=…/part-…, rec"):
            verify("out")


def test_a_changed_day_is_reloaded(place: Path) -> None:
    """The partitions of its commit, and later ones, are taken back; nothing else is left."""
    last = (place / "log/2.parquet").rename(place / "last.parquet")
    options = {"sink": {"partition_by": BY}, "checkpoint": {"every": 10, "keep": 5}}
    pipeline(place, **options).run()
    last.rename(place / "log/2.parquet")
    pipeline(place, **options).run()
    changed = LOG.slice(200, 100)
    changed = changed.set_column(2, "a", pa.array(range(100), pa.float64()))
    logs.write(changed, place / "log/2.parquet")
    pipeline(place, **options).run(reload=True)
    pipeline(place, "plain").run()
    assert_same_rows(place / "out", place / "plain")
    names = {item.name for item in read_manifest(str(place / "out")).parts}
    assert {
        str(path.relative_to(place / "out")) for path in (place / "out").glob("*/*/*.parquet")
    } == names


def test_arrow_files_are_divided_too(place: Path) -> None:
    pipeline(place, sink={"partition_by": BY, "format": "arrow"}).run()
    verify(str(place / "out"))
    names = [item.name for item in read_manifest(str(place / "out")).parts]
    assert all(name.endswith(".arrow") for name in names)
    found = sum(pa.ipc.open_file(place / "out" / name).read_all().num_rows for name in names)
    assert found == verify(str(place / "out")).rows
