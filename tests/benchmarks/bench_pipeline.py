"""Parquet to Parquet, against the limit and against what one writes today with ONNX Runtime.

    python tests/benchmarks/bench_pipeline.py [--rows N] [--streams N …] [--precisions P …]
        [--rounds N] [--markdown FILE …]

2,000,000 rows, 8 float features, LSTM(64) and Dense(1), string keys, streams interleaved by time.
Ours in each precision, with its own limit: the kernels alone on the same rows (two threads) plus
pyarrow alone reading these columns and writing that output. Peers, onnxruntime in float32 with two
threads: `loop` (pandas group by key in each record batch, one call a key, states in a dict) and
`careful` (numpy sort, streams of equal length in batches of 64, states in arrays). All sides score
the same rows, are compared with one another, and take turns; medians. Needs
`pip install -e '.[bench]' onnx`.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing

FEATURES = 8
UNITS = 64
BATCH = 131_072
LANES = 64
PRECISIONS = {"float32": 2e-5, "int16": 1e-3, "int8": 0.05}
"""How far outputs may be from those of ONNX Runtime."""
NAMES = [f"x{i}" for i in range(FEATURES)]


def make_log(path: Path, rows: int, streams: int) -> None:
    """Streams take turns: row i belongs to stream i % streams."""
    rng = np.random.default_rng(7)
    ids = pa.array([f"stream-{i:07d}" for i in range(streams)])
    with pq.ParquetWriter(path, _schema()) as writer:
        for first in range(0, rows, BATCH):
            n = np.arange(first, min(first + BATCH, rows))
            time_ = pa.array(n // streams * 1_000_000).cast(pa.timestamp("us"))
            x = [pa.array(rng.normal(size=len(n)).astype(np.float32)) for _ in NAMES]
            columns = [ids.take(pa.array(n % streams)), time_, *x]
            writer.write_table(pa.table(columns, schema=_schema()))


def _schema() -> pa.Schema:
    features = [(name, pa.float32()) for name in NAMES]
    return pa.schema([("id", pa.string()), ("t", pa.timestamp("us")), *features])


def make_model(path: Path) -> list[np.ndarray]:
    """The model for both sides; returns its weights as Keras lays them out."""
    from streamrnn import Sequential, layers

    lstm = layers.LSTM(UNITS, return_sequences=True)
    model = Sequential([layers.Input((None, FEATURES)), lstm, layers.Dense(1)])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.2, w.shape).astype(np.float32) for w in model.get_weights()])
    model.save(path)
    return list(model.get_weights())


# --- ours -------------------------------------------------------------------------------------


def ours(source: Path, model: Path, out: Path, precision: str) -> Callable[[], Path]:
    from streamrnn import Pipeline

    config = {
        "source": {"path": str(source), "key": "id", "time": "t", "features": NAMES},
        "model": {"path": str(model), "precision": precision},
        "output": {"names": ["y"]},
        "sink": {"path": str(out)},
    }
    pipeline = Pipeline.from_dict(config)

    def run() -> Path:
        pipeline.run()
        return out

    return run


def kernels_alone(rows: int, streams: int, model: Path, precision: str) -> Callable[[], None]:
    """LSTM and Dense over the windows that the pipeline makes, from arrays already there."""
    from streamrnn import load_model
    from streamrnn.models import StepRunner
    from streamrnn.stream.operators import Workers

    stream = StepRunner(load_model(model, precision=precision))
    windows: list[tuple[int, int]] = []
    rng = np.random.default_rng(1)
    for first in range(0, rows, BATCH):
        n = min(BATCH, rows - first)
        longer, shorter = n % streams, streams - n % streams
        for lanes, steps in ((longer, n // streams + 1), (shorter, n // streams)):
            width = LANES * max(1, 128 // max(steps, 1))
            starts = range(0, lanes if steps else 0, width)
            windows += [(min(width, lanes - at), steps) for at in starts]
    x = rng.normal(size=(LANES * 128, 128, FEATURES)).astype(np.float32)
    workers = Workers(2)

    def work(window: tuple[int, int]) -> None:
        b, t = window
        states = stream.initial_state(b)
        for first in range(0, t, 128):
            size = min(128, t - first)
            block = np.ascontiguousarray(x.reshape(-1)[: b * size * FEATURES])
            stream.run([block.reshape(b, size, FEATURES)], np.full(b, size, np.int64), states)

    return lambda: workers.map(work, windows)


def pyarrow_alone(source: Path, written: Path, scratch: Path) -> Callable[[], None]:
    """Read the columns, and write the output that is there already."""
    output = pq.read_table(written)

    def run() -> None:
        file = pq.ParquetFile(source, pre_buffer=False)
        for _ in file.iter_batches(BATCH, columns=["id", "t", *NAMES]):
            pass
        pq.write_table(output, scratch, compression="zstd")

    return run


# --- ONNX Runtime -------------------------------------------------------------------------------


def ort_session(weights: list[np.ndarray], path: Path, threads: int = 2) -> Any:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    kernel, recurrent, bias, dense, offset = weights
    order = [0, 3, 1, 2]  # Keras i f c o -> ONNX i o f c

    def gates(w: np.ndarray) -> np.ndarray:
        parts = np.split(w, 4, axis=-1)
        return np.concatenate([parts[k] for k in order], axis=-1)

    init = {
        "W": gates(kernel).T[None],
        "R": gates(recurrent).T[None],
        "B": np.concatenate([gates(bias), np.zeros(4 * UNITS, np.float32)])[None],
        "D": dense,
        "b": offset,
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node(
            "LSTM", ["x", "W", "R", "B", "", "h", "c"], ["Y", "hn", "cn"], hidden_size=UNITS
        ),
        helper.make_node("Squeeze", ["Y", "axis"], ["s"]),
        helper.make_node("MatMul", ["s", "D"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    f32 = TensorProto.FLOAT
    ins = [("x", ["T", "B", FEATURES]), ("h", [1, "B", UNITS]), ("c", [1, "B", UNITS])]
    outs = [("y", ["T", "B", 1]), ("hn", [1, "B", UNITS]), ("cn", [1, "B", UNITS])]
    graph = helper.make_graph(
        nodes,
        "lstm",
        [helper.make_tensor_value_info(n, f32, s) for n, s in ins],
        [helper.make_tensor_value_info(n, f32, s) for n, s in outs],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in init.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options)


def loop(source: Path, out: Path, session: Any) -> Callable[[], Path]:
    """pandas groups each record batch by key; one call a key; states in a dict."""

    def run() -> Path:
        zero = np.zeros((1, 1, UNITS), np.float32)
        states: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        with pq.ParquetWriter(out, _out_schema(), compression="zstd") as writer:
            for batch in pq.ParquetFile(source).iter_batches(BATCH):
                frame = batch.to_pandas()
                x, y = frame[NAMES].to_numpy(np.float32), np.empty(len(frame), np.float32)
                for key, rows in frame.groupby("id", sort=False).indices.items():
                    h, c = states.get(key, (zero, zero))
                    got, h, c = session.run(None, {"x": x[rows][:, None], "h": h, "c": c})
                    y[rows] = got[:, 0, 0]
                    states[key] = (h, c)
                writer.write_table(_out_table(batch, y))
        return out

    return run


def careful(source: Path, out: Path, session: Any, streams: int) -> Callable[[], Path]:
    """numpy sorts; streams of equal length go into batches of 64; states are two arrays."""

    def run() -> Path:
        slots: dict[str, int] = {}
        h_SU, c_SU = np.zeros((2, streams, UNITS), np.float32)
        with pq.ParquetWriter(out, _out_schema(), compression="zstd") as writer:
            for batch in pq.ParquetFile(source).iter_batches(BATCH):
                codes = batch.column("id").dictionary_encode()
                known = [slots.setdefault(k, len(slots)) for k in codes.dictionary.to_pylist()]
                slot = np.array(known)[codes.indices.to_numpy()]
                x = np.column_stack([batch.column(n).to_numpy() for n in NAMES])
                y = np.empty(len(x), np.float32)
                order = np.argsort(slot, kind="stable")
                ids, first, size = np.unique(slot[order], return_index=True, return_counts=True)
                for length in np.unique(size):
                    same = np.flatnonzero(size == length)
                    for at in range(0, len(same), LANES):
                        some = same[at : at + LANES]
                        rows = order[first[some] + np.arange(length)[:, None]]
                        where = ids[some]
                        feed = {"x": x[rows], "h": h_SU[None, where], "c": c_SU[None, where]}
                        got, h, c = session.run(None, feed)
                        h_SU[where], c_SU[where] = h[0], c[0]
                        y[rows] = got[:, :, 0]
                writer.write_table(_out_table(batch, y))
        return out

    return run


def _out_schema() -> pa.Schema:
    return pa.schema([("id", pa.string()), ("t", pa.timestamp("us")), ("y", pa.float32())])


def _out_table(batch: pa.RecordBatch, y: np.ndarray) -> pa.Table:
    return pa.table([batch.column("id"), batch.column("t"), pa.array(y)], schema=_out_schema())


# --- the table ----------------------------------------------------------------------------------


def in_turn(
    sides: dict[str, Callable[[], object]], rounds: int, outputs: dict[str, Path]
) -> dict[str, list[float]]:
    """Seconds of each side in each round; the sides take turns, so that noise meets all.

    What a side wrote before is removed first: that takes up to 0.02 s and is no part of the work.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            if (old := outputs.get(name)) is not None:
                shutil.rmtree(old, ignore_errors=True)
                old.unlink(missing_ok=True)
            time.sleep(timing.PAUSE)
            began = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def check_same(a: Path, b: Path, tolerance: float) -> None:
    left, right = (pq.read_table(p).column("y").to_numpy() for p in (a, b))
    np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


