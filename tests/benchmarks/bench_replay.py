"""What a replay costs, beside a run over the same rows.

    python tests/benchmarks/bench_replay.py [--streams 100000] [--days 365] [--rounds 2]

A row a day and stream, 4 float32 features, LSTM(32) and Dense(1). The old model scores them; then a
new one of the same size replays them all, before a last day. In turn with runs of the new model
over the same rows into a folder of its own; medians. A replay computes the same, and writes states
only: at most 1.15 times the seconds of a run.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import parser_of

from streamrnn import Pipeline, Sequential, layers

FEATURES = ["a", "b", "c", "d"]
MOST = 1.15


def make_model(path: Path, seed: int) -> None:
    lstm = layers.LSTM(32, return_sequences=True)
    model = Sequential([layers.Input((None, len(FEATURES))), lstm, layers.Dense(1, name="score")])
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(path)


def write_day(folder: Path, day: int, streams: int) -> None:
    rng = np.random.default_rng(day)
    time_ = np.full(streams, day * 86_400, np.int64)
    values = {name: rng.uniform(-1, 1, streams).astype(np.float32) for name in FEATURES}
    keys = np.arange(streams, dtype=np.int32)
    table = pa.table({"id": keys, "t": pa.array(time_).cast(pa.timestamp("s")), **values})
    pq.write_table(table, folder / f"{day:04d}.parquet")


def pipeline(base: Path, model: str, out: str) -> Pipeline:
    return Pipeline.from_dict(
        {
            "source": {"path": str(base / "log"), "key": "id", "time": "t", "features": FEATURES},
            "window": {"kind": "carry"},
            "model": {"path": str(base / f"{model}.safetensors")},
            "sink": {"path": str(base / out)},
        }
    )


def main() -> None:
    arguments = parser_of(__doc__, markdown=False, streams=100_000, days=365, rounds=2).parse_args()
    found: dict[str, list[float]] = {"run": [], "replay": []}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "log").mkdir()
        for seed, model in enumerate(("old", "new")):
            make_model(base / f"{model}.safetensors", seed)
        for day in range(arguments.days):
            write_day(base / "log", day, arguments.streams)
        pipeline(base, "old", "first").run()
        for _ in range(arguments.rounds):
            shutil.rmtree(base / "again", ignore_errors=True)
            began = time.perf_counter()
            pipeline(base, "new", "again").run()
            found["run"].append(time.perf_counter() - began)
            shutil.copytree(base / "first", base / "swap")
            write_day(base / "log", arguments.days, arguments.streams)
            summary = pipeline(base, "new", "swap").run(new_model="replay")
            assert summary.replayed == arguments.days * arguments.streams
            found["replay"].append(summary.seconds_by_phase["replay"])
            shutil.rmtree(base / "swap")
            (base / "log" / f"{arguments.days:04d}.parquet").unlink()
    run, replay = (statistics.median(times) for times in found.values())
    rows = arguments.days * arguments.streams
    print(f"{rows:,} rows: run {run:.2f} s, replay {replay:.2f} s, {replay / run:.2f} of it")
    if replay > MOST * run:
        raise SystemExit(f"more than {MOST}")


if __name__ == "__main__":
    main()
