"""A report on a year of 1,000 streams: seconds, MB of the page, peak of memory.

    python tests/benchmarks/bench_report.py [--streams 1000] [--days 365] [--quick]
        [--markdown FILE …]

The model is GRU(16) and Dense(1) behind a Normalization, over four features. Each line is a whole
process of `streamrnn report`, imports and page included. *output alone*: the source is gone.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing
from bench_many_files import RUN, cost

from streamrnn import Input, Pipeline, Sequential, layers

FEATURES = ["a", "b", "c", "d"]
_START = np.datetime64("2013-01-01", "us").astype(np.int64)


def days(count: int, streams: int, hours: int) -> Iterator[pa.Table]:
    """Rows of all streams, every `hours`, a table for each 30 days."""
    rng = np.random.default_rng(7)
    keys = pa.array([f"station-{i}" for i in range(streams)])
    for first in range(0, count, 30):
        steps = np.arange(first * 24, min(first + 30, count) * 24, hours, dtype=np.int64)
        rows = len(steps) * streams
        times = _START + np.repeat(steps, streams) * 3_600_000_000
        columns: dict[str, Any] = {
            "id": keys.take(pa.array(np.tile(np.arange(streams), len(steps)))),
            "t": pa.array(times).cast(pa.timestamp("us", "UTC")),
        }
        for name in FEATURES:
            columns[name] = rng.normal(10, 3, rows)
        yield pa.table(columns)


def make(base: Path, count: int, streams: int, hours: int) -> tuple[int, dict[str, Any]]:
    """A log, its model and its output; rows and the pipeline."""
    (base / "in").mkdir()
    rows = 0
    for number, table in enumerate(days(count, streams, hours)):
        pq.write_table(table, base / "in" / f"{number:03d}.parquet")
        rows += len(table)
    scale = layers.Normalization(mean=[10.0] * 4, variance=[9.0] * 4)
    gru = layers.GRU(16, return_sequences=True)
    Sequential([Input((None, 4)), scale, gru, layers.Dense(1)]).save(base / "m.safetensors")
    data: dict[str, Any] = {
        "source": {"path": str(base / "in"), "key": "id", "time": "t", "features": FEATURES},
        "window": {"lanes": 256, "steps": 16},
        "model": {"path": str(base / "m.safetensors")},
        "sink": {"path": str(base / "out")},
    }
    Pipeline.from_dict(data).run()
    return rows, data


def toml(data: dict[str, Any]) -> str:
    lines = []
    for table, keys in data.items():
        lines.append(f"[{table}]")
        lines += [f"{name} = {value!r}" for name, value in keys.items()]
    return "\n".join(lines) + "\n"


def of_report(name: str, rows: int, subject: Path, page: Path) -> list[str]:
    """A line of the table: seconds and peak MB of a process, MB of its page."""
    found = cost(RUN, "report", str(subject), "-o", str(page), "-q")
    size = page.stat().st_size / 1e6
    measured = [f"{found.seconds:.1f}", f"{found.cpu:.1f}", f"{found.memory:.0f}", f"{size:.1f}"]
    return [name, f"{rows:,}", *measured]


def main() -> None:
    parser = timing.parser_of(__doc__, streams=1000, days=365)
    parser.add_argument("--quick", action="store_true", help="10 streams")
    arguments = parser.parse_args()
    streams = 10 if arguments.quick else arguments.streams
    lines = []
    for hours, name in ((24, "daily"), (1, "hourly")):
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            rows, data = make(base, arguments.days, streams, hours)
            page = base / "page.html"
            target = {**data, "target": {"column": "a", "rows": 1}}
            (base / "p.toml").write_text(toml(data))
            (base / "target.toml").write_text(toml(target))
            subjects = {"with its source": "p.toml", "with errors": "target.toml"}
            for what, file in subjects.items():
                lines.append(of_report(f"{name}, {what}", rows, base / file, page))
            for path in (base / "in").iterdir():
                path.unlink()
            lines.append(of_report(f"{name}, output alone", rows, base / "out", page))
    titles = ["", "rows", "seconds", "cpu seconds", "peak MB", "MB of the page"]
    text = timing.table(titles, lines)
    head = f"{timing.machine('pyarrow', 'vl-convert-python')}\n\nA year of {streams:,} streams"
    timing.publish({"report": f"{head}\n\n{text}"}, arguments.markdown)


if __name__ == "__main__":
    main()
