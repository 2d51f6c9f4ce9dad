"""Readers of Delta and Iceberg tables find the rows of the folder, whatever was done to it."""

import logging
import os
import re
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command
from jobs.engines.in_process import TasksHere

from streamrnn import outputs
from streamrnn.errors import CheckpointError, ConfigError, PublishError
from streamrnn.jobs.engines import opening
from streamrnn.jobs.session import session as session_module
from streamrnn.pipeline import Summary
from streamrnn.plugins.lakes.publish_delta import DeltaLog
from streamrnn.stream.checkpoints import OutputFolder, read_manifest
from streamrnn.stream.sinks import part

for library in ("deltalake", "pyiceberg", "polars", "sqlalchemy"):
    pytest.importorskip(library, reason="needs the oracles extra")

import polars as pl  # noqa: E402
from deltalake import write_deltalake  # noqa: E402
from plugins.lakes.lake import BOTH, TABLE, Lake, ordered  # noqa: E402

SETTINGS = "ignore::DeprecationWarning", "ignore::ResourceWarning"
pytestmark = [pytest.mark.filterwarnings(setting) for setting in SETTINGS]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    return Lake(tmp_path, monkeypatch)


def test_each_run_adds_its_parts_and_copies_nothing(lake: Lake) -> None:
    for day in range(3):
        (delta, iceberg) = lake.run(day).published
        assert (delta["added"], delta["removed"], iceberg["added"]) == (1, 0, 1)
        assert delta["version"] == f"version {day}"
    assert len(lake.assert_equal()) == 300
    parts = [f"part-{number:05d}.parquet" for number in range(3)]
    assert sorted(path.name for path in lake.base.glob("[ow]*/**/*.parquet")) == parts
    assert [uri.rpartition("/")[2] for uri in sorted(lake.delta().file_uris())] == parts
    assert lake.delta().transaction_version(f"streamrnn-{_output(lake)}") == 3
    snapshot = lake.iceberg().current_snapshot()
    assert snapshot.summary.additional_properties["streamrnn.commit"] == "3"


def _output(lake: Lake) -> str:
    return read_manifest(lake.out).output


def test_what_is_published_is_not_published_again(lake: Lake) -> None:
    lake.run(0)
    before = lake.versions()
    assert lake.run().published == []
    assert outputs.publish(lake.out) == []
    assert lake.versions() == before


def test_many_commits_of_one_run_are_one_entry_of_its_summary(lake: Lake) -> None:
    summary = lake.run(0, 1, 2, tables={"source": {"batch_rows": 50}, "checkpoint": {"every": 1}})
    assert summary.commits == 6
    assert [item["added"] for item in summary.published] == [len(summary.parts)] * 2
    assert summary.published[0]["version"] == f"version {len(summary.parts) - 1}"
    lake.assert_equal()


