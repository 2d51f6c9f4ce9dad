"""pipelines/cells: custom cells against their formulas in NumPy, cut anywhere, trained."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selection import first_quick

from streamrnn import Input, Sequential, layers
from streamrnn.models import StepRunner

CELLS = Path(__file__).parents[2] / "pipelines" / "cells"
UNITS, ROWS = 3, 12


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def min_gru(x: Any, h: Any) -> Any:
    v, z = x[:UNITS], sigmoid(x[UNITS:])
    return (1 - z) * h + z * np.where(v >= 0, v + 0.5, sigmoid(v))


def rg_lru(x: Any, h: Any, decay: Any) -> Any:
    v, r, i = x[:UNITS], sigmoid(x[UNITS : 2 * UNITS]), sigmoid(x[2 * UNITS :])
    a = sigmoid(-decay) ** (8 * r)  # softplus(decay) = -log sigmoid(-decay)
    return a * h + np.sqrt(1 - a**2) * i * v


@pytest.mark.parametrize(
    ("file", "name", "width", "formula"),
    first_quick([("min_gru", "MinGRU", 2, min_gru), ("rg_lru", "RGLRU", 3, rg_lru)]),
)
def test_a_cell_is_its_formula_cut_anywhere_and_is_trained(
    file: str, name: str, width: int, formula: Any
) -> None:
    """Slow: the second cell."""
    cell = runpy.run_path(str(CELLS / f"{file}.py"))[name](UNITS)
    rnn = layers.RNN(cell, return_sequences=True)
    model = Sequential([Input((None, 2)), layers.Dense(width * UNITS), rnn])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in model.get_weights()])
    x = rng.normal(size=(1, ROWS, 2)).astype(np.float32)
    kernel, bias, *decay = (w.astype(np.float64) for w in model.get_weights())
    h, expected = np.zeros(UNITS), []
    for row in x[0].astype(np.float64):
        h = formula(row @ kernel + bias, h, *decay)
        expected.append(h)
    whole = model(x)
    np.testing.assert_allclose(whole[0], expected, atol=1e-6)
    runner = StepRunner(model)
    for cut in range(ROWS + 1):
        states = runner.initial_state(1)
        parts = [
            runner.run([np.ascontiguousarray(part)], np.array([part.shape[1]]), states)[0]
            for part in (x[:, :cut], x[:, cut:])
            if part.shape[1]
        ]
        assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()
    model.compile("adam", "mse")  # before the first step the gradient is compared with differences
    history = model.fit(x, np.zeros((1, ROWS, UNITS)), epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0]
