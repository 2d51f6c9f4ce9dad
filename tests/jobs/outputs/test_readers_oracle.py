"""Polars, DuckDB, pyarrow and pandas read an output folder: all of its rows and nothing else."""

import os
from pathlib import Path

import logs
import pytest

from streamrnn import Pipeline

ROWS = 100


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """An output of several parts, with rejects and state files."""
    folder = tmp_path_factory.mktemp("readers")
    logs.write(logs.random_log(rows=ROWS, streams=5, nulls=0.02), folder / "in" / "one.parquet")
    logs.small_model().save(folder / "m.safetensors")
    pipeline = {
        "source": {
            "path": str(folder / "in"),
            "key": "id",
            "time": "t",
            "features": ["a", "b"],
            "nulls": "previous",
            "batch_rows": 30,
        },
        "model": {"path": str(folder / "m.safetensors")},
        "sink": {"path": str(folder / "out")},
        "checkpoint": {"every": 1},
    }
    assert Pipeline.from_dict(pipeline).run().rows_out == ROWS
    inside = [path for path in (folder / "out" / "_streamrnn").rglob("*") if path.is_file()]
    assert len(inside) >= 3
    leftover = folder / "out" / "_streamrnn" / "staging" / "_00009-000-0123456789abcdef.parquet.tmp"
    leftover.write_bytes(b"of a run that is being written")
    return str(folder / "out")


def test_polars(out):
    polars = pytest.importorskip("polars", reason="needs the oracles extra")
    found = polars.scan_parquet(out, hidden_file_prefix="_").collect()
    assert len(found) == ROWS
    assert found.equals(polars.read_parquet(f"{out}/*.parquet"))
    assert found.equals(polars.scan_parquet(f"{out}/**/*.parquet").collect())


def test_duckdb(out):
    duckdb = pytest.importorskip("duckdb", reason="needs the oracles extra")
    for pattern in ("*.parquet", "**/*.parquet"):
        found = duckdb.sql(f"SELECT count(*), count(DISTINCT id) FROM '{out}/{pattern}'")
        assert found.fetchall() == [(ROWS, 5)]


def test_pyarrow(out):
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    assert pq.read_table(out).num_rows == ROWS
    assert ds.dataset(out, format="parquet").count_rows() == ROWS


def test_pandas(out):
    pandas = pytest.importorskip("pandas", reason="needs the oracles extra")
    assert len(pandas.read_parquet(out)) == ROWS


def test_an_earlier_name_inside_is_what_polars_refuses(out):
    """So that the test above can fail."""
    polars = pytest.importorskip("polars", reason="needs the oracles extra")
    path = Path(out, "_streamrnn", "lock")
    path.write_text("{}")
    with pytest.raises(polars.exceptions.PolarsError):
        polars.scan_parquet(out, hidden_file_prefix="_").collect()
    os.unlink(path)
