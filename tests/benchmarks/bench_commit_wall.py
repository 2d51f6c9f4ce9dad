"""What commits cost a run in wall time: they are made behind the computing.

    python tests/benchmarks/bench_commit_wall.py [--rows 20000000] [--rounds 2]

LSTM(64) and Dense(1), 8 features, 1,000 streams, Parquet to Parquet: no commit before the end, one
every 16 record batches, one every record batch, in turn; medians.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import bench_pipeline
from timing import parser_of

from streamrnn import Pipeline

NEVER = 10**6


def seconds(base: Path, every: int) -> float:
    out = base / "out"
    shutil.rmtree(out, ignore_errors=True)
    names = bench_pipeline.NAMES
    pipeline = Pipeline.from_dict(
        {
            "source": {
                "path": str(base / "log.parquet"),
                "key": "id",
                "time": "t",
                "features": names,
            },
            "model": {"path": str(base / "model.safetensors")},
            "sink": {"path": str(out)},
            "checkpoint": {"every": every},
        }
    )
    began = time.perf_counter()
    pipeline.run()
    return time.perf_counter() - began


def main() -> None:
    arguments = parser_of(__doc__, markdown=False, rows=20_000_000, rounds=2).parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        bench_pipeline.make_log(base / "log.parquet", arguments.rows, 1_000)
        bench_pipeline.make_model(base / "model.safetensors")
        seconds(base, NEVER)
        found: dict[int, list[float]] = {NEVER: [], 16: [], 1: []}
        for _ in range(arguments.rounds):
            for every, times in found.items():
                times.append(seconds(base, every))
    least = statistics.median(found[NEVER])
    for every, times in found.items():
        when = "at the end" if every == NEVER else f"every {every}"
        median = statistics.median(times)
        print(f"{when:10} {median:6.2f} s  {median / least - 1:+.1%}")


if __name__ == "__main__":
    main()
