"""The fitted weather model, against its layers trained in Keras on rows that NumPy prepares."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

from pipelines import train_in_keras

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
FITTED = {"EWR": 2.81, "JFK": 2.56, "LGA": 2.49}  # degF, as in test_weather.py
PERSISTENCE = {"EWR": 4.22, "JFK": 3.66, "LGA": 3.08}


@pytest.fixture(scope="module")
def airports() -> dict:
    return train_in_keras.read(ROOT / "data" / "weather.parquet")


def scores(model: Any, airports: dict) -> dict:
    return train_in_keras.rmse(model, airports, train_in_keras.OCTOBER, train_in_keras.END)


def test_the_script_prepares_rows_as_the_pipeline_does(airports: dict) -> None:
    """The same weights, in Keras, err by the same degrees."""
    model = keras.models.load_model(ROOT / "pipelines" / "origins" / "weather.keras")
    assert {
        origin: np.round(pair, 2).tolist() for origin, pair in scores(model, airports).items()
    } == {origin: [FITTED[origin], PERSISTENCE[origin]] for origin in FITTED}


def test_the_fitted_model_is_as_good_as_one_trained_in_keras(airports: dict) -> None:
    """On nine months, in windows from zero states: within 3 % at each airport."""
    model = train_in_keras.train(airports, train_in_keras.BEGIN, train_in_keras.OCTOBER)
    trained = scores(model, airports)
    assert trained.keys() == FITTED.keys()
    for origin, (rmse, persistence) in trained.items():
        assert rmse < 0.9 * persistence
        assert FITTED[origin] <= 1.03 * rmse
