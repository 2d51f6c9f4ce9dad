"""An epoch of `Pipeline.fit` against a loop in PyTorch, and against scoring the same rows.

    python tests/benchmarks/bench_fit.py                      # 2,000,000 rows of 1,000 streams
    python tests/benchmarks/bench_fit.py --rows 200000 --rounds 3

LSTM(64) and Dense(1) over 8 features, 32 lanes x 64 steps, Adam, mean squared error, one thread.
The loop in PyTorch has its rows in memory, sorted by stream; it carries the state of each lane from
window to window, and starts a lane fresh where its stream ends, as a fit does. `scoring`: the time
of the kernels alone for the same windows. An epoch of ours includes its windows and progress; what
a fit does once (reading, sorting, hashing) is reported beside it. Needs torch.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from timing import parser_of

from streamrnn import Input, Pipeline, Sequential, layers, set_threads
from streamrnn.models import StepRunner

FEATURES, UNITS, LANES, STEPS = 8, 64, 32, 64


def log(rows: int, streams: int) -> pa.Table:
    """Streams of equal lengths, row by row in turn; the target follows from the last features."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((rows, FEATURES)).astype(np.float32)
    columns: dict[str, Any] = {f"x{i}": x[:, i] for i in range(FEATURES)}
    target = np.tanh(x[:, 0] + np.roll(x[:, 1], streams))
    number = np.arange(rows)
    return pa.table({"id": number % streams, "t": number // streams, "y": target, **columns})


def config(folder: Path, epochs: int) -> dict[str, Any]:
    """A fit of the log."""
    return {
        "source": {
            "path": str(folder / "log.parquet"),
            "key": "id",
            "time": "t",
            "features": [f"x{i}" for i in range(FEATURES)],
        },
        "window": {"lanes": LANES, "steps": STEPS},
        "model": {
            "path": str(folder / "model.safetensors"),
            "threads": 1,
            "layers": [{"type": "LSTM", "units": UNITS}, {"type": "Dense", "units": 1}],
        },
        "target": {"column": "y"},
        "train": {"epochs": epochs, "state": False, "scale_target": False, "pieces": 1},
        "sink": {"path": str(folder / "out")},
    }


def ours(folder: Path, epochs: int) -> tuple[list[float], float]:
    """Return the seconds of each epoch, and those of the rest of the fit."""
    began = time.perf_counter()
    summary = Pipeline.from_dict(config(folder, epochs)).fit(full_refresh=True)
    whole = time.perf_counter() - began
    epochs_taken = [float(row["seconds"]) for row in summary.history]
    return epochs_taken, whole - sum(epochs_taken)


def scoring(rows: int) -> float:
    """Return the seconds of the kernels for all windows."""
    model = Sequential([Input((None, FEATURES)), layers.LSTM(UNITS), layers.Dense(1)])
    runner = StepRunner(model)
    states = runner.initial_state(LANES)
    x = np.random.default_rng(0).standard_normal((LANES, STEPS, FEATURES)).astype(np.float32)
    began = time.perf_counter()
    for _ in range(rows // (LANES * STEPS)):
        runner.run([x], None, states)
    return time.perf_counter() - began


def torch_epoch(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Return the seconds of an epoch: x (streams, rows, features), y (streams, rows, 1)."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rnn = torch.nn.LSTM(FEATURES, UNITS, batch_first=True)
    head = torch.nn.Linear(UNITS, 1)
    weights = [*rnn.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, fused=True)
    order = np.random.default_rng(seed).permutation(len(x))
    began = time.perf_counter()
    for first in range(0, len(x), LANES):
        lanes = order[first : first + LANES]
        state = None
        for begin in range(0, x.shape[1], STEPS):
            inputs = torch.from_numpy(x[lanes, begin : begin + STEPS])
            truth = torch.from_numpy(y[lanes, begin : begin + STEPS])
            outputs, state = rnn(inputs, state)
            state = tuple(s.detach() for s in state)
            loss = torch.nn.functional.mse_loss(head(outputs), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # a fit reports it
    return time.perf_counter() - began


def main() -> None:
    arguments = parser_of(
        __doc__, markdown=False, rows=2_000_000, streams=1000, rounds=3
    ).parse_args()
    rows, streams = arguments.rows, arguments.streams
    set_threads(1)
    table = log(rows, streams)
    x = np.stack([table[f"x{i}"].to_numpy() for i in range(FEATURES)], axis=1)
    x = np.ascontiguousarray(x.reshape(-1, streams, FEATURES).swapaxes(0, 1))
    y = table["y"].to_numpy().reshape(-1, streams).T[..., None].astype(np.float32)
    found: dict[str, list[float]] = {"epoch": [], "rest": [], "torch": [], "scoring": []}
    with tempfile.TemporaryDirectory() as name:
        pq.write_table(table, Path(name) / "log.parquet", row_group_size=131072)
        ours(Path(name), 1)  # compiles
        for seed in range(arguments.rounds):
            taken, rest = ours(Path(name), 1)
            found["epoch"] += taken
            found["rest"].append(rest)
            found["scoring"].append(scoring(rows))
            found["torch"].append(torch_epoch(x, y, seed))
    median = {key: statistics.median(values) for key, values in found.items()}
    print("| rows | epoch | torch | torch / ours | scoring | ours / scoring | once |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {rows:,} | {median['epoch']:.2f} s | {median['torch']:.2f} s | "
        f"{median['torch'] / median['epoch']:.2f} | {median['scoring']:.2f} s | "
        f"{median['epoch'] / median['scoring']:.2f} | {median['rest']:.2f} s |"
    )


if __name__ == "__main__":
    main()
