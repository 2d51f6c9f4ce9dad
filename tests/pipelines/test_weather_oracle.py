"""Training prepares rows as the pipeline does: the same weights err by the same degrees."""

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from streamrnn import load_model

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")

ROOT = Path(__file__).parents[2]


def test_training_prepares_rows_as_the_pipeline_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_weather.py has the same figures from the pipeline's output."""
    monkeypatch.syspath_prepend(str(ROOT / "pipelines" / "weather"))
    train = import_module("train")
    airports = train.read(ROOT / "data" / "weather.parquet")
    model = load_model(ROOT / "pipelines" / "weather" / "model.safetensors")
    scores = train.rmse(model, airports, train.OCTOBER, np.datetime64("2014-01-01T00:00"))
    assert {origin: np.round(pair, 2).tolist() for origin, pair in scores.items()} == {
        "EWR": [2.82, 4.22],
        "JFK": [2.67, 3.66],
        "LGA": [2.52, 3.08],
    }
