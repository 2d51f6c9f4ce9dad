"""One machine, two engines: a run in this process against the same run on Ray.

    python tests/benchmarks/bench_engines.py [--rows N …] [--rounds N] [--markdown FILE …]
    python tests/benchmarks/bench_engines.py --largest 0.3 0.6 --rows 6000000

100,000 streams in random order (one of them has 5 % of the rows), 8 float32 features, LSTM(64) and
Dense(1), files of 500,000 rows. Sides: in this process with one and two threads; on Ray, started
here, with one and two workers. Each run is a process of its own, sides take turns; medians.
*seconds* are those of the job, without the start of Ray; *CPU* is that of the processes that score,
*all CPU* also that of the driver and Ray's own. Needs `pip install -e '.[ray]'`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import bench_pipeline
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing

STREAMS = 100_000
FILE_ROWS = 500_000
SIDES = {"1 thread": 1, "2 threads": 2, "1 worker": 1, "2 workers": 2}


def make_log(folder: Path, rows: int, largest: float = 0.05) -> None:
    """Random streams, one of which has the share `largest` of the rows; times ascend."""
    rng = np.random.default_rng(7)
    ids = pa.array([f"stream-{i:07d}" for i in range(STREAMS)])
    kept = folder / "rows"
    if kept.exists() and kept.read_text() == f"{rows} {largest}":
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index, first in enumerate(range(0, rows, FILE_ROWS)):
        size = min(FILE_ROWS, rows - first)
        which = rng.integers(0, STREAMS, size)
        which[rng.random(size) < largest] = 0
        columns = {
            "id": ids.take(pa.array(which)),
            "t": pa.array(np.arange(first, first + size) * 1000).cast(pa.timestamp("us")),
            **{n: rng.normal(size=size).astype(np.float32) for n in bench_pipeline.NAMES},
        }
        pq.write_table(pa.table(columns), folder / f"{index:05d}.parquet", row_group_size=250_000)
    kept.write_text(f"{rows} {largest}")


def run(side: str, source: str, model: str, out: str, epoch_rows: int) -> dict[str, float]:
    """One run in this process, and what it took."""
    from streamrnn import Pipeline

    on_ray = "worker" in side
    config = {
        "source": {"path": source, "key": "id", "time": "t", "features": bench_pipeline.NAMES},
        "model": {"path": model, "threads": SIDES[side]},
        "output": {"names": ["y"]},
        "sink": {"path": out},
        "engine": {"type": "ray" if on_ray else "local", "epoch_rows": epoch_rows, "shards": 4},
    }
    if on_ray:
        import ray

        # Started here, so that its processes can be measured before they end.
        ray.init(
            address="local",
            num_cpus=SIDES[side],
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    summary = Pipeline.from_dict(config).run()
    tree = processes()
    workers = [p for p in tree if p.name.startswith("ray::")]
    scoring = workers if on_ray else tree[:1]
    return {
        "seconds": summary.seconds,
        "rows": summary.rows,
        "cpu": sum(p.cpu for p in scoring),
        "all_cpu": sum(p.cpu for p in tree),
        "peak": max(p.peak for p in scoring),
        "driver_peak": tree[0].peak,
        "bytes": summary.workload.bytes / summary.rows if summary.workload else 0.0,
        "commits": summary.commits,
        "limit": summary.workload.speed_up_limit if summary.workload else 0.0,
    }


class Process(NamedTuple):
    """What one process has used so far."""

    name: str
    cpu: float
    peak: float
    private: float


def processes() -> list[Process]:
    """This process and all below it: name, CPU seconds; peak memory, and private memory now, in MB.

    The peak of a worker of Ray includes what it has read of the object store, which is shared.
    """
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(path.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        pid = waiting.pop(0)
        waiting += below.get(pid, [])
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        ticks = sum(int(stat[i]) for i in (11, 12))
        sizes = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        peak = int(sizes.get("VmHWM", "0 kB").split()[0]) / 1000
        private = int(sizes.get("RssAnon", "0 kB").split()[0]) / 1000
        seconds = ticks / os.sysconf("SC_CLK_TCK")
        found.append(Process(name.strip(), seconds, peak, private))
    return found


def measured(side: str, source: Path, model: Path, base: Path, epoch_rows: int) -> dict[str, float]:
    """A run of one side in a process of its own; its output is removed."""
    out = base / "out"
    shutil.rmtree(out, ignore_errors=True)
    arguments = [side, str(source), str(model), str(out), str(epoch_rows)]
    done = subprocess.run(
        [sys.executable, __file__, "--side", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def bench(rows: int, rounds: int, base: Path) -> list[list[str]]:
    source, model = base / "log", base / "m.safetensors"
    make_log(source, rows)
    bench_pipeline.make_model(model)
    epoch_rows = min(rows // 4, 5_000_000)
    measured("2 threads", source, model, base, epoch_rows)  # kernels are compiled
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            found[side].append(measured(side, source, model, base, epoch_rows))
            print(rows, side, found[side][-1], file=sys.stderr, flush=True)
    medians = {
        side: {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        for side, runs in found.items()
    }
    limit = medians["2 threads"]
    return [
        [
            f"{rows:,}",
            side,
            f"{m['seconds']:.2f}",
            f"{m['seconds'] / limit['seconds']:.2f}",
            f"{m['cpu'] / rows * 1e6:.2f}",
            f"{m['all_cpu'] / rows * 1e6:.2f}",
            f"{m['bytes']:.0f}",
            f"{m['peak']:.0f}",
            f"{m['driver_peak']:.0f}",
        ]
        for side, m in medians.items()
    ]


def bench_largest(rows: int, largest: float, rounds: int, base: Path) -> list[str]:
    """One worker against two on a log with a large stream: what the summary says it allows."""
    source, model = base / "log", base / "m.safetensors"
    make_log(source, rows, largest)
    bench_pipeline.make_model(model)
    sides = ("1 worker", "2 workers")
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            found[side].append(measured(side, source, model, base, rows))
            print(rows, largest, side, found[side][-1], file=sys.stderr, flush=True)
    one, two = (statistics.median(run["seconds"] for run in found[side]) for side in sides)
    limit = statistics.median(run["limit"] for run in found["2 workers"])
    return [f"{largest:.0%}", f"{limit:.2f}", f"{min(2, limit):.2f}", f"{one / two:.2f}"]


HEAD = (
    "rows", "side", "seconds", "x 2 threads", "CPU µs a row", "all CPU µs a row",
    "bytes handed over a row", "peak MB, largest that scores", "peak MB, driver",
)  # fmt: skip


LARGEST = ("largest stream's share", "speed-up limit in the summary", "predicted for 2 workers",
           "measured")  # fmt: skip


def main() -> None:
    parser = timing.parser_of(__doc__, rows=[6_000_000, 20_000_000], rounds=5)
    parser.add_argument("--largest", type=float, nargs="+", help="only compare 1 with 2 workers")
    parser.add_argument("--side", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, source, model, out, epoch_rows = arguments.side
        print(json.dumps(run(side, source, model, out, int(epoch_rows))))
        return
    if arguments.largest:
        with tempfile.TemporaryDirectory() as base:
            lines = [
                bench_largest(rows, largest, arguments.rounds, Path(base))
                for rows in arguments.rows
                for largest in arguments.largest
            ]
        timing.publish({"largest": timing.table(LARGEST, lines)}, arguments.markdown)
        return
    with tempfile.TemporaryDirectory() as base:
        lines = [
            line for rows in arguments.rows for line in bench(rows, arguments.rounds, Path(base))
        ]
    text = f"{timing.machine('numba', 'pyarrow', 'ray')}.\n\n{timing.table(HEAD, lines)}"
    timing.publish({"engines": text}, arguments.markdown)


if __name__ == "__main__":
    main()
