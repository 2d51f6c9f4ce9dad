"""Tables of an output in partitions have the columns of its folders, which no file has."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from streamrnn import outputs
from streamrnn.errors import ConfigError
from streamrnn.stream.checkpoints import partitioning_of, read_manifest

for library in ("deltalake", "pyiceberg", "polars", "sqlalchemy"):
    pytest.importorskip(library, reason="needs the oracles extra")

import polars as pl  # noqa: E402
from plugins.lakes.lake import Lake  # noqa: E402

SETTINGS = "ignore::DeprecationWarning", "ignore::ResourceWarning"
pytestmark = [pytest.mark.filterwarnings(setting) for setting in SETTINGS]
FOLDERS: dict[str, Any] = {"partition_by": [{"date": "day(t)"}, "id"]}


class PartitionedLake(Lake):
    """Its output is in folders; some names of streams are percent-encoded there."""

    def __init__(self, base: Path, environment: Any) -> None:
        super().__init__(base, environment)
        names = {"s0": "a/b", "s1": "é %", "s2": "x=y", "s3": "50%2F", "s4": "plain"}
        ids = [names[name] for name in self.log["id"].to_pylist()]
        self.log = self.log.set_column(0, "id", pa.array(ids))
        days = self.log["t"].cast(pa.int64()).to_numpy() * 24
        self.log = self.log.set_column(1, "t", pa.array(days).cast(self.log["t"].type))

    def rows(self) -> pl.DataFrame:
        """The rows of the parts, with the columns of their folders."""
        manifest = read_manifest(self.out)
        partitioning = partitioning_of(manifest)
        found = []
        for part in manifest.parts:
            with open(Path(self.out, part.name), "rb") as file:
                for batch in part.format.batches(file, 1000):
                    values = part.partition if partitioning else {}
                    table = pa.table(batch)
                    if partitioning:
                        table = pa.table(partitioning.complete(batch, part.name))
                    if "date" in values and "date" not in table.column_names:
                        days = pa.array([values["date"]] * len(table)).cast(pa.date32())
                        table = table.append_column("date", days)
                    found.append(table)
        return pl.DataFrame(pa.concat_tables(found)).sort("t", "id", "score")

    def assert_equal(self) -> pl.DataFrame:
        rows = self.rows()
        for found in self.readings():
            assert set(found.columns) == set(rows.columns)
            same = found.select(rows.columns).cast(dict(rows.schema)).sort("t", "id", "score")
            assert same.equals(rows)
        return rows


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PartitionedLake:
    return PartitionedLake(tmp_path, monkeypatch)


def run(lake: Lake, *days: int, **options: Any) -> Any:
    return lake.run(*days, tables={"sink": dict(FOLDERS)}, **options)


def test_the_values_of_folders_are_columns_of_the_tables(lake: PartitionedLake) -> None:
    for day in range(3):
        run(lake, day)
        lake.assert_equal()
    assert lake.delta().metadata().partition_columns == ["date", "id"]
    assert [str(field.transform) for field in lake.iceberg().spec().fields] == ["identity"] * 2
    assert len(lake.rows()) == 300
    before = lake.versions()
    assert run(lake).published == []
    assert lake.versions() == before
    assert outputs.verify(lake.out).behind == ()


def test_one_partition_is_found_by_its_folder(lake: PartitionedLake) -> None:
    run(lake, 0)
    run(lake, 1)
    for name in ("a/b", "é %", "x=y", "50%2F"):
        where = pl.col("id") == name
        want = lake.rows().filter(where)
        assert len(want) > 5
        for frame in (pl.scan_delta(lake.out), pl.scan_iceberg(lake.iceberg())):
            assert len(frame.filter(where).collect()) == len(want)


def test_merged_and_rewound_partitions_are_followed(lake: PartitionedLake) -> None:
    for day in range(2):
        run(lake, day)
    outputs.compact(lake.out)
    lake.assert_equal()
    run(lake, 2)
    outputs.rewind(lake.out, to=1)
    assert len(lake.assert_equal()) == 100
    run(lake)
    assert len(lake.assert_equal()) == 300


def test_an_output_that_starts_over_has_other_partitions(lake: PartitionedLake) -> None:
    run(lake, 0)
    lake.run(full_refresh=True)
    assert lake.delta().metadata().partition_columns == []
    assert lake.iceberg().spec().fields == ()
    lake.assert_equal()
    run(lake, 1, full_refresh=True)
    assert lake.delta().metadata().partition_columns == ["date", "id"]
    assert len(lake.assert_equal()) == 200


def test_the_column_of_a_folder_has_a_type_of_the_table(lake: PartitionedLake) -> None:
    lake.day(0, wide=pa.array([2**63] * 100, pa.uint64()))
    tables = {"output": {"columns": ["id", "t", "wide"]}, "sink": {"partition_by": ["wide"]}}
    with pytest.raises(ConfigError, match="'wide' has the type uint64"):
        lake.run(tables=tables)


def test_a_column_may_have_the_name_of_a_partition_field(lake: PartitionedLake) -> None:
    """At once, and when the table is divided again."""
    names = ["id_partition_1", "id_partition_2"]
    tables = {"output": {"columns": ["id", "t", *names]}, "sink": {"partition_by": ["id"]}}
    lake.day(0, **dict.fromkeys(names, pa.array(range(100))))
    for _ in range(2):
        lake.run(tables=dict(tables), full_refresh=True)
        lake.assert_equal()
        lake.run(full_refresh=True)
