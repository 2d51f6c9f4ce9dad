"""Rows into 365 partitions by day, beside a plain folder: in order of time, or all in each batch.

    python tests/benchmarks/bench_partitions.py [--rows 10000000] [--quick] [--markdown FILE …]

The rows are those of 1,000 streams, 4 columns, LSTM(4), with the default sizes of batches and
commits. Each line is a whole process, with its processor time and its peak of memory; files are
synced. In the second source the days of a stream come round again and again, so that every record
batch has rows of each partition: `time` is not the [source] time there.
"""

import tempfile
from pathlib import Path

import bench_many_files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing

from streamrnn import Sequential, layers
from streamrnn.stream.checkpoints import read_manifest

DAYS, STREAMS = 365, 1000
FIRST_DAY = np.datetime64("2013-01-01", "us").astype(np.int64)
DAY = 86_400_000_000


def make(path: Path, rows: int, in_order: bool) -> None:
    """Write `rows` rows, in groups of 131,072."""
    path.mkdir()
    rng = np.random.default_rng(7)
    kinds = [("id", pa.int64()), ("time", pa.timestamp("us", "UTC")), ("x", pa.float32())]
    schema = pa.schema([*kinds, ("y", pa.float32())])
    with pq.ParquetWriter(path / "0.parquet", schema) as writer:
        for first in range(0, rows, 131_072):
            number = np.arange(first, min(first + 131_072, rows))
            time = number * (DAYS * DAY // rows) if in_order else number % DAYS * DAY
            x, y = rng.normal(size=(2, len(number))).astype(np.float32)
            columns = [number % STREAMS, pa.array(FIRST_DAY + time).cast(kinds[1][1]), x, y]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))


def run(base: Path, source: str, out: str, partitions: bool) -> bench_many_files.Cost:
    tables = bench_many_files.config(base, source, out)
    del tables["source"]["time"]
    tables["output"] = {"columns": ["id", "time", "x", "y"]}
    if partitions:
        tables["sink"]["partition_by"] = ["date = day(time)"]
    return bench_many_files.run(base, tables)


def main() -> None:
    parser = timing.parser_of(__doc__, rows=10_000_000)
    parser.add_argument("--quick", action="store_true", help="500,000 rows")
    options = parser.parse_args()
    rows = 500_000 if options.quick else options.rows
    lines = []
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        model = [layers.Input((None, 1)), layers.LSTM(4, return_sequences=True, name="lstm")]
        Sequential(model).save(base / "model.safetensors")
        make(base / "few", 1000, True)
        run(base, "few", "warm", False)  # compiles
        for source, in_order in (("in order of time", True), ("all days in every batch", False)):
            make(base / source, rows, in_order)
            plain = run(base, source, f"{source} plain", False)
            found = run(base, source, f"{source} parts", True)
            for label, cost in (("plain folder", plain), (f"{DAYS} partitions", found)):
                out = base / f"{source} {'plain' if cost is plain else 'parts'}"
                manifest = read_manifest(str(out))
                assert manifest.rows == rows
                lines.append(
                    [
                        f"{source}: {label}",
                        f"{cost.seconds:.1f}",
                        f"{cost.cpu:.1f}",
                        f"{cost.memory:.0f}",
                        f"{len(manifest.parts):,}",
                        f"{sum(part.bytes for part in manifest.parts) / 1e6:.0f}",
                    ]
                )
    head = [f"{rows:,} rows", "seconds", "cpu seconds", "peak MB", "parts", "MB"]
    text = f"{timing.machine('pyarrow')}\n\n{timing.table(head, lines)}"
    timing.publish({"partitions": text}, options.markdown)


if __name__ == "__main__":
    main()