def test_a_session_publishes_its_commits_and_merges(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_MOST_PARTS", 4)
    lake.run(0)
    with lake.pipeline().session() as session:
        for row in range(100, 106):
            session.process(lake.log.slice(row, 1))
            session.commit()
            assert len(lake.assert_equal()) == row + 1
        session.process(lake.log.slice(106, 94))
    assert len(lake.assert_equal()) == 200
    assert len(read_manifest(lake.out).parts) < 6
    lake.run(2)
    assert len(lake.assert_equal()) == 300


def test_an_output_that_exists_is_published_with_nothing_new_to_score(lake: Lake) -> None:
    lake.publish = {}
    lake.run(0)
    lake.run(1)
    lake.publish = BOTH
    summary = lake.run()
    assert summary.nothing_new
    assert [item["added"] for item in summary.published] == [2, 2]
    lake.assert_equal()
    outputs.rewind(lake.out, to=1)  # knows the tables from the last commit
    lake.assert_equal()


def test_tables_that_were_not_kept_for_a_while_catch_up(lake: Lake) -> None:
    lake.run(0)
    lake.publish = {}
    lake.run(1)
    outputs.compact(lake.out)
    assert lake.versions() == (0, 1)
    lake.publish = BOTH
    lake.run(2)
    assert len(lake.assert_equal()) == 300


def test_merged_parts_replace_the_others_and_are_no_news(lake: Lake) -> None:
    for day in range(3):
        lake.run(day)
    outputs.compact(lake.out)
    assert len(lake.assert_equal()) == 300
    actions = lake.actions(lake.delta().version())
    files = [action[kind] for action in actions for kind in ("add", "remove") if kind in action]
    assert len(files) == 3
    assert not any(file["dataChange"] for file in files)


def test_rows_that_are_gone_after_a_rewind_are_gone_from_the_tables(lake: Lake) -> None:
    for day in range(2):
        lake.run(day)
    outputs.compact(lake.out)  # the rewind cuts this part
    lake.run(2)
    outputs.rewind(lake.out, to=1)
    assert len(lake.assert_equal()) == 100
    lake.run()
    assert len(lake.assert_equal()) == 300


def test_a_reloaded_day_is_replaced(lake: Lake) -> None:
    for day in range(3):
        lake.run(day)
    lake.log = lake.log.set_column(2, "a", pa.array([0.5] * 300))
    assert lake.run(2, reload=True).reloaded
    assert len(lake.assert_equal()) == 300


def test_the_columns_follow_those_of_an_output_that_starts_over(lake: Lake) -> None:
    lake.run(0)
    lake.run(1, tables={"output": {"columns": ["id", "b", "a"]}}, full_refresh=True)
    assert lake.assert_equal().columns == ["id", "b", "a", "score"]
    lake.log = lake.log.set_column(3, "b", lake.log["b"].cast(pa.int8()))
    lake.run(0, 1, tables={"output": {"columns": ["id", "b"]}}, full_refresh=True)
    assert lake.assert_equal().schema["b"] == pl.Int8
    outputs.publish(lake.out)
    lake.run(2, tables={"output": {"columns": ["id", "b"]}})
    assert len(lake.assert_equal()) == 300


def test_parts_that_get_longer_names_are_renamed(lake: Lake, monkeypatch) -> None:
    monkeypatch.setattr(part, "WIDTHS", (1, 2))
    every = {"source": {"batch_rows": 10}, "checkpoint": {"every": 1}}
    lake.run(0, tables=every)
    assert len(os.listdir(lake.out)) == 12  # ten parts
    lake.run(1, tables=every)
    lake.assert_equal()
    renaming = next(v for v in range(1, 99) if len(lake.actions(v)) > 4)
    news = [a["add"]["dataChange"] for a in lake.actions(renaming) if "add" in a]
    assert (news.count(True), news.count(False)) == (1, 10)


def test_a_run_that_follows_publishes_each_round(lake: Lake) -> None:
    lake.day(0)
    stop = threading.Event()
    seen: list[int] = []

    def look(progress) -> None:
        if progress.message and len(seen) < 2:
            seen.append(progress.rows)
            lake.day(len(seen))
        elif progress.message:
            stop.set()

    lake.run(follow=True, poll=0.02, stop=stop, progress=look)
    assert len(lake.assert_equal()) == 300
    assert lake.versions()[0] >= 2


def broken(lake: Lake) -> Path:
    """Make the catalog fail."""
    found = lake.base / "catalog.db"
    kept = found.rename(lake.base / "kept.db")
    found.mkdir()
    return kept


def repaired(lake: Lake, kept: Path) -> None:
    (lake.base / "catalog.db").rmdir()
    kept.rename(lake.base / "catalog.db")


def test_a_run_whose_catalog_is_down_commits_and_the_next_one_catches_up(lake, caplog) -> None:
    lake.run(0)
    kept = broken(lake)
    caplog.set_level(logging.WARNING, "streamrnn")
    with pytest.raises(PublishError, match=r"commit 2 is complete.*\n.*lake\.weather\.scores: Op"):
        lake.run(1)
    assert len(caplog.records) == 1
    assert len(lake.rows()) == 200
    assert lake.delta().version() == 1  # the other table is up to date
    metrics = lake.base / "m.prom"
    with pytest.raises(PublishError) as found:
        lake.run(2, metrics=metrics)
    assert re.search(r"last_run_exit_code\{.*\} 75\n", metrics.read_text())
    assert "published_commit" not in metrics.read_text()
    assert isinstance(found.value.summary, Summary)
    assert found.value.summary.rows == 100
    repaired(lake, kept)
    summary = lake.run(metrics=metrics)
    assert re.search(r"published_commit\{.*\} 3\n", metrics.read_text())
    assert summary.nothing_new
    assert [(item["table"], item["added"]) for item in summary.published] == [
        ("the Iceberg table lake.weather.scores", 2)
    ]
    assert len(lake.assert_equal()) == 300


def test_the_command_prints_what_it_published_or_exits_with_75(lake, capsys) -> None:
    lake.day(0)
    file = lake.base / "p.toml"
    file.write_text(
        f'[source]\npath = "{lake.base}/in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        f'[model]\npath = "{lake.base}/m.safetensors"\n[sink]\npath = "{lake.out}"\n'
        f'[publish]\ndelta = true\niceberg = {{ catalog = "lake", table = "{TABLE}" }}\n'
    )

    code, out, _ = run_command(capsys, "run", str(file))
    assert code == 0
    assert f"\nPublished 1 part to the Delta table {lake.out}, version 0\n" in out
    code, out, _ = run_command(capsys, "publish", lake.out)
    assert (code, out) == (0, f"{lake.out}: every table of [publish] is up to date\n")
    kept = broken(lake)
    lake.day(1)
    code, out, err = run_command(capsys, "run", str(file))
    assert code == 75
    assert "100 rows" in out
    assert "version 1" in out
    assert err.count("error: ") == 1
    code, _, err = run_command(capsys, "verify", lake.out)
    assert (code, "cannot be compared" in err) == (75, True)
    repaired(lake, kept)
    code, _, err = run_command(capsys, "verify", lake.out)
    assert (code, "1 part to add, 0 to remove" in err) == (75, True)
    code, out, _ = run_command(capsys, "publish", lake.out, "--json")
    assert (code, '"added": 1' in out) == (0, True)
    code, out, _ = run_command(capsys, "verify", lake.out)
    assert code == 0
    code, out, _ = run_command(capsys, "explain", str(file))
    assert f"the Delta table {lake.out}" in out


def test_a_table_that_was_dropped_is_made_again_and_named(lake: Lake) -> None:
    lake.run(0)
    shutil.rmtree(Path(lake.out, "_delta_log"))
    lake.iceberg().catalog.drop_table(TABLE)
    assert len(outputs.verify(lake.out).behind) == 2
    (delta, iceberg) = lake.run(1).published
    assert delta["note"] == iceberg["note"]
    lake.assert_equal()
    shutil.rmtree(Path(lake.out, "_delta_log"))
    lake.iceberg().catalog.drop_table(TABLE)
    assert {item.note for item in outputs.publish(lake.out)} == {"the table did not exist"}
    lake.assert_equal()


def test_a_table_that_was_set_back_is_repaired_and_named(lake: Lake) -> None:
    for day in range(2):
        lake.run(day)
    outputs.compact(lake.out)
    lake.delta().restore(1, ignore_missing_files=True)
    table = lake.iceberg()
    first = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().rollback_to_snapshot(first).commit()
    (delta, iceberg) = lake.run().published
    assert (
        delta["note"] == "after version 3, RESTORE of another writer: all parts were "
        "registered again"
    )
    assert "set back from the snapshot of commit 3: what the table lacked was" in iceberg["note"]
    assert len(lake.assert_equal()) == 200


def test_files_of_others_are_refused_and_nothing_is_changed(lake: Lake) -> None:
    lake.run(0)
    rows = pa.table(lake.delta().to_pyarrow_table())
    write_deltalake(lake.out, rows.slice(0, 5), mode="append")
    lake.iceberg().append(lake.iceberg().scan().to_arrow().slice(0, 5))
    before = lake.versions()
    with pytest.raises(PublishError) as found:
        lake.run(1)
    text = str(found.value)
    assert "files that do not belong to the output (version 1: WRITE of another writer)" in text
    assert "append of another writer): file:" in text
    assert "DeltaTable(…).restore(version)" in text
    assert lake.versions() == before
    with pytest.raises(CheckpointError, match="holds files with rows that none of its commits"):
        outputs.verify(lake.out)
    lake.delta().restore(0)
    table = lake.iceberg()
    first = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().rollback_to_snapshot(first).commit()
    for path in Path(lake.out).glob("part-*-*.parquet"):
        path.unlink()
    lake.run()
    assert len(lake.assert_equal()) == 200


def test_an_optimize_of_another_writer_is_refused(lake: Lake) -> None:
    lake.run(0)
    lake.run(1)
    lake.delta().optimize.compact()
    with pytest.raises(PublishError, match="OPTIMIZE of another writer"):
        lake.run(2)


def test_the_vacuum_of_a_table_deletes_no_part(lake: Lake) -> None:
    lake.run(0)
    lake.run(1)
    outputs.compact(lake.out)
    outputs.rewind(lake.out, to=1)
    lake.publish = {}
    lake.run()
    assert lake.delta().vacuum(dry_run=True) == []
    found = lake.delta().vacuum(0, dry_run=True, enforce_retention_duration=False, full=True)
    assert not [name for name in found if "_streamrnn" in name]


def test_an_output_that_was_moved_takes_its_tables_along(lake: Lake) -> None:
    lake.run(0)
    moved = lake.base / "elsewhere" / "scores"
    moved.parent.mkdir()
    Path(lake.out).rename(moved)
    lake.out = str(moved)
    lake.run(1)
    assert len(lake.assert_equal()) == 200


def test_an_output_under_another_name_is_the_same(lake: Lake) -> None:
    lake.run(0)
    link = lake.base / "link"
    link.symlink_to(lake.out)
    before, lake.out = lake.versions(), str(link)
    assert lake.run().published == []
    assert lake.versions() == before


def test_an_older_folder_of_a_backup_is_followed(lake: Lake) -> None:
    lake.run(0)
    shutil.copytree(lake.out, lake.base / "backup")
    lake.run(1)
    lake.run(2)
    log = lake.base / "log"
    shutil.move(f"{lake.out}/_delta_log", log)
    shutil.rmtree(lake.out)
    shutil.copytree(lake.base / "backup", lake.out)
    shutil.rmtree(f"{lake.out}/_delta_log")
    shutil.move(log, f"{lake.out}/_delta_log")
    lake.log = lake.log.set_column(2, "a", pa.array([0.5] * 300))
    lake.day(1)
    lake.run()
    assert len(lake.assert_equal()) == 300


def test_only_one_process_publishes_at_a_time(lake: Lake) -> None:
    lake.run(0)
    with OutputFolder.open(lake.out), pytest.raises(CheckpointError, match="in use"):
        outputs.publish(lake.out)


def test_a_version_of_another_writer_in_between_is_not_lost(lake, monkeypatch) -> None:
    lake.run(0)
    read = DeltaLog.commit

    def slow(self, *arguments):
        lake.delta().alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})
        return read(self, *arguments)

    monkeypatch.setattr(DeltaLog, "commit", slow)
    lake.run(1)
    monkeypatch.undo()
    lake.catalog_of(monkeypatch)
    assert lake.delta().metadata().configuration["delta.logRetentionDuration"] == "interval 9 days"
    lake.run(2)
    assert len(lake.assert_equal()) == 300


