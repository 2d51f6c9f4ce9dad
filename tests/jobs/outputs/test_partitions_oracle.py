"""Polars, DuckDB and pyarrow read partitions: all rows, with the columns of the folders."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from streamrnn.stream.checkpoints import OutputFolder

DAY = datetime.date(2013, 1, 5)
KEYS: list[str | None] = [
    "JFK",
    "a/b",
    "c=d",
    "..",
    "50 %",
    "Zürich",
    "x+y",
    "O'Hare",
    "日本",
    None,
]
ROWS = [
    {
        "origin": key,
        "n": 5 - i % 2,
        "time": datetime.datetime(2013, 1, 5 + i % 3, i, tzinfo=datetime.UTC),
        "p": i / 2,
        "date": DAY + datetime.timedelta(i % 3),
        "hour": i,
    }
    for i, key in enumerate(KEYS)
]
SCHEMA = pa.schema(
    [
        ("origin", pa.string()),
        ("n", pa.int32()),
        ("time", pa.timestamp("us", "UTC")),
        ("p", pa.float32()),
    ]
)
BY = ["origin", "n", "date = day(time)", "hour = hour(time)"]


def write(out: Path | str) -> None:
    """Commit the rows twice, half of them each time."""
    with OutputFolder.open(str(out)) as folder:
        folder.begin(SCHEMA, model="m", config={"sink.partition_by": BY})
        table = pa.Table.from_pylist(ROWS).select(SCHEMA.names).cast(SCHEMA)
        for batch in table.to_batches(max_chunksize=6):
            folder.write(batch)
            folder.commit(complete=True)


def in_polars(out: Path) -> pa.Table:
    polars = pytest.importorskip("polars", reason="needs the oracles extra")
    scan = polars.scan_parquet(out, hive_partitioning=True, hidden_file_prefix="_")
    return scan.collect().to_arrow()


def in_polars_by_glob(out: Path) -> pa.Table:
    polars = pytest.importorskip("polars", reason="needs the oracles extra")
    return polars.read_parquet(f"{out}/**/*.parquet", hive_partitioning=True).to_arrow()


def in_duckdb(out: Path) -> pa.Table:
    duckdb = pytest.importorskip("duckdb", reason="needs the oracles extra")
    return duckdb.sql(f"SELECT * FROM '{out}/**/*.parquet'").to_arrow_table()


def in_pyarrow(out: Path) -> pa.Table:
    """It reads dates as text, unless it is given the types."""
    import pyarrow.dataset as ds

    types = pa.schema([("origin", pa.string()), ("n", pa.int32()), ("date", pa.date32())])
    types = types.append(pa.field("hour", pa.int32()))
    return ds.dataset(out, partitioning=ds.partitioning(types, flavor="hive")).to_table()


def in_pyarrow_as_it_guesses(out: Path) -> pa.Table:
    import pyarrow.parquet as pq

    table = pq.read_table(out)
    dates = table["date"].cast(pa.string()).cast(pa.date32())
    return table.set_column(table.column_names.index("date"), "date", dates)


READERS = [in_polars, in_polars_by_glob, in_duckdb, in_pyarrow, in_pyarrow_as_it_guesses]


def by_hour(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["hour"])


@pytest.mark.parametrize("read", READERS)
def test_all_rows_and_columns_are_read(tmp_path: Path, read: Callable[[Path], pa.Table]) -> None:
    """Texts with signs of paths, dates as dates (but for pyarrow's guess), integers, and nulls."""
    write(tmp_path / "out")
    leftover = tmp_path / "out/_streamrnn/staging/_00009-000-0123456789abcdef-00000.parquet.tmp"
    leftover.write_bytes(b"of a run that is being written")
    assert by_hour(read(tmp_path / "out").to_pylist()) == ROWS


def test_a_column_in_folders_and_files_is_what_pyarrow_refuses(tmp_path: Path) -> None:
    """This is why the files do not have it."""
    import pyarrow.parquet as pq

    (tmp_path / "origin=JFK").mkdir()
    pq.write_table(pa.table({"origin": ["JFK"], "p": [1.0]}), tmp_path / "origin=JFK/0.parquet")
    with pytest.raises(pa.ArrowTypeError, match="incompatible types"):
        pq.read_table(tmp_path)
