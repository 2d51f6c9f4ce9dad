"""Cost grows linearly with rows, streams and units.

    python tests/benchmarks/bench_scaling.py [--rounds 3]

Seconds of whole runs, Parquet to Parquet, LSTM and Dense(1), 8 features, everything compiled:
rows 1x 2x 4x, the same rows over 1e2 to 1e6 streams, units 32 to 512. The last column is the cost
of one row (of one row and weight, for units) relative to the first line of its group: 1.00
throughout would be exactly linear.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import bench_pipeline
import numpy as np

from streamrnn import Sequential, layers


def model(units: int, path: Path) -> Path:
    made = Sequential(
        [
            layers.Input((None, bench_pipeline.FEATURES)),
            layers.LSTM(units, return_sequences=True),
            layers.Dense(1),
        ]
    )
    rng = np.random.default_rng(3)
    made.set_weights([rng.normal(0, 0.1, w.shape).astype(np.float32) for w in made.get_weights()])
    made.save(path)
    return path


def measure(rows: int, streams: int, units: int, rounds: int, base: Path) -> float:
    source = base / f"{rows}-{streams}.parquet"
    if not source.exists():
        bench_pipeline.make_log(source, rows, streams)
    run = bench_pipeline.ours(source, model(units, base / f"{units}.safetensors"), base / "out")
    run()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def group(name: str, cases: list[tuple[int, int, int]], rounds: int, base: Path) -> None:
    print(f"\n{name}\n{'rows':>10} {'streams':>10} {'units':>6} {'seconds':>8} {'relative':>9}")
    first = 0.0
    for rows, streams, units in cases:
        seconds = measure(rows, streams, units, rounds, base)
        weights = 4 * units * (units + bench_pipeline.FEATURES) if name == "units" else 1
        cost = seconds / rows / weights
        first = first or cost
        print(f"{rows:>10,} {streams:>10,} {units:>6} {seconds:>8.2f} {cost / first:>9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        group("rows", [(n * 1_000_000, 1_000, 64) for n in (1, 2, 4)], rounds, base)
        streams = [10**n for n in range(2, 7)]
        group("streams", [(2_000_000, s, 64) for s in streams], rounds, base)
        group("units", [(300_000, 1_000, u) for u in (32, 64, 128, 256, 512)], rounds, base)


if __name__ == "__main__":
    main()
