"""Score a folder of files in Spark, each file once, whatever kills the job.

    python pipelines/etl/spark_days.py FOLDER OUT

Each batch of the stream has an id, and the same rows when it is tried again. The order of two steps
makes the job exactly-once: first the state of all streams, in a folder named by the id; then the
rows, in another. Both are replaced by a retry, which starts from the state of the id before, and
gives the same bits. Other jobs may read those folders of rows that have a file `_SUCCESS`.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from streamrnn.spark import score

PIPELINE = Path(__file__).parents[1] / "weather.toml"


def score_batch(rows: Any, batch: int, out: str) -> None:
    """Score a batch of the stream, from the state after the one before."""
    before = rows.sparkSession.read.parquet(f"{out}/state/{batch - 1}") if batch else None
    scored = score(rows, PIPELINE, before, order=["file_path", "row_index"])
    scored.summary()  # raises an error for invalid rows, before anything is written
    scored.state.write.mode("overwrite").parquet(f"{out}/state/{batch}")
    scored.rows.write.mode("overwrite").parquet(f"{out}/rows/batch={batch}")
    scored.unpersist()


def main(folder: str, out: str) -> None:
    """Score the files that are new since the last call, one file per batch."""
    spark = SparkSession.builder.appName("weather").getOrCreate()
    files = spark.readStream.schema(spark.read.parquet(folder).schema)
    rows = files.option("maxFilesPerTrigger", 1).parquet(folder)
    placed = rows.select("*", "_metadata.file_path", "_metadata.row_index")
    stream = placed.writeStream.option("checkpointLocation", f"{out}/checkpoint")
    batches = stream.foreachBatch(partial(score_batch, out=out)).trigger(availableNow=True)
    batches.start().awaitTermination()


if __name__ == "__main__":
    main(*sys.argv[1:])
