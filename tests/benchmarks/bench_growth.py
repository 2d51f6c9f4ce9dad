"""What new streams cost a live pipeline: the longest call beside the median.

    python tests/benchmarks/bench_growth.py [--streams 2000000] [--rows 1000 10000]

LSTM(64) and Dense(1), 8 features, one thread; `process` gets new streams only, from none to
`--streams`, in calls of one size. Then calls of one new stream each, around the numbers of streams
at which a hash table doubles. CPU of the calling thread; each size has a process of its own, whose
peak memory is shown. The garbage collector is off, so that a long call is one of ours.
"""

import argparse
import gc
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from timing import machine, parser_of, publish, table

import streamrnn
from streamrnn import Pipeline, Sequential, layers

FEATURES = [f"f{i}" for i in range(8)]
AROUND, FILL = 1_000, 25_000


def pipeline(folder: Path) -> Pipeline:
    model = Sequential(
        [
            layers.Input((None, len(FEATURES))),
            layers.LSTM(64, return_sequences=True),
            layers.Dense(1, name="y"),
        ]
    )
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    path = str(folder / "model.safetensors")
    model.save(path)
    source = {"key": "device", "time": "t", "features": FEATURES}
    return Pipeline.from_dict({"source": source, "model": {"path": path}})


class Calls:
    """Calls of `process` with new streams."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.streams = pipeline, 0

    def add(self, rows: int) -> float:
        """Return the milliseconds of CPU that this thread needs for so many new streams."""
        keys = pa.array(np.arange(self.streams, self.streams + rows))
        value = pa.array(np.full(rows, 0.5, np.float32))
        columns = {"device": keys, "t": pa.array(np.zeros(rows, np.int64))}
        batch = pa.record_batch({**columns, **dict.fromkeys(FEATURES, value)})
        self.streams += rows
        began = time.thread_time()
        self.pipeline.process(batch)
        return 1000 * (time.thread_time() - began)

    def reach(self, streams: int) -> None:
        while self.streams < streams:
            self.add(min(FILL, streams - self.streams))


def measured(rows: int, streams: int) -> None:
    """Print the row of a table: median, the longest call, where it was, peak memory."""
    streamrnn.set_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        calls = Calls(pipeline(Path(folder)))
        calls.add(rows)
        gc.disable()
        times: list[tuple[float, int]] = []
        if rows > 1:
            while calls.streams < streams:
                times.append((calls.add(rows), calls.streams))
        else:
            for power in range(10, streams.bit_length()):
                calls.reach(max(calls.streams, (1 << power) - AROUND))
                while calls.streams < (1 << power) + AROUND:
                    times.append((calls.add(1), calls.streams))
    median = float(np.median([time for time, _ in times]))
    longest, where = max(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = f"{rows:,}", f"{median:.2f}", f"{longest:.2f}", f"{where:,}"
    print("|".join([*cells, f"{longest / median:.1f}", f"{peak:,.0f}"]))


def main() -> None:
    parser = parser_of(__doc__, streams=2_000_000, rows=[1, 1_000, 10_000])
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only is not None:
        measured(options.only, options.streams)
        return
    rows = []
    for size in options.rows:
        command = [sys.executable, __file__, "--only", str(size)]
        command += ["--streams", str(options.streams)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(found.stdout.strip().split("|"))
    head = ("rows", "median, ms", "longest, ms", "at stream", "ratio", "peak memory, MB")
    publish({"growth": f"{machine('numpy', 'pyarrow')}\n\n{table(head, rows)}"}, options.markdown)


if __name__ == "__main__":
    main()
