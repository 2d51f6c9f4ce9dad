"""Score a queue exactly once: each row of it is in one output file, whatever kills the job.

    python pipelines/etl/exactly_once.py QUEUE OUT CHECKPOINT

QUEUE is a Parquet file that stands for a queue (Kafka, Kinesis, a table): its batches have offsets,
and can be read again from any offset. The order of two steps makes the job exactly-once. First the
output file, named by its offset, is replaced atomically; then the checkpoint, which has the state
and the offset. Killed between them, the job reads the batch again from the state of before, and
writes the same file with the same bytes.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Pipeline

PIPELINE = Path(__file__).parents[1] / "weather.toml"
BATCH_ROWS = 2048


def batches(queue: str, after: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Read the batches of the queue beyond an offset, each with its own: that of its last row."""
    offset = 0
    for batch in pq.ParquetFile(queue).iter_batches(BATCH_ROWS):
        offset += batch.num_rows
        if offset > after:
            yield offset, batch


def main(queue: str, out: str, checkpoint: str) -> None:
    """Resume from the checkpoint, if there is one, and score the rest of the queue."""
    if Path(checkpoint).exists():
        pipeline = Pipeline.resume(checkpoint)
    else:
        pipeline = Pipeline.from_toml(PIPELINE)
    Path(out).mkdir(parents=True, exist_ok=True)
    last = pipeline.position
    for offset, batch in batches(queue, last if isinstance(last, int) else 0):
        scored = pipeline.process(batch, position=offset)
        part = Path(out) / f"{offset:012d}.parquet"
        pq.write_table(pa.Table.from_batches([scored]), f"{part}.tmp")
        os.replace(f"{part}.tmp", part)
        pipeline.checkpoint(checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
