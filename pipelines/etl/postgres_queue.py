"""Score a queue into Postgres: the rows and the state of each batch are one transaction.

    python pipelines/etl/postgres_queue.py QUEUE DATABASE

needs `pip install 'psycopg[binary]'`. QUEUE is as in `exactly_once.py`, DATABASE is a connection
string such as `postgresql://user@host/scores`. The table `weather_scores` gets the rows,
`weather_state` has one row: the checkpoint, and how often it was replaced. Whatever kills the job,
both tables end with the same batch. Of two jobs at the same time one is refused: its UPDATE
does not find the number of the checkpoint that it resumed from or wrote last.
"""

import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, StreamRNNError

PIPELINE = Path(__file__).parents[1] / "weather.toml"
BATCH_ROWS = 2048
TABLES = """
SELECT pg_advisory_xact_lock(7269);  -- CREATE IF NOT EXISTS fails if two jobs do it at once
CREATE TABLE IF NOT EXISTS weather_scores
    (origin text, time_hour timestamptz, temp double precision, temp_3h real);
CREATE TABLE IF NOT EXISTS weather_state
    (only_one bool PRIMARY KEY DEFAULT true CHECK (only_one), number bigint, checkpoint bytea);
INSERT INTO weather_state (number) VALUES (0) ON CONFLICT DO NOTHING;
"""
REPLACE = "UPDATE weather_state SET number = number + 1, checkpoint = %s WHERE number = %s"


def batches(queue: str, after: Mapping[str, int]) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """Read what is beyond the offsets: partition, offset of the first row, and batch."""
    for file in sorted(Path(queue).glob("*.parquet")) or [Path(queue)]:
        end = 0
        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
            new = batch.slice(max(0, after.get(file.stem, 0) - end))
            end += batch.num_rows
            if new.num_rows:
                yield file.stem, end - new.num_rows, new


def main(queue: str, database: str) -> None:
    """Resume from the checkpoint in the database, if there is one, and score the rest."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)  # several statements are one transaction
        stored = connection.execute("SELECT number, checkpoint FROM weather_state").fetchone()
        assert stored is not None
        number, checkpoint = stored
        pipeline = (
            Pipeline.resume(checkpoint)
            if checkpoint
            else Pipeline.from_toml(PIPELINE, ["sink.path=-"])
        )
        last = pipeline.position
        for partition, start, batch in batches(queue, last if isinstance(last, dict) else {}):
            scored = pipeline.process(batch, position={partition: start + batch.num_rows})
            state = io.BytesIO()
            pipeline.checkpoint(state)
            with connection.transaction(), connection.cursor() as cursor:
                with cursor.copy("COPY weather_scores FROM STDIN") as rows:
                    for row in zip(*(c.to_pylist() for c in scored.columns), strict=True):
                        rows.write_row(row)
                if not cursor.execute(REPLACE, (state.getvalue(), number)).rowcount:
                    raise CheckpointError(
                        f"weather_state: another job has replaced checkpoint {number}, from which "
                        "this one went on; nothing of this batch was written. Run it again."
                    )
            number += 1


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except StreamRNNError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
