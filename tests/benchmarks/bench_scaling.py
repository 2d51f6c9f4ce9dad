"""Cost grows linearly with rows, streams and units.

    python tests/benchmarks/bench_scaling.py [--rounds 3] [--markdown FILE …]

Seconds of whole runs, Parquet to Parquet, LSTM and Dense(1), 8 features, everything compiled: rows
1x 2x 4x, units 32 to 512, and the same rows over 1e2 to 1e6 streams. The last column is a price
that stays the same where cost is linear: of a row in µs; of a row and weight in ns; and of each
stream beyond the first hundred in µs (its state is made, computed in turn with the others, and
written at the end), which noise hides below 10,000.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import bench_pipeline
import numpy as np
import timing

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
    times = []
    for _ in range(rounds + 1):
        shutil.rmtree(base / "out", ignore_errors=True)
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def rows(counts: list[int], rounds: int, base: Path) -> list[list[str]]:
    found = [(n, measure(n, 1_000, 64, rounds, base)) for n in counts]
    return [[f"{n:,}", "1,000", "64", f"{t:.2f}", f"{1e6 * t / n:.3f} µs a row"] for n, t in found]


def streams(counts: list[int], rounds: int, base: Path) -> list[list[str]]:
    n = 2_000_000
    seconds = [measure(n, count, 64, rounds, base) for count in counts]
    lines = []
    for count, each in zip(counts, seconds, strict=True):
        more = 1e6 * (each - seconds[0]) / count
        # What fewer streams cost is less than the runs differ by.
        price = f"{more:.2f} µs a stream" if count >= 100_000 else ""
        lines.append([f"{n:,}", f"{count:,}", "64", f"{each:.2f}", price])
    return lines


def units(counts: list[int], rounds: int, base: Path) -> list[list[str]]:
    n = 1_000_000
    lines = []
    for count in counts:
        seconds = measure(n, 1_000, count, rounds, base)
        price = 1e9 * seconds / n / (4 * count * (count + bench_pipeline.FEATURES))
        lines.append([f"{n:,}", "1,000", str(count), f"{seconds:.2f}", f"{price:.4f} ns a weight"])
    return lines


def main() -> None:
    options = timing.parser_of(__doc__, rounds=3).parse_args()
    with tempfile.TemporaryDirectory() as name:
        base, n = Path(name), options.rounds
        lines = rows([n * 1_000_000 for n in (1, 2, 4)], n, base)
        lines += streams([10**n for n in range(2, 7)], n, base)
        lines += units([32, 64, 128, 256, 512], n, base)
    text = timing.table(["rows", "streams", "units", "seconds", "price"], lines)
    texts = {"scaling": f"{timing.machine('numba', 'pyarrow')}\n\n{text}"}
    timing.publish(texts, options.markdown)


if __name__ == "__main__":
    main()
