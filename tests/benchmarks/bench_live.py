"""What `Pipeline.process` costs with few rows, against ONNX Runtime with states in a dict.

    python tests/benchmarks/bench_live.py [--streams N …] [--rows N …] [--calls N]
        [--markdown FILE …]

LSTM(64) and Dense(1), 8 float features, int64 keys, one thread. Both sides get the same record
batches of streams that are there already, each at random and once in a batch, and return one with
key, time and score. The other side is what a careful user writes: the rows of a batch in one call
of the session, or in several if a stream has several rows. CPU time of the process, medians; the
sides take turns call by call, and in who goes first, so that neither finds its data in the cache,
or always has the code of Arrow and NumPy there that the other one has just used. Needs
`pip install -e '.[bench]' onnx`.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import timing
from bench_pipeline import NAMES, UNITS, make_model, ort_session

import streamrnn
from streamrnn import Pipeline

Side = Callable[[pa.RecordBatch], pa.RecordBatch]

_FEATURES = [pa.field(name, pa.float32()) for name in NAMES]
_ROWS = pa.schema([("id", pa.int64()), ("t", pa.int64()), *_FEATURES])
_SCORED = pa.schema([("id", pa.int64()), ("t", pa.int64()), ("y", pa.float32())])
_AT_ONCE = 50_000
"""Rows of a call that adds streams."""


def ours(model: Path) -> Side:
    source = {"key": "id", "time": "t", "features": NAMES}
    config = {"source": source, "model": {"path": str(model)}, "output": {"names": ["y"]}}
    return Pipeline.from_dict(config).process  # type: ignore[return-value]


def in_dict(session: Any) -> Side:
    """ONNX Runtime, with the states (h, c) of each stream in a dict."""
    states: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    zero = np.zeros(UNITS, np.float32)

    def process(batch: pa.RecordBatch) -> pa.RecordBatch:
        keys = batch.column("id").to_pylist()
        x = np.stack([batch.column(name).to_numpy() for name in NAMES], axis=1)
        y = np.empty(len(keys), np.float32)
        for rows in _distinct(keys):
            found = [states.get(keys[row], (zero, zero)) for row in rows]
            h, c = (np.stack([state[i] for state in found])[None] for i in range(2))
            got, h, c = session.run(None, {"x": x[None, rows], "h": h, "c": c})
            y[rows] = got[0, :, 0]
            for lane, row in enumerate(rows):
                states[keys[row]] = h[0, lane], c[0, lane]
        columns = [batch.column("id"), batch.column("t"), pa.array(y)]
        return pa.RecordBatch.from_arrays(columns, schema=_SCORED)

    return process


def _distinct(keys: list[int]) -> list[list[int]]:
    """Rows in groups of which none has a key twice; those of a key are in order."""
    if len(set(keys)) == len(keys):
        return [list(range(len(keys)))]
    groups: list[list[int]] = []
    seen: dict[int, int] = {}
    for row, key in enumerate(keys):
        seen[key] = group = seen.get(key, -1) + 1
        if group == len(groups):
            groups.append([])
        groups[group].append(row)
    return groups


def _batch(keys: np.ndarray, t: int, rng: np.random.Generator) -> pa.RecordBatch:
    features = [rng.normal(size=len(keys)).astype(np.float32) for _ in NAMES]
    return pa.record_batch([keys, np.full(len(keys), t), *features], schema=_ROWS)


def _fill(sides: dict[str, Side], streams: int, rng: np.random.Generator) -> None:
    for first in range(0, streams, _AT_ONCE):
        batch = _batch(np.arange(first, min(first + _AT_ONCE, streams)), 0, rng)
        for side in sides.values():
            side(batch)


def _seconds(sides: dict[str, Side], batches: list[pa.RecordBatch]) -> dict[str, np.ndarray]:
    """CPU seconds of each call; outputs are compared."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    scored: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    turns = [list(sides), list(sides)[::-1]]
    for number, batch in enumerate(batches):
        for name in turns[number % 2]:
            began = time.process_time()
            out = sides[name](batch)
            times[name].append(time.process_time() - began)
            scored[name].append(out.column("y").to_numpy())
    first, *others = (np.concatenate(outputs) for outputs in scored.values())
    for other in others:
        np.testing.assert_allclose(first, other, rtol=0, atol=2e-5)
    return {name: np.array(values) for name, values in times.items()}


def bench(streams: int, rows: list[int], calls: int, folder: Path) -> list[list[str]]:
    rng = np.random.default_rng(0)
    session = ort_session(
        make_model(folder / "model.safetensors"), folder / "model.onnx", threads=1
    )
    sides = {"ours": ours(folder / "model.safetensors"), "dict": in_dict(session)}
    _fill(sides, streams, rng)
    lines = []
    t = 1
    for size in rows:
        count = max(30, calls // (1 + size // 64))
        batches = [
            _batch(rng.choice(streams, size, replace=False), t + n, rng) for n in range(count)
        ]
        t += count
        seconds = _seconds(sides, batches)
        own, other = (np.median(seconds[name]) * 1e6 for name in ("ours", "dict"))
        p99 = np.percentile(seconds["ours"], 99) * 1e6 / own
        figures = [f"{own:.0f}", f"{other:.0f}", f"{own / other:.2f}", f"{p99:.2f}"]
        lines.append([f"{streams:,}", f"{size:,}", *figures])
    return lines


def main() -> None:
    options = timing.parser_of(
        __doc__, streams=[100_000, 1_000_000], rows=[1, 8, 32, 128, 1_024], calls=1_000
    ).parse_args()
    streamrnn.set_threads(1)
    lines = []
    for streams in options.streams:
        with tempfile.TemporaryDirectory() as folder:
            lines += bench(streams, options.rows, options.calls, Path(folder))
    head = ["streams", "rows", "process, µs", "dict, µs", "ratio", "p99 / median"]
    about = timing.machine("numpy", "numba", "pyarrow", "onnxruntime")
    timing.publish({"live": f"{about}\n\n{timing.table(head, lines)}"}, options.markdown)


if __name__ == "__main__":
    main()
