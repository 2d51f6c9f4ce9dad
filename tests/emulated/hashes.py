"""Print what must be the same bits everywhere: a line for each case, its name and a SHA-256.

    python tests/emulated/hashes.py > here.txt

Compare the lines of two machines, two widths of vectors (STREAMRNN_SIMD), two releases. A hash is
one of column names and values, not of a file. Models and rows are made from integers, so that
neither a random generator nor the C library decides what goes in; only names of the public API are
used, so that an older release runs the same script.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn import Input, Model, Pipeline, Sequential, layers, register_layer

ROOT = Path(__file__).resolve().parents[2]
ROWS, STREAMS = 2000, 60
START = 1_704_067_200_000_000  # 2024-01-01 UTC: a leap year, so that every day of the year comes
SOURCE = {"key": "id", "time": "t", "reset": "new", "nulls": "previous", "batch_rows": 701}
# "fixed" is what the recorded hashes call the kind.
WINDOWS = {
    "carry": {"kind": "carry", "lanes": 24, "steps": 11},
    "fixed": {"kind": "independent", "lanes": 24, "steps": 6, "stride": 4},
    "whole": {"kind": "whole", "lanes": 24},
}
OUTPUTS = {
    "every": {"emit": "every", "warmup": 2},
    "last": {"emit": "last", "last_of": 3},
    "final": {"emit": "final"},
}
ACTIVATIONS = (
    *("elu", "exponential", "gelu", "hard_sigmoid", "hard_sigmoid_02", "leaky_relu", "mish"),
    *("relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
)


class LeakyUnit(layers.Cell):
    """A compiled cell that calls no function: h' = h + rate (softsign(x K) - h)."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape: Any) -> None:
        self.add_weight("kernel", (input_shape[-1], self.units))
        self.add_weight("rate", (self.units,))

    @staticmethod
    def step(x: Any, states: Any, weights: Any, y: Any) -> None:
        (h,), (kernel, rate) = states, weights
        for u in range(h.size):
            y[u] = 0
        for k in range(x.size):
            for u in range(h.size):
                y[u] += x[k] * kernel[k, u]
        for u in range(h.size):
            h[u] += rate[u] * (y[u] / (1 + abs(y[u])) - h[u])
            y[u] = h[u]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def words(count: int, seed: int) -> Any:
    """Random 64-bit words (count,) uint64. Source: splitmix64 (Steele et al. 2014)."""
    z = np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def numbers(count: int, seed: int, limit: float) -> Any:
    """Multiples of limit / 2048 in [-limit, limit), float64: exact where limit is a power of 2."""
    return ((words(count, seed) >> np.uint64(52)).astype(np.float64) - 2048) * (limit / 2048)


def log() -> pa.Table:
    """Rows of streams of unequal lengths, interleaved by time, with nulls and resets."""
    pick = (words(ROWS, 1) >> np.uint64(33)).astype(np.int64) % STREAMS
    other = (words(ROWS, 2) >> np.uint64(33)).astype(np.int64) % STREAMS
    minutes = np.cumsum(1 + (words(ROWS, 3) >> np.uint64(33)).astype(np.int64) % 600)
    time = pa.array(START + minutes * 60_000_000, pa.int64())
    return pa.table(
        {
            "id": pa.array([f"s{i}" for i in np.minimum(pick, other)]),
            "t": time.cast(pa.timestamp("us", "UTC")),
            "a": pa.array(numbers(ROWS, 4, 2.0), mask=words(ROWS, 5) % np.uint64(10) == 0),
            "b": pa.array((words(ROWS, 6) % np.uint64(7)).astype(np.int32) - 3),
            "token": pa.array((words(ROWS, 7) % np.uint64(9)).astype(np.int64)),
            "new": pa.array(words(ROWS, 8) % np.uint64(50) == 0),
        }
    )


def scored(*recurrent: Any, features: int = 2) -> Sequential:
    return Sequential([Input((None, features)), *recurrent, layers.Dense(2, name="y")])


def tokens() -> Model:
    ids, x = Input((None,), dtype="int64", name="ids"), Input((None, 2), name="x")
    both = layers.Concatenate()([layers.Embedding(9, 5, name="table")(ids), x])
    return Model([ids, x], layers.Dense(2, name="y")(layers.GRU(21, name="rnn")(both)))


def stepwise_models() -> dict[str, Callable[[], Any]]:
    """Models that every kind of window takes."""
    deep = {"return_sequences": True}
    return {
        "lstm": lambda: scored(layers.LSTM(37, **deep, name="low"), layers.LSTM(20, name="high")),
        "gru": lambda: scored(layers.GRU(33, reset_after=True, name="rnn")),
        "gru_reset_before": lambda: scored(layers.GRU(64, reset_after=False, name="rnn")),
        "simple_rnn": lambda: scored(layers.SimpleRNN(48, name="rnn")),
        "stacked_cells": lambda: scored(
            layers.RNN([layers.LSTMCell(17), layers.GRUCell(9)], name="rnn")
        ),
        "custom_cell": lambda: scored(layers.RNN(LeakyUnit(19), name="rnn")),
        "embedding": tokens,
        "time_features": lambda: scored(layers.LSTM(16, name="rnn"), features=7),
        "normalized": lambda: scored(
            layers.Conv1D(8, 3, padding="causal", name="conv"),
            layers.LayerNormalization(name="norm"),
            layers.LSTM(24, name="rnn"),
        ),
    }


