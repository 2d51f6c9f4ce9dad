"""A Spark session on loopback, logs as days, and results beside those of local runs."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Pipeline

ORDER = ["_metadata.file_path", "_metadata.row_index"]
PANDAS = "ignore:PySpark does not yet fully support pandas:FutureWarning"
OPTIONS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.log.level": "OFF",
    "spark.sql.session.timeZone": "America/New_York",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "70",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
}


def start() -> Any:
    """Two tasks at a time, each tried twice."""
    os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master("local[2,2]")
        for name, value in OPTIONS.items():
            builder = builder.config(name, value)
        return builder.getOrCreate()


def write_days(log: pa.Table, folder: Path, days: int = 3) -> list[str]:
    """The log in files of equal numbers of rows."""
    rows = -(-log.num_rows // days)
    return [logs.write(log.slice(d * rows, rows), folder / f"{d}.parquet", 50) for d in range(days)]


def pipeline(base: Path, out: str | None = None, **tables: dict[str, Any]) -> Pipeline:
    """A pipeline over the log in `base`, with a small model."""
    model = base / "m.safetensors"
    if not model.exists():
        logs.small_model("LSTM").save(model)
    path = None if out is None else str(base / out)
    return Pipeline.from_dict(logs.config(str(base / "log"), str(model), path, **tables))


def by_stream(table: pa.Table, *more: str) -> pa.Table:
    """Rows sorted by stream; those of a stream keep their order."""
    order = pa.array(range(table.num_rows))
    sorted_ = table.append_column("n", order).sort_by([("id", "ascending"), ("n", "ascending")])
    return sorted_.drop(["n"]).combine_chunks()


def rejected(table: pa.Table) -> list[dict[str, Any]]:
    """Rejects in the order of files and rows, with the names of files alone."""
    rows = [{**row, "file": Path(row["file"]).name} for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["file"], row["row"]))


def local_rejects(base: Path, out: str) -> list[dict[str, Any]]:
    path = base / f"{out}.rejects"
    return rejected(pq.read_table(path)) if path.exists() else []


def jobs(spark: Any) -> int:
    """How many jobs of no group the session has run."""
    return len(spark.sparkContext.statusTracker().getJobIdsForGroup(None))
