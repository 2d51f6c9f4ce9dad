"""What commits cost: the share of a run that they take, and a state of a million streams.

    python tests/benchmarks/bench_commits.py [--rows N] [--streams N …]
    python tests/benchmarks/bench_commits.py --live

The run: 20,000,000 rows (the log is written first), 3 features, GRU(16) and Dense(1), streams
interleaved by time, so that every stream is touched between two commits: the dearest case for a
small model. A commit counts from the last row written to the renames done. The state: a million
streams with 64 floats each; a whole snapshot, commits that touched a part of it, and a start. With
`--live` only a million streams of a live pipeline (LSTM(64), as in bench_growth.py): CPU of commits
of 1,000 streams, and of what they do while calls wait, beside a whole checkpoint.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_growth
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import parser_of

from streamrnn import Pipeline, Sequential, layers
from streamrnn.stream.checkpoints import OutputFolder, Snapshot

BATCH = 131_072
NAMES = ["x0", "x1", "x2"]
WIDTH = 64
MILLION = 1_000_000


def make_log(path: Path, rows: int, streams: int) -> None:
    """Streams take turns: row i belongs to stream i % streams."""
    rng = np.random.default_rng(7)
    values = [pa.array(rng.normal(size=BATCH).astype(np.float32)) for _ in NAMES]
    schema = pa.schema(
        [("id", pa.int64()), ("t", pa.int64()), *((name, pa.float32()) for name in NAMES)]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, BATCH):
            n = np.arange(first, min(first + BATCH, rows))
            columns = [pa.array(n % streams), pa.array(n // streams)]
            columns += [value.slice(0, len(n)) for value in values]
            writer.write_table(pa.table(columns, schema=schema))


def make_model(path: Path) -> None:
    """GRU(16), Dense(1)."""
    model = Sequential(
        [
            layers.Input((None, len(NAMES))),
            layers.GRU(16, return_sequences=True),
            layers.Dense(1, name="y"),
        ]
    )
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(path)


class Stopwatch:
    """Adds up the time within `OutputFolder.commit`."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0
        self._commit = OutputFolder.commit

    def __enter__(self) -> "Stopwatch":
        commit = self._commit

        def timed(folder: OutputFolder, **arguments: object) -> object:
            began = time.perf_counter()
            try:
                return commit(folder, **arguments)
            finally:
                self.seconds += time.perf_counter() - began
                self.calls += 1

        OutputFolder.commit = timed
        return self

    def __exit__(self, *error: object) -> None:
        OutputFolder.commit = self._commit


def bench_run(folder: Path, rows: int, streams: int) -> None:
    """Runs that commit every 16 record batches and every single one."""
    make_log(folder / "log.parquet", rows, streams)
    for every in (16, 1):
        config = {
            "source": {
                "path": str(folder / "log.parquet"),
                "key": "id",
                "time": "t",
                "features": NAMES,
                "batch_rows": BATCH,
            },
            "model": {"path": str(folder / "model.safetensors")},
            "sink": {"path": str(folder / f"out-{streams}-{every}")},
            "checkpoint": {"every": every},
        }
        pipeline = Pipeline.from_dict(config)
        with Stopwatch() as watch:
            began = time.perf_counter()
            pipeline.run()
            whole = time.perf_counter() - began
        print(
            f"{rows:,} rows, {streams:,} streams, a commit every {every} record batches: run "
            f"{whole:.1f} s, {watch.calls} commits {watch.seconds:.2f} s = "
            f"{watch.seconds / whole:.1%}"
        )


def bench_state(folder: Path) -> None:
    """Commits and a start with a state of a million streams."""
    rng = np.random.default_rng(0)
    values = rng.random((MILLION, WIDTH), np.float32)
    keys = pa.array([f"device-{i:07d}" for i in range(MILLION)])

    def table(rows: np.ndarray | None = None) -> pa.Table:
        key = keys if rows is None else keys.take(pa.array(rows))
        flat = pa.array((values if rows is None else values[rows]).reshape(-1))
        return pa.table({"id": key, "gru/h": pa.FixedSizeListArray.from_arrays(flat, WIDTH)})

    def timed(what: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        print(f"{MILLION:,} streams x {WIDTH} floats, {what}: {time.perf_counter() - began:.3f} s")
        return result

    out = str(folder / "state")
    with OutputFolder.open(out) as output:
        output.begin(pa.schema([("y", pa.float32())]), model="", config={})
        timed("a whole snapshot", lambda: output.commit(state=Snapshot(MILLION, None, table)))
        for touched in (100, 1_000, 10_000, 100_000):
            rows = rng.choice(MILLION, touched, replace=False)
            values[rows] += 1
            timed(
                f"a commit that touched {touched:,}",
                lambda rows=rows: output.commit(state=Snapshot(MILLION, rows, table)),
            )
    output = timed("a start (all checksums)", lambda: OutputFolder.open(out))
    found = timed("the state loaded", output.load_state)
    output.close()
    flat = found["gru/h"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat, values.reshape(-1))


def bench_live(folder: Path) -> None:
    """Commits of 1,000 dirty streams of a million, and `Pipeline.checkpoint`."""
    pipeline, rng = bench_growth.pipeline(folder), np.random.default_rng(0)
    calls = bench_growth.Calls(pipeline)
    calls.reach(MILLION)
    began = time.process_time()
    pipeline.checkpoint(folder / "whole.arrow")
    whole = time.process_time() - began
    table, waits, commits = pipeline.state, [], []
    with OutputFolder.open(str(folder / "live")) as output:
        output.begin(pa.schema([("y", pa.float32())]), model="", config={})
        output.commit(state=Snapshot.of(table))
        table.mark_clean()
        for _ in range(40):
            slots = rng.choice(MILLION, 1_000, replace=False)
            table.advance(slots, table.steps(slots) + 1, None, {})
            began = time.process_time()
            delta = output.delta(Snapshot.of(table))
            table.mark_clean()
            waits.append(time.process_time() - began)
            output.commit(state=delta)
            commits.append(time.process_time() - began)
    wait, commit = np.median(waits), np.median(commits)
    print(
        f"CPU: a checkpoint of {MILLION:,} streams {whole:.2f} s; a commit of 1,000 of them "
        f"{1000 * commit:.1f} ms, 1/{whole / commit:.0f}; while calls wait {1000 * wait:.1f} ms, "
        f"1/{whole / wait:.0f}"
    )


def main() -> None:
    parser = parser_of(__doc__, markdown=False, rows=20_000_000, streams=[1_000, 100_000])
    parser.add_argument("--live", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if chosen.live:
            bench_live(Path(place))
            return
        bench_state(Path(place))
        make_model(Path(place) / "model.safetensors")
        for streams in chosen.streams:
            bench_run(Path(place), chosen.rows, streams)


if __name__ == "__main__":
    main()