def bidirectional() -> Sequential:
    return scored(layers.Bidirectional(layers.LSTM(18, name="rnn"), name="both"))


def attending() -> Model:
    """Attention of each kind over what a recurrent layer returns, and over its last output."""
    x = Input((None, 2))
    y = layers.LSTM(18, return_sequences=True, name="rnn")(x)
    both = [
        layers.Attention(use_scale=True, name="dot")([y, y], use_causal_mask=True),
        layers.AdditiveAttention(name="sum")([y, y]),
    ]
    seen = layers.GlobalAveragePooling1D(name="mean")(layers.Concatenate(name="both")(both))
    weights = layers.Dot((2, 1), normalize=True, name="cosines")(
        [y, layers.Dense(18, name="query")(seen)]
    )
    pooled = layers.Dot(1, name="pooled")([layers.Softmax(name="weights")(weights), y])
    return Model(x, layers.Dense(2, name="y")(pooled))


WHOLE: dict[str, Callable[[], Any]] = {"bidirectional": bidirectional, "attention": attending}
"""Models that need whole sequences."""


def drawn(model: Any) -> Any:
    """The model with weights in [-1/2, 1/2)."""
    given = [
        numbers(w.size, 100 + i, 0.5).reshape(w.shape).astype(np.float32)
        for i, w in enumerate(model.get_weights())
    ]
    model.set_weights(given)
    return model


def hash_of(table: pa.Table) -> str:
    """SHA-256 of the names and values of all columns; a NaN is a NaN."""
    digest = hashlib.sha256()
    flat = table.combine_chunks().flatten()
    for name, column in zip(flat.column_names, flat.columns, strict=True):
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.int64())
        digest.update(f"{name}: {column.to_pylist()!r}\n".encode())
    return digest.hexdigest()


def run(name: str, pipeline: Pipeline, folder: Path) -> Iterator[tuple[str, str]]:
    """The hashes of a run whose output goes to `folder`/out, its state to `folder`/state.arrow."""
    pipeline.run()
    yield f"{name}/output", hash_of(pq.read_table(folder / "out"))
    with pa.ipc.open_file(folder / "state.arrow") as file:
        yield f"{name}/state", hash_of(file.read_all())


def case(kind: str, emit: str, model: str, source: str, folder: Path) -> Pipeline:
    config: dict[str, Any] = {
        "source": {**SOURCE, "path": source, "features": ["a", "b"]},
        "window": WINDOWS[kind],
        "model": {"path": str(folder.parent / f"{model}.safetensors")},
        "output": OUTPUTS[emit],
        "sink": {"path": str(folder / "out")},
        "state": {"save": str(folder / "state.arrow")},
    }
    if model == "embedding":
        config["source"]["features"] = ["token", "a", "b"]
        config["model"]["inputs"] = {"ids": "token", "x": ["a", "b"]}
    if model == "time_features":
        config["source"]["features"] = ["a"]
        config["source"]["time_features"] = ["hour", "day_of_week", "day_of_year"]
    return Pipeline.from_dict(config)


def pipelines(base: Path) -> Iterator[tuple[str, str]]:
    source = str(base / "log.parquet")
    pq.write_table(log(), source)
    stepwise = stepwise_models()
    for name, make in {**stepwise, **WHOLE}.items():
        model = drawn(make())
        model.save(base / f"{name}.safetensors")
        yield f"model/{name}/fingerprint", model.fingerprint()
    for kind in WINDOWS:
        for name in [*stepwise, *([] if kind == "carry" else WHOLE)]:
            for emit in OUTPUTS:
                if emit == "last" and kind != "carry":
                    continue  # a window, or a stream, gives one row already
                folder = base / f"{kind}-{name}-{emit}"
                yield from run(
                    f"{kind}/{name}/{emit}", case(kind, emit, name, source, folder), folder
                )


def weather(base: Path) -> Iterator[tuple[str, str]]:
    folder = base / "weather"
    overrides = [
        f"source.path={ROOT}/data/weather.parquet",
        f"model.path={ROOT}/pipelines/weather/model.safetensors",
        f"sink.path={folder}/out",
        f"state.save={folder}/state.arrow",
    ]
    pipeline = Pipeline.from_toml(ROOT / "pipelines" / "weather.toml", overrides)
    yield from run("weather", pipeline, folder)


def functions() -> Iterator[tuple[str, str]]:
    """Activations over finite float32 of both signs and of every size, subnormals among them.

    Every NaN counts as the same one.
    """
    bits = np.arange(0, 0x7F800000, 40009, dtype=np.uint32)
    x = np.concatenate([bits, bits | np.uint32(0x80000000)]).view(np.float32)[:, None]
    x = np.column_stack([x, x[::-1]])
    for name in ACTIVATIONS:
        y = layers.Activation(name)(x)
        y[np.isnan(y)] = np.nan
        yield f"activation/{name}", hashlib.sha256(y.astype("<f4").tobytes()).hexdigest()


def main() -> None:
    register_layer("LeakyUnit", LeakyUnit)
    with tempfile.TemporaryDirectory() as base:
        for part in (pipelines(Path(base)), weather(Path(base)), functions()):
            for name, found in part:
                print(name, found)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
