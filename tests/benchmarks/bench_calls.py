"""What a single call costs, in µs: one row and one step at a time, a window, a small batch.

    python tests/benchmarks/bench_calls.py [--rounds 15] [--units 16] [--markdown FILE …]

Run it from the repository's root. Medians; the sides take turns. Overhead, not arithmetic, decides
at these sizes. Of `Pipeline.process` each call gets new rows, in order of time.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timing

from streamrnn import Pipeline, Sequential, layers, load_model
from streamrnn.models import StepRunner

_FEATURES, _STEPS = 8, 50
_WEATHER = "pipelines/weather.toml"


def _built(layer: layers.RNN) -> layers.RNN:
    layer.build((None, None, _FEATURES))
    return layer


def _layer_calls(rounds: int, units: int) -> str:
    rng = np.random.default_rng(0)
    row = rng.normal(size=(1, _FEATURES)).astype(np.float32)
    window = rng.normal(size=(1, _STEPS, _FEATURES)).astype(np.float32)
    step, one = row[:, None], np.zeros((1, units), np.float32)
    states = [one.copy(), one.copy()]

    plain, carried = _built(layers.LSTM(units)), _built(layers.LSTM(units, stateful=True))
    wrapped = _built(layers.RNN(layers.LSTMCell(units)))
    wrapped.set_weights(plain.get_weights())
    model = Sequential(
        [layers.Input((None, _FEATURES)), layers.LSTM(units, stateful=True), layers.Dense(1)]
    )
    sides = {
        "LSTM.step, B=1": lambda: plain.step(row, states),
        "stateful LSTM, B=1, T=1": lambda: carried(step),
        "stateful Sequential(LSTM, Dense), B=1, T=1": lambda: model(step),
        f"LSTM, B=1, T={_STEPS}": lambda: plain(window),
        f"RNN(LSTMCell), B=1, T={_STEPS}": lambda: wrapped(window),
    }
    found = timing.in_turn(sides, rounds=rounds)
    return timing.table(["call", "µs"], [(n, f"{t * 1e6:.1f}") for n, t in found.items()])


# --- process ------------------------------------------------------------------------------------


def _weather() -> Pipeline:
    return Pipeline.from_toml(_WEATHER)


def _weather_rows() -> pa.RecordBatch:
    return pq.read_table("data/weather.parquet").combine_chunks().to_batches()[0]


def _small_lstm(folder: str) -> Pipeline:
    path = f"{folder}/m.safetensors"
    model = Sequential([layers.Input((None, 4)), layers.LSTM(8, return_sequences=True)])
    model.save(path)
    names = [f"x{i}" for i in range(4)]
    source = {"key": "id", "features": names}
    return Pipeline.from_dict({"source": source, "model": {"path": path}})


def _small_rows(rows: int = 4000) -> pa.RecordBatch:
    rng = np.random.default_rng(1)
    x = {f"x{i}": rng.normal(size=rows).astype(np.float32) for i in range(4)}
    return pa.record_batch({"id": rng.integers(0, 50, rows), **x})


def _batches(rows: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    return (rows.slice(first, size) for first in range(0, rows.num_rows - size + 1, size))


def _python_calls(call: Callable[[], object]) -> int:
    counts = {"call": 0}

    def profile(_: object, event: str, __: object) -> None:
        if event in counts:
            counts[event] += 1

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return counts["call"]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _process(pipeline: Pipeline, rows: pa.RecordBatch, size: int) -> tuple[str, ...]:
    """Median and 99th percentile in µs, Python calls of the median batch."""
    batches = list(_batches(rows, size))[:4000]
    for batch in batches[:50]:
        pipeline.process(batch)
    times = [_seconds(partial(pipeline.process, batch)) for batch in batches[50:-20]]
    calls = [_python_calls(partial(pipeline.process, batch)) for batch in batches[-20:]]
    median, p99 = np.percentile(times, [50, 99]) * 1e6
    ratio = f"{p99 / median:.2f}"
    return f"{median:.0f}", f"{p99:.0f}", ratio, f"{statistics.median(calls):.0f}"


def _kernels(lanes: int, steps: int) -> Callable[[], object]:
    """The weather model over a window of the rows of one record batch."""
    model = load_model("pipelines/weather/model.safetensors")
    stream = StepRunner(model)
    x = np.random.default_rng(2).normal(size=(lanes, steps, _FEATURES)).astype(np.float32)
    lengths, states = np.full(lanes, steps), stream.initial_state(lanes)
    return lambda: stream.run([x], lengths, states)


def _arrow(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Arrow alone: the columns in use to numpy, the keys to numbers, the output from numpy."""
    names = ["time_hour", "temp", "dewp", "humid", "wind_speed", "pressure", "precip"]
    arrays = [batch.column(name).to_numpy(zero_copy_only=False) for name in names]
    batch.column("origin").dictionary_encode()
    features = np.stack([array.astype(np.float32) for array in arrays[1:]], axis=1)
    carried = [batch.column(name) for name in ("origin", "time_hour", "temp")]
    out = pa.array(np.ascontiguousarray(features[:, 0]))
    return pa.RecordBatch.from_arrays([*carried, out], ["origin", "time_hour", "temp", "temp_3h"])


def _thousand_rows(rounds: int) -> str:
    rows, kernels = _weather_rows(), _kernels(lanes=3, steps=334)
    times: dict[str, list[float]] = {"process": [], "kernels": [], "Arrow": []}
    for _ in range(-(-rounds // 5)):
        process = _weather().process
        for batch in _batches(rows, 1000):
            times["process"].append(_seconds(partial(process, batch)))
            times["kernels"].append(_seconds(kernels))
            times["Arrow"].append(_seconds(partial(_arrow, batch)))
    ours, kernel, arrow = (statistics.median(values) * 1e6 for values in times.values())
    return (
        f"`process`, weather, 1,000 rows: {ours:.0f} µs; kernels alone {kernel:.0f}, Arrow alone "
        f"{arrow:.0f}, ours over both {ours / (kernel + arrow):.2f}"
    )


def main() -> None:
    arguments = timing.parser_of(__doc__, rounds=15, units=16).parse_args()
    calls = _layer_calls(arguments.rounds, arguments.units)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            ("weather, 3 rows", *_process(_weather(), _weather_rows(), 3)),
            ("LSTM(8), 1 row", *_process(_small_lstm(folder), _small_rows(), 1)),
        ]
    head = ["process", "median, µs", "p99, µs", "p99 / median", "Python calls"]
    process = timing.table(head, rows)
    about = timing.machine("numpy", "numba", "pyarrow")
    about += f"; {arguments.units} units, {_FEATURES} features"
    text = "\n\n".join([about, calls, process, _thousand_rows(arguments.rounds)])
    timing.publish({"calls": text}, arguments.markdown)


if __name__ == "__main__":
    main()
