"""Score one day of a log per run of a Prefect flow; the job itself reads and writes the files.

    python pipelines/etl/prefect_days.py PIPELINE LOG OUT DAY

does the work of one run without Prefect, from the folder `LOG/date=DAY`. As in `exactly_once.py`,
two steps in this order are exactly-once: write the output file of a batch, named by its position,
then the checkpoint. The position is a list, as days are one sequence: day, file, row. A second run
at the same time is refused by the lock of OUT: of two days at once one would be scored without the
rows of the other, and its files would stay although its checkpoint is refused.
"""

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Pipeline
from streamrnn.errors import (
    AlreadyProcessed,
    CheckpointError,
    DataError,
    MissingFileError,
    PositionError,
    StreamRNNError,
)

BATCH_ROWS = 2048
Position = list[str | int]


def in_order(file: Path) -> list[str | int]:
    """Return a sort key of the order of positions: numbers in a name count as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", file.name)]


def files_of_day(log: str, day: str) -> list[Path]:
    """Return the files of a day, in order. Raises MissingFileError if there is none."""
    folder = Path(log) / f"date={day}"
    files = sorted(folder.glob("*.parquet"), key=in_order)
    if not files:
        raise MissingFileError(f"{folder}: no file whose name ends in .parquet")
    return files


def batches(files: list[Path], day: str) -> Iterator[tuple[Position, pa.RecordBatch]]:
    """Read the batches of a day, each with the position of its last row."""
    for file in files:
        row = 0
        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
            row += batch.num_rows
            yield [day, file.name, row], batch


@contextmanager
def alone(out: str) -> Iterator[None]:
    """Hold the lock of the folder. Raises CheckpointError if another run has it."""
    Path(out).mkdir(parents=True, exist_ok=True)
    with (Path(out) / "_lock").open("w") as lock:  # readers of the folder ignore names with "_"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"{out} is in use by another run; wait until it ends") from None
        yield


def score_day(pipeline: str, log: str, out: str, day: str) -> dict[str, Any]:
    """Score the batches of a day that are new; return the number of their rows, and more.

    Raises DataError if a later batch was scored before one of them, MissingFileError if the day has
    no file, CheckpointError while another run scores.
    """
    files = files_of_day(log, day)
    with alone(out):
        return score_files(pipeline, files, out, day)


def score_files(pipeline: str, files: list[Path], out: str, day: str) -> dict[str, Any]:
    """Score the files of a day; nothing else may write to `out`."""
    checkpoint = Path(out) / "_checkpoint.arrow"  # readers of the folder ignore names with "_"
    scorer = (
        Pipeline.resume(checkpoint)
        if checkpoint.exists()
        else Pipeline.from_toml(pipeline, ["sink.path=-"])
    )
    folder = Path(out) / f"date={day}"
    rows = 0
    for position, batch in batches(files, day):
        _, file, row = position
        part = folder / f"{Path(str(file)).stem}-{row:08d}.parquet"
        try:
            scored = scorer.process(batch, position=position)
        except (AlreadyProcessed, PositionError) as error:
            if part.exists():
                continue
            # Never scored: it was missing when later ones were scored.
            raise DataError(f"{part}: not written before the batch at {error.last}") from None
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"_{part.name}.tmp"
        pq.write_table(pa.Table.from_batches([scored]), unfinished)
        os.replace(unfinished, part)
        scorer.checkpoint(checkpoint)
        rows += batch.num_rows
    return {"day": day, "rows": rows, "nothing_new": not rows, "position": scorer.position}


def is_final(error: BaseException) -> bool:
    """Return whether a retry would fail, too, as for invalid data or an invalid pipeline file."""
    return isinstance(error, StreamRNNError) and error.exit_code in (65, 78)


if find_spec("prefect"):  # not run by the tests
    from datetime import timedelta

    from prefect import flow, task
    from prefect.runtime import flow_run

    def may_retry(task: Any, run: Any, state: Any) -> bool:
        return not is_final(state.result(raise_on_failure=False))

    score = task(retries=3, retry_delay_seconds=60, retry_condition_fn=may_retry)(score_day)

    @flow
    def weather(pipeline: str, log: str, out: str, day: str | None = None) -> dict[str, Any]:
        """Score a day; by default the one before the scheduled start."""
        yesterday = flow_run.scheduled_start_time - timedelta(days=1)
        return score(pipeline, log, out, day or f"{yesterday:%Y-%m-%d}")


if __name__ == "__main__":
    try:
        print(json.dumps(score_day(*sys.argv[1:])))
    except StreamRNNError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