def test_queries_that_skip_files_by_statistics_find_all_rows(lake: Lake) -> None:
    for day in range(3):
        lake.run(day)
    rows = lake.rows()
    for column in ("id", "t"):
        for value in rows[column].unique().sort()[::7]:
            for where in (pl.col(column) == value, pl.col(column) > value):
                want = rows.filter(where)
                for frame in (pl.scan_delta(lake.out), pl.scan_iceberg(lake.iceberg())):
                    found = frame.filter(where).collect().cast(dict(rows.schema))
                    assert ordered(found).equals(want)


def test_an_output_without_a_row_has_a_table_without_a_row(lake: Lake) -> None:
    pq.write_table(lake.log.slice(0, 0), lake.base / "in" / "0.parquet")
    lake.run()
    assert len(lake.assert_equal()) == 0
    lake.run(1)
    assert len(lake.assert_equal()) == 100


def test_an_output_without_tables_has_nothing_to_publish(lake: Lake) -> None:
    lake.publish = {}
    lake.run(0)
    with pytest.raises(ConfigError, match="names no table"):
        outputs.publish(lake.out)


def test_the_driver_of_a_cluster_publishes_each_epoch(lake: Lake, monkeypatch) -> None:
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(3))
    summary = lake.run(0, 1, 2, engine="ray", tables={"engine": {"shards": 3, "epoch_rows": 100}})
    assert summary.commits == 3
    assert summary.published[0]["version"] == "version 2"
    assert len(lake.assert_equal()) == 300


