"""Delta tables that the library `deltalake` writes: the rows are those that it reads."""

from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, DataError
from streamrnn.stream.sources import FileSource, open_table

pytestmark = pytest.mark.usefixtures("model_dir")

deltalake: Any = pytest.importorskip("deltalake", reason="needs the oracles extra")

LOG = logs.random_log(300, nulls=0.1)


def run(**source: Any) -> int:
    config = logs.config("table", "m.safetensors", "out", source={"nulls": "previous", **source})
    rows: int = Pipeline.from_dict(config).run().rows
    return rows


def write(table: pa.Table, **options: Any) -> None:
    deltalake.write_deltalake("table", table, mode="append", **options)


def rows_of(version: int | None) -> list[dict[str, Any]]:
    found = open_table("table", "auto", version)
    assert found is not None
    source = FileSource(found.files, None, 1000, format="parquet", table=found)
    return [row for each in source.batches() for row in each.batch.to_pylist()]


def test_each_version_has_the_rows_that_deltalake_reads() -> None:
    """After appends in partitions, deletes, updates, merges, rewrites and a restore."""
    table = LOG.append_column("day", pa.array([i // 100 for i in range(300)], pa.int32()))
    table = table.append_column(
        "name", pa.array([["a b", "c/d=%", None][i % 3] for i in range(300)])
    )
    for first in range(0, 300, 50):
        write(table.slice(first, 50), partition_by=["day", "name"])
    delta = deltalake.DeltaTable("table")
    delta.optimize.compact()
    delta.delete("id = 's1'")
    delta.update(updates={"b": "7"}, predicate="id = 's2'")
    delta.create_checkpoint()
    delta.optimize.z_order(["id"])
    delta.restore(2)
    for version in range(delta.version() + 1):
        right = deltalake.DeltaTable("table", version=version).to_pyarrow_table().to_pylist()
        mine = rows_of(version)
        assert sorted(map(_key, mine)) == sorted(map(_key, right))


def _key(row: dict[str, Any]) -> str:
    return repr(sorted(row.items()))


def test_appends_and_rewrites_by_deltalake_are_read_once() -> None:
    write(LOG.slice(0, 100))
    assert run() == 100
    write(LOG.slice(100, 50))
    delta = deltalake.DeltaTable("table")
    delta.optimize.compact()
    assert run() == 50
    delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    write(LOG.slice(150, 150))
    assert run() == 150
    parts = sorted(Path("out").glob("*.parquet"))
    assert sum(pq.read_metadata(part).num_rows for part in parts) == 300


@pytest.mark.parametrize("change", ["update", "delete", "merge", "overwrite"])
def test_changes_by_deltalake_are_refused_with_their_version(change: str) -> None:
    write(LOG.slice(0, 100))
    run()
    delta = deltalake.DeltaTable("table")
    if change == "update":
        delta.update(updates={"b": "7"}, predicate="id = 's2'")
    elif change == "delete":
        delta.delete("id = 's2'")
    elif change == "merge":
        merge = delta.merge(LOG.slice(90, 20), "s.id = t.id and s.t = t.t", "s", "t")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()
    else:
        deltalake.write_deltalake("table", LOG, mode="overwrite")
    name = {"overwrite": "WRITE"}.get(change, change.upper())
    with pytest.raises(CheckpointError, match=f"removed by {name} in version 1"):
        run()


def test_column_mapping_is_refused_by_name() -> None:
    write(LOG, configuration={"delta.columnMapping.mode": "name"})
    with pytest.raises(DataError, match="column mapping"):
        run()


def test_files_with_the_chunks_of_a_table_in_any_order() -> None:
    """deltalake writes three chunks into one file, in an order of its choice; a day later too."""
    logs.write(LOG, Path("log/0.parquet"))
    sorted_log = logs.config("log", "m.safetensors", "right", source={"nulls": "previous"})
    Pipeline.from_dict(sorted_log).run()
    for day in (LOG.slice(0, 200), LOG.slice(200)):
        third = len(day) // 3
        write(
            pa.concat_tables([day.slice(2 * third), day.slice(0, third), day.slice(third, third)])
        )
        run(sort="file", batch_rows=40)
    assert pq.read_table("out") == pq.read_table("right")
