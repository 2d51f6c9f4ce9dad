"""Spark reads an output in partitions: all rows, with the columns of the folders."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyspark", reason="needs the engines extra")
from jobs.outputs.test_partitions_oracle import ROWS, by_hour, write


def test_all_rows_and_columns_are_read(spark: Any, tmp_path: Path) -> None:
    """Texts with signs of paths, dates as dates, integers, and nulls."""
    write(tmp_path / "out")
    frame = spark.read.parquet(str(tmp_path / "out"))
    types = dict(frame.dtypes)
    assert [types[n] for n in ("origin", "n", "date", "hour")] == ["string", "int", "date", "int"]
    found = [row.asDict() for row in frame.selectExpr("*", "unix_seconds(time) AS s").collect()]
    expected = [{**row, "s": int(row["time"].timestamp())} for row in ROWS]
    for row in (*found, *expected):
        del row["time"]
    assert by_hour(found) == expected