COLUMNS = {
    "u8": pa.array([255, None] * 50, pa.uint8()),
    "u16": pa.array([65535, None] * 50, pa.uint16()),
    "u32": pa.array([2**32 - 1, None] * 50, pa.uint32()),
    "i8": pa.array([-128, None] * 50, pa.int8()),
    "bool": pa.array([True, None] * 50),
    "text": pa.array(["é", None] * 50, pa.large_string()),
    "category": pa.array(["a", None] * 50).dictionary_encode(),
    "bytes": pa.array([b"\0", None] * 50),
    "day": pa.array([1, None] * 50, pa.int32()).cast(pa.date32()),
    "seconds": pa.array([1, None] * 50, pa.int64()).cast(pa.timestamp("s")),
    "millis": pa.array([-1, None] * 50, pa.int64()).cast(pa.timestamp("ms", "UTC")),
    "money": pa.array([1, None] * 50).cast(pa.decimal128(38, 2)),
    "list": pa.array([[1.5, None], None] * 50, pa.list_(pa.float32())),
    "struct": pa.array([{"a": 1}, None] * 50, pa.struct([("a", pa.int64())])),
}
BERLIN = pa.array([1, None] * 50, pa.int64()).cast(pa.timestamp("us", "Europe/Berlin"))
PAIRS = pa.array([[1.5, 2.5], None] * 50, pa.list_(pa.float32(), 2))


