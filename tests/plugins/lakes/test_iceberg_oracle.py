"""Iceberg tables that `pyiceberg` writes, in a catalog of SQLite."""

import logging
import sys
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError, MissingFileError, PublishError
from streamrnn.outputs import diff_states

catalogs: Any = pytest.importorskip("pyiceberg.catalog", reason="needs the oracles extra")
pytest.importorskip("sqlalchemy", reason="needs the oracles extra")

LOG = logs.random_log(300, nulls=0.1)
PIECES = [LOG.slice(first, 60) for first in range(0, 300, 60)]
PATH = "iceberg:lake/logs.rows"


@pytest.fixture(autouse=True)
def base(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, the log as one Parquet file, and a catalog that the environment names."""
    pq.write_table(LOG, "log.parquet")
    for key, value in {
        "type": "sql",
        "uri": f"sqlite:///{model_dir}/catalog.db",
        "warehouse": f"file://{model_dir}/lake",
    }.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{key.upper()}", value)
    monkeypatch.setattr(catalogs, "_ENV_CONFIG", type(catalogs._ENV_CONFIG)())  # read once
    return model_dir


def table(schema: pa.Schema = LOG.schema) -> Any:
    catalog = catalogs.load_catalog("lake")
    catalog.create_namespace("logs")
    return catalog.create_table("logs.rows", schema=schema)


def run(path: str = PATH, out: str = "out", **source: Any) -> int:
    config = logs.config(path, "m.safetensors", out, source={"nulls": "previous", **source})
    rows: int = Pipeline.from_dict(config).run().rows
    return rows


def read(out: str) -> pa.Table:
    parts = sorted(Path(out).glob("*.parquet"))
    return pa.concat_tables([pq.read_table(part) for part in parts])


def rewrite(of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge all data files, as `rewrite_data_files` of Spark does; pyiceberg lacks it."""
    from pyiceberg.io.pyarrow import _dataframe_to_data_files
    from pyiceberg.table.snapshots import Operation, Summary
    from pyiceberg.table.update import snapshot

    of.refresh()
    rows, old = of.scan().to_arrow().sort_by("t"), [task.file for task in of.scan().plan_files()]
    summarize = snapshot.update_snapshot_summaries

    def summary(summary: Any, *rest: Any, **more: Any) -> Any:
        made = summarize(
            Summary(Operation.OVERWRITE, **summary.additional_properties), *rest, **more
        )
        return Summary(Operation.REPLACE, **made.additional_properties)

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "update_snapshot_summaries", summary)
        with (
            of.transaction() as change,
            snapshot._OverwriteFiles(
                operation=Operation.REPLACE, transaction=change, io=of.io
            ) as files,
        ):
            for file in old:
                files.delete_data_file(file)
            for file in _dataframe_to_data_files(change.table_metadata, rows, of.io):
                files.append_data_file(file)
    of.refresh()


def test_appends_are_read_once_and_rewrites_add_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table()
    rows.append(PIECES[0])
    rows.append(PIECES[1])
    assert run() == 120
    rewrite(rows, monkeypatch)
    assert rows.current_snapshot().summary.operation.value == "replace"
    assert run() == 0
    rows.append(PIECES[2])
    rewrite(rows, monkeypatch)
    assert run() == 60
    rows.append(PIECES[3])
    assert run(rows.metadata_location) == 60
    rows.append(PIECES[4])
    assert run() == 60
    run("log.parquet", "right")
    assert read("out").equals(read("right"))
    assert not diff_states("out", "right")


def test_snapshots_are_versions() -> None:
    rows = table()
    for piece in PIECES[:3]:
        rows.append(piece)
    second = rows.snapshots()[1].snapshot_id
    assert run(version=second) == 120
    assert run() == 60
    with pytest.raises(CheckpointError, match=f"snapshot {second} of the table lacks files"):
        run(version=second)
    with pytest.raises(MissingFileError, match=r"expected one of the snapshots .* received 7"):
        run(version=7)


@pytest.mark.parametrize("change", ["delete", "overwrite"])
def test_changed_rows_are_refused_with_their_snapshot(change: str) -> None:
    rows = table()
    rows.append(PIECES[0])
    run()
    if change == "delete":
        rows.delete("b = 1")
    else:
        rows.overwrite(PIECES[1])
    with pytest.raises(CheckpointError, match=r"removed by (overwrite|delete) in snapshot \d+"):
        run()


def test_renamed_and_added_columns_are_those_of_the_table() -> None:
    """Older files have the old names, and lack what was added."""
    rows = table()
    rows.append(PIECES[0].rename_columns(["id", "t", "a", "b", "new"]))
    with rows.update_schema() as change:
        change.rename_column("a", "aa")
        change.add_column("more", _long())
    names = [*(("aa" if n == "a" else n) for n in LOG.schema.names), "more"]
    more = pa.array(range(60), pa.int64())
    rows.append(PIECES[1].append_column("more", more).rename_columns(names))
    config = logs.config(PATH, "m.safetensors", "out", source={"nulls": "previous"})
    config["source"]["features"] = ["aa" if n == "a" else n for n in config["source"]["features"]]
    config["output"] = {**config.get("output", {}), "columns": ["id", "t", "more"]}
    assert Pipeline.from_dict(config).run().rows == 120
    assert read("out")["more"].to_pylist() == [None] * 60 + list(range(60))


def _long() -> Any:
    from pyiceberg.types import LongType

    return LongType()


