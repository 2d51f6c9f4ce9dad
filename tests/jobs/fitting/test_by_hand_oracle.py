"""Fits of one unit against a loop in PyTorch, in float64, that is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline, load_model
from streamrnn.nn.kernels.random import key_of, permutation

torch: Any = pytest.importorskip("torch", reason="needs the oracles extra")

LANES, STEPS, EPOCHS, SETTLE, RATE = 2, 3, 2, 1, 0.1
HOUR = timedelta(hours=1)
Row = dict[str, Any]
Cell = Callable[[Any, Any, list[Any]], tuple[Any, Any]]


def rows() -> list[Row]:
    """Three streams of 9, 5 and 7 rows: a gap, a reset, weights of 0 to 2, labels of null."""
    rng = np.random.default_rng(5)
    found = []
    for number in range(9):
        for key, length in {"A": 9, "B": 5, "C": 7}.items():
            if number < length:
                gap = 10 if key == "A" and number >= 6 else 0
                found.append(
                    {
                        "id": key,
                        "t": datetime(2024, 1, 1) + (number + gap) * HOUR,
                        "x": float(rng.normal()),
                        "z": float(rng.normal()),
                        "new": key == "C" and number == 3,
                        "w": float(rng.integers(0, 3)),
                        "y": None if rng.random() < 0.1 else float(rng.normal()),
                    }
                )
    return found


def sequences(log: list[Row]) -> list[list[Row]]:
    """The rows of each stream, between resets and gaps of more than two hours."""
    found: list[list[Row]] = []
    for key in "ABC":
        run: list[Row] = []
        for row in log:
            if row["id"] != key:
                continue
            if run and (row["new"] or row["t"] - run[-1]["t"] > 2 * HOUR):
                found.append(run)
                run = []
            run.append(row)
        found.append(run)
    for run in found:
        for number, row in enumerate(run):
            later = [other["y"] for other in run if other["t"] == row["t"] + HOUR]
            row["label"] = later[0] if later else None
            row["counts"] = number >= SETTLE and row["w"] > 0 and row["label"] is not None
    return found


def trained(cell: Cell, weights: list[np.ndarray], log: list[Row]) -> tuple[list[Any], list[float]]:
    """Weights and losses: lanes side by side, the gradient stops at the begin of a window."""
    runs = sequences(log)
    w = [torch.tensor(array.astype(float), requires_grad=True) for array in weights]
    losses = []
    for epoch in range(EPOCHS):
        order = permutation(key_of(0, epoch), len(runs)).tolist()
        lanes: list[tuple[int, int] | None] = [None] * LANES
        states = [torch.zeros(1, dtype=torch.float64)] * LANES
        total, count = 0.0, 0
        while True:
            for lane in range(LANES):
                if lanes[lane] is None and order:
                    lanes[lane] = (order.pop(0), 0)
                    states[lane] = torch.zeros(1, dtype=torch.float64)
            if not any(lanes):
                break
            sums: list[Any] = []
            for lane, place in enumerate(lanes):
                if place is None:
                    continue
                number, begin = place
                h = states[lane].detach()
                for row in runs[number][begin : begin + STEPS]:
                    x = torch.tensor([row["x"], row["z"]], dtype=torch.float64)
                    y, h = cell(x, h, w)
                    if row["counts"]:
                        sums.append(row["w"] * (y - row["label"]) ** 2)
                states[lane] = h
                end = begin + STEPS
                lanes[lane] = (number, end) if end < len(runs[number]) else None
            if sums:
                loss = torch.stack(sums).mean()
                gradients = torch.autograd.grad(loss, w)
                with torch.no_grad():
                    for array, gradient in zip(w, gradients, strict=True):
                        array -= RATE * gradient
                total, count = total + loss.item() * len(sums), count + len(sums)
        losses.append(total / count)
    return [array.detach().numpy() for array in w], losses


def dense(x: Any, h: Any, w: list[Any]) -> tuple[Any, Any]:
    return x @ w[0] + w[1], h


def simple_rnn(x: Any, h: Any, w: list[Any]) -> tuple[Any, Any]:
    h = torch.tanh(x @ w[0] + h @ w[1] + w[2])
    return h @ w[3] + w[4], h


@pytest.mark.parametrize(
    ("first", "cell"),
    [([], dense), ([{"type": "SimpleRNN", "units": 1}], simple_rnn)],
    ids=["dense", "simple_rnn"],
)
def test_a_fit_is_the_loop_by_hand(first: list[Row], cell: Cell, tmp_path: Path) -> None:
    log = rows()
    pq.write_table(pa.Table.from_pylist(log), tmp_path / "log.parquet")
    path = tmp_path / "model.safetensors"
    summary = Pipeline.from_dict(
        {
            "source": {
                "path": str(tmp_path / "log.parquet"),
                "key": "id",
                "time": "t",
                "features": ["x", "z"],
                "reset": "new",
                "max_gap": "2h",
            },
            "window": {"lanes": LANES, "steps": STEPS},
            "model": {"path": str(path), "layers": [*first, {"type": "Dense", "units": 1}]},
            "output": {"warmup": SETTLE},
            "target": {"column": "y", "horizon": "1h", "weight": "w"},
            "train": {
                "epochs": EPOCHS,
                "pieces": 1,
                "scale_target": False,
                "optimizer": {"name": "sgd", "learning_rate": RATE},
            },
        }
    ).fit()
    initial = load_model(f"{path}.fit/initial.safetensors").get_weights()
    weights, losses = trained(cell, initial, log)
    for found, wanted in zip(load_model(path).get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)
    np.testing.assert_allclose([row["loss"] for row in summary.history], losses, rtol=2e-6)
    assert summary.labels == sum(row["counts"] for row in log)