def peak_memory(source: Path, model: Path, out: Path, precision: str) -> float:
    """MiB of a process of its own that runs the pipeline once."""
    code = (
        "import sys, resource, pathlib; sys.path.insert(0, sys.argv[1])\n"
        "import bench_pipeline as b\n"
        "b.ours(*map(pathlib.Path, sys.argv[2:5]), sys.argv[5])()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = [str(Path(__file__).parent), str(source), str(model), str(out), precision]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 1024


def bench(
    rows: int, streams: int, precisions: list[str], rounds: int, slow_rounds: int, base: Path
) -> list[list[str]]:
    """A row of the table for each precision."""
    source, model = base / f"{streams}.parquet", base / "model.safetensors"
    make_log(source, rows, streams)
    session = ort_session(make_model(model), base / "model.onnx")
    outputs = {p: base / f"out-{p}" for p in precisions}
    mine = {p: ours(source, model, outputs[p], p) for p in precisions}
    kernels = {f"{p} kernels": kernels_alone(rows, streams, model, p) for p in precisions}
    for out in outputs.values():
        shutil.rmtree(out, ignore_errors=True)
    for side in (*mine.values(), *kernels.values()):
        side()
    outputs["careful"], outputs["loop"] = base / "careful.parquet", base / "loop.parquet"
    careful_run = careful(source, outputs["careful"], session, streams)
    loop_run = loop(source, outputs["loop"], session)
    careful_run()
    for p in precisions:
        check_same(outputs[p], outputs["careful"], PRECISIONS[p])
    outputs["pyarrow"] = base / "copy.parquet"
    files = pyarrow_alone(source, outputs[precisions[0]], outputs["pyarrow"])
    sides = {**mine, **kernels, "pyarrow": files, "careful": careful_run}
    seconds = in_turn(sides, rounds, outputs)
    if slow_rounds:
        seconds |= in_turn({"loop": loop_run}, slow_rounds, outputs)
        check_same(outputs["careful"], outputs["loop"], PRECISIONS["float32"])
    else:
        seconds["loop"] = [float("nan")]
    median = {name: statistics.median(s) for name, s in seconds.items()}
    found = []
    for p in precisions:
        shutil.rmtree(base / "out-memory", ignore_errors=True)
        memory = peak_memory(source, model, base / "out-memory", p)
        found.append([f"{rows:,}", f"{streams:,}", p, *_cells(median, p), f"{memory:.0f}"])
    return found


def _cells(median: dict[str, float], precision: str) -> list[str]:
    own, kernels = median[precision], median[f"{precision} kernels"]
    compared = precision != "float32" and "float32" in median
    return [
        f"{own:.2f} ({median['float32'] / own:.2f}x)" if compared else f"{own:.2f}",
        f"{kernels:.2f}",
        f"{median['pyarrow']:.2f}",
        f"{own / (kernels + median['pyarrow']):.2f}",
        f"{median['careful']:.2f} ({median['careful'] / own:.2f}x)",
        f"{median['loop']:.2f} ({median['loop'] / own:.1f}x)",
    ]


HEAD = [
    "rows",
    "streams",
    "precision",
    "ours, s",
    "kernels alone",
    "pyarrow alone",
    "ours / limit",
    "ORT careful",
    "ORT loop",
    "peak MiB",
]


def main() -> None:
    parser = timing.parser_of(__doc__, rows=2_000_000, streams=[1_000, 100_000], rounds=9)
    names = list(PRECISIONS)
    parser.add_argument("--precisions", nargs="+", choices=names, default=names)
    help = "of the loop, which is slow (0: none)"
    parser.add_argument("--slow-rounds", type=int, default=1, help=help)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for streams in arguments.streams:
            for row in bench(
                arguments.rows,
                streams,
                arguments.precisions,
                arguments.rounds,
                arguments.slow_rounds,
                Path(name),
            ):
                rows.append(row)
                print(dict(zip(HEAD, row, strict=True)), flush=True)
    machine = timing.machine("numba", "pyarrow", "onnxruntime", "pandas")
    texts = {"pipeline": f"{machine}\n\n{timing.table(HEAD, rows)}"}
    timing.publish(texts, arguments.markdown)


if __name__ == "__main__":
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
