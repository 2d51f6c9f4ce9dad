"""Score a queue exactly once: each of its rows is in one output file, whatever kills the job.

    python pipelines/etl/exactly_once.py QUEUE OUT CHECKPOINT

QUEUE stands for a queue (Kafka, Kinesis, a table): a folder with a Parquet file for each partition,
or one such file. Its batches have offsets, and can be read again from any offset. The position is a
dict from partition to offset. The order of two steps makes the job exactly-once. First the output
file, named by partition and offset of its first row, is replaced atomically; then the checkpoint,
which has the state and the position. A job that is killed between the two reads that row again,
with the state before it, and writes the same file again: the same values, and newer rows, if any.

A second job at the same time is refused, by the lock of OUT or else by the checkpoint, which is
replaced only by the job that resumed from it.
"""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, StreamRNNError

PIPELINE = Path(__file__).parents[1] / "weather.toml"
BATCH_ROWS = 2048


def batches(queue: str, after: Mapping[str, int]) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """Read what is beyond the offsets: partition, offset of the first row, and batch."""
    for file in sorted(Path(queue).glob("*.parquet")) or [Path(queue)]:
        end = 0
        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
            new = batch.slice(max(0, after.get(file.stem, 0) - end))
            end += batch.num_rows
            if new.num_rows:
                yield file.stem, end - new.num_rows, new


@contextmanager
def alone(out: str) -> Iterator[None]:
    """Hold the lock of the folder. Raises CheckpointError if another job has it."""
    Path(out).mkdir(parents=True, exist_ok=True)
    with (Path(out) / "_lock").open("w") as lock:  # readers of the folder ignore names with "_"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{out} is in use by another job; wait until it ends") from None
        yield


def main(queue: str, out: str, checkpoint: str) -> None:
    """Resume from the checkpoint, if there is one, and score the rest of the queue."""
    with alone(out):
        if Path(checkpoint).exists():
            pipeline = Pipeline.resume(checkpoint)
        else:
            pipeline = Pipeline.from_toml(PIPELINE, ["sink.path=-"])  # the job writes the rows
        last = pipeline.position
        for partition, start, batch in batches(queue, last if isinstance(last, dict) else {}):
            scored = pipeline.process(batch, position={partition: start + batch.num_rows})
            part = Path(out) / f"{partition}-from-{start:012d}.parquet"
            pq.write_table(pa.Table.from_batches([scored]), f"{part}.tmp")
            os.replace(f"{part}.tmp", part)
            pipeline.checkpoint(checkpoint)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except StreamRNNError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