def test_values_of_all_types_are_those_of_the_folder(lake: Lake) -> None:
    lake.day(0, **COLUMNS)
    lake.run(tables={"output": {"columns": ["id", "t", *COLUMNS]}})
    rows = pq.read_table(lake.out).sort_by([("t", "ascending"), ("score", "ascending")])
    for frame in lake.readings():
        found = frame.sort("t", "score").to_dict(as_series=False)
        assert found == {name: rows[name].to_pylist() for name in rows.column_names}


def test_other_zones_are_times_of_utc_in_delta_tables_and_refused_by_iceberg(lake: Lake) -> None:
    lake.day(0, zoned=BERLIN, pair=PAIRS)
    columns = {"output": {"columns": ["id", "t", "zoned", "pair"]}}
    with pytest.raises(ConfigError, match=r"'zoned' has the type timestamp\[us, tz=Europe/Berlin"):
        lake.run(tables=columns)
    assert not Path(lake.out).exists()
    lake.publish = {"delta": True}
    lake.run(tables=columns)
    found = pa.table(lake.delta().to_pyarrow_table()).sort_by([("t", "ascending")])
    rows = pq.read_table(lake.out).sort_by([("t", "ascending")])
    assert found["zoned"].cast(rows["zoned"].type).equals(rows["zoned"])
    assert found["pair"].to_pylist() == rows["pair"].to_pylist()


def test_a_catalog_that_no_configuration_has_is_named(lake: Lake) -> None:
    lake.publish = {"iceberg": {"catalog": "nowhere", "table": TABLE}}
    with pytest.raises(ConfigError, match="no catalog 'nowhere'"):
        lake.run(0)
    assert not Path(lake.out).exists()