def test_a_name_of_two_columns_is_refused() -> None:
    rows = table()
    rows.append(PIECES[0])
    with rows.update_schema(allow_incompatible_changes=True) as change:
        change.delete_column("b")
    with rows.update_schema() as change:
        change.add_column("b", _long())
    with pytest.raises(DataError, match="column 'b': two columns of the table have had this name"):
        run()


def test_partitions_by_value_are_read() -> None:
    from pyiceberg.transforms import IdentityTransform

    rows = table()
    with rows.update_spec() as change:
        change.add_field("new", IdentityTransform())
    rows.append(LOG)
    assert run(late="reject") == 300


def test_what_is_no_table_is_refused() -> None:
    table()
    with pytest.raises(MissingFileError, match="no such Iceberg table"):
        run("iceberg:lake/logs.none")
    with pytest.raises(ConfigError, match=r'expected "iceberg:catalog/namespace\.table"'):
        run("iceberg:lake")
    with pytest.raises(MissingFileError, match="no such Iceberg table"):
        run("none.metadata.json")
    Path("bad.metadata.json").write_text("{}")
    with pytest.raises(DataError, match="not a readable Iceberg table"):
        run("bad.metadata.json")


@pytest.mark.parametrize("kind", ["POSITION_DELETES", "EQUALITY_DELETES"])
def test_row_deletes_are_refused_by_name(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyiceberg does not write them: one data file is declared to be one of deletes."""
    from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestFile

    rows = table()
    rows.append(PIECES[0])
    rows.append(PIECES[1])
    last = rows.current_snapshot().manifests(rows.io)[0].manifest_path
    content: Any = ManifestFile.content
    fetch = ManifestFile.fetch_manifest_entry

    def declared(manifest: Any) -> Any:
        deletes = manifest.manifest_path == last
        return ManifestContent.DELETES if deletes else content.fget(manifest)

    def entries(manifest: Any, *rest: Any, **more: Any) -> Any:
        found = fetch(manifest, *rest, **more)
        for entry in found if manifest.manifest_path == last else ():
            entry.data_file[0] = DataFileContent[kind]
        return found

    monkeypatch.setattr(ManifestFile, "content", property(declared))
    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", entries)
    with pytest.raises(DataError, match=rf"has {kind.lower().replace('_', ' ')} \(.*rewrite_data"):
        run()


def test_a_table_without_a_snapshot_has_no_rows_yet() -> None:
    made = table()
    with pytest.raises(MissingFileError, match="the first version of the table has no rows yet"):
        run()
    made.append(LOG)
    assert run() == 300


def test_a_table_made_again_at_another_place_is_refused(tmp_path: Path) -> None:
    made = table()
    made.append(PIECES[0])
    run()
    catalog = catalogs.load_catalog("lake")
    catalog.drop_table("logs.rows")
    again = catalog.create_table("logs.rows", schema=LOG.schema, location=f"file://{tmp_path}/b")
    with pytest.raises(CheckpointError, match="dropped and created again"):
        run()
    again.append(LOG)
    with pytest.raises(CheckpointError, match="dropped and created again"):
        run()


def test_a_damaged_catalog_is_named(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"garbage" * 99)
    with pytest.raises(DataError, match=r"the catalog cannot be read: .*not a database"):
        run()


@pytest.mark.parametrize(
    ("kind", "uri", "driver", "install"),
    [
        ("sql", "postgresql+psycopg2://KEY:SECRET@h/lake", "psycopg2", "'pyiceberg[sql-postgres]'"),
        ("sql", "mysql+pymysql://KEY:SECRET@h/lake", "pymysql", "pymysql"),
        ("hive", "thrift://KEY:SECRET@h:1", "thrift", "'pyiceberg[hive]'"),
    ],
)
@pytest.mark.parametrize("side", ["source", "publish"])
def test_a_catalog_whose_driver_is_missing_is_one_message_with_the_command(
    side: str, kind: str, uri: str, driver: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not "unexpected NotInstalledError", as a user met it."""
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__TYPE", kind)
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", uri)
    monkeypatch.setattr(catalogs, "_ENV_CONFIG", type(catalogs._ENV_CONFIG)())
    monkeypatch.setitem(sys.modules, driver, None)
    if side == "source":
        config = logs.config(PATH, "m.safetensors", "out")
    else:
        config = logs.config("log.parquet", "m.safetensors", "out", source={"nulls": "previous"})
        config["publish"] = {"iceberg": {"catalog": "lake", "table": "logs.scores"}}
    with pytest.raises(ConfigError if side == "source" else PublishError) as refused:
        Pipeline.from_dict(config).run()
    shown = str(refused.value)
    cause = f"the Iceberg catalog 'lake' needs {driver}, which is not installed: pip install"
    assert f"{cause} {install}" in shown
    assert "SECRET" not in shown


def test_neither_a_warning_nor_an_error_of_a_catalog_shows_its_user(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """A REST catalog warns of the URI where it asks for a token."""
    caplog.set_level(logging.DEBUG)
    for key, value in {
        "type": "rest",
        "uri": "http://KEYOFMINE:SECRETOFMINE@127.0.0.1:9/lake",
        "credential": "IDOFMINE:TOKENOFMINE",
    }.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{key.upper()}", value)
    monkeypatch.setattr(catalogs, "_ENV_CONFIG", type(catalogs._ENV_CONFIG)())
    with pytest.raises(DataError, match=r"^iceberg:lake/logs.rows: not a readable Iceberg table"):
        run()
    shown = "".join(capfd.readouterr()) + caplog.text + str([w.message for w in recwarn])
    assert "OFMINE" not in shown
    assert "pyiceberg: the library's text is not shown" in caplog.text
