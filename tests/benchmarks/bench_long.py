"""One long run: rows a second, and memory that does not grow.

    python tests/benchmarks/bench_long.py [--rows N] [--engine local|ray] [--markdown FILE …]

1,000,000,000 rows of 100,000 streams, 4 float32 features, LSTM(32) and Dense(1), by `--follow`:
a second process writes files of about 5,000,000 rows, at most three ahead, and those that were
scored are deleted. So the rate includes the making of the rows, on the same cores. Memory is the
largest private memory, in each tenth of the rows, of the process or of a worker of Ray.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import bench_engines
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing

STREAMS = 100_000
FILE_ROWS = 5_000_000
AHEAD = 3
FEATURES = ["a", "b", "c", "d"]


def produce(folder: Path, rows: int) -> None:
    """Write files, each of another size, as long as few of them wait."""
    rng = np.random.default_rng(5)
    values = rng.uniform(-1, 1, FILE_ROWS + 2**20).astype(np.float32)
    keys = rng.integers(0, STREAMS, FILE_ROWS + 2**20).astype(np.int32)
    first = index = 0
    while first < rows:
        while len(list(folder.glob("*.parquet"))) >= AHEAD:
            time.sleep(0.05)
        size = min(FILE_ROWS + index, rows - first)
        shifts = rng.integers(0, 2**20 - index, 5)
        columns = {
            "id": keys[shifts[0] :][:size],
            "t": pa.array(np.arange(first, first + size)).cast(pa.timestamp("us")),
            **{n: values[s:][:size] for n, s in zip(FEATURES, shifts[1:], strict=True)},
        }
        part = folder / f".{index:05d}"
        pq.write_table(
            pa.table(columns), part, row_group_size=500_000, compression="none",
            use_dictionary=False,
        )  # fmt: skip
        part.rename(folder / f"{index:05d}.parquet")
        first, index = first + size, index + 1


class Watch:
    """Deletes the files that were scored, samples memory, and stops the run after the last row."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.stop = threading.Event()
        self.memory: list[float] = []
        self._folder = folder
        self._rows = rows
        self._next, self._end = 0, FILE_ROWS
        self._peak = 0.0

    def __call__(self, progress: Any) -> None:
        while self._end <= progress.rows:
            (self._folder / f"{self._next:05d}.parquet").unlink(missing_ok=True)
            self._next += 1
            self._end += FILE_ROWS + self._next
        self._peak = max(self._peak, _memory())
        while progress.rows >= self._rows * (len(self.memory) + 1) / 10:
            self.memory.append(self._peak)
            self._peak = 0.0
            print(f"{progress.rows:,} rows, {self.memory[-1]:.0f} MB", file=sys.stderr, flush=True)
        if progress.rows >= self._rows:
            self.stop.set()


def _memory() -> float:
    """Private memory of the largest process that scores, in MB."""
    tree = bench_engines.processes()
    workers = [p for p in tree if p.name.startswith("ray::")] or tree[:1]
    return max(p.private for p in workers)


def bench(engine: str, rows: int, base: Path) -> list[str]:
    from streamrnn import Pipeline, Sequential, layers

    log = base / "log"
    log.mkdir()
    lstm = layers.LSTM(32, return_sequences=True)
    model = Sequential([layers.Input((None, len(FEATURES))), lstm, layers.Dense(1)])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(base / "m.safetensors")
    config = {
        "source": {"path": str(log), "key": "id", "time": "t", "features": FEATURES},
        "model": {"path": str(base / "m.safetensors")},
        "output": {"names": ["y"], "columns": ["id"]},
        "sink": {"path": str(base / "out")},
        "engine": {"type": engine, "shards": 4},
    }
    producer = subprocess.Popen([sys.executable, __file__, "--produce", str(log), str(rows)])
    watch = Watch(log, rows)
    began = time.monotonic()
    try:
        summary = Pipeline.from_dict(config).run(
            follow=True, poll=0.1, progress=watch, stop=watch.stop
        )
    finally:
        producer.kill()
        producer.wait()
    seconds = time.monotonic() - began
    assert summary.rows == summary.rows_out == rows, summary
    first, last = watch.memory[0], watch.memory[-1]
    return [
        engine,
        f"{rows:,}",
        f"{seconds:.0f}",
        f"{rows / seconds:,.0f}",
        f"{summary.commits}",
        f"{first:.0f}",
        f"{last:.0f}",
        f"{last / first:.2f}",
    ]


HEAD = ("engine", "rows", "seconds", "rows a second", "commits", "MB at the first tenth",
        "MB at the end", "growth")  # fmt: skip


def main() -> None:
    parser = timing.parser_of(__doc__, rows=1_000_000_000)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--produce", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.produce:
        produce(Path(arguments.produce[0]), int(arguments.produce[1]))
        return
    with tempfile.TemporaryDirectory() as base:
        line = bench(arguments.engine, arguments.rows, Path(base))
    text = f"{timing.machine('numba', 'pyarrow')}.\n\n{timing.table(HEAD, [line])}"
    timing.publish({f"long-{arguments.engine}": text}, arguments.markdown)


if __name__ == "__main__":
    main()
