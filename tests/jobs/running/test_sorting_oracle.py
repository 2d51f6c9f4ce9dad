"""The advice of a late row, followed in DuckDB: a sorted file of the same format, no value lost."""

import re
from pathlib import Path

import logs
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import LateRowError

duckdb = pytest.importorskip("duckdb", reason="needs the oracles extra")


@pytest.mark.parametrize("clock", [pa.timestamp("us", "UTC"), pa.timestamp("s"), pa.int64()])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_that_is_sorted_as_advised_is_scored(
    workdir: Path, form: str, clock: pa.DataType
) -> None:
    """Keys with leading zeros stay as they are; integers are in the order of numbers."""
    logs.small_model().save("m.safetensors")
    log = logs.random_log(60).sort_by([("t", "descending")])
    keys = pa.array([f"00{key[1:]}" for key in log["id"].to_pylist()])
    times = log["t"].cast(pa.int64()) if pa.types.is_integer(clock) else log["t"].cast(clock)
    if pa.types.is_integer(clock):
        times = pa.array([number // 60_000_000 - 28_401_110 for number in times.to_pylist()])
    log = log.set_column(0, "id", keys).set_column(1, "t", times)
    write = csv.write_csv if form == "csv" else pq.write_table
    write(log, f"log.{form}")
    with pytest.raises(LateRowError) as late:
        Pipeline.from_dict(logs.config(f"log.{form}", "m.safetensors", "out")).run()
    found = re.search(rf"in DuckDB: (COPY .* TO 'sorted\.{form}')", str(late.value))
    assert found
    duckdb.connect().execute(found[1])
    summary = Pipeline.from_dict(logs.config(f"sorted.{form}", "m.safetensors", "out")).run()
    assert summary.rows == 60
    keys_of = {row["id"] for row in pq.read_table("out").to_pylist()}
    assert keys_of == set(keys.to_pylist())
