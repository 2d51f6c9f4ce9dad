"""A Keras model trained on Pipeline.windows forecasts the weather as the committed one does."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamrnn import Pipeline

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")

from pipelines import train_in_keras

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
WEATHER = ROOT / "pipelines" / "weather"
COMMITTED = {"EWR": 2.81, "JFK": 2.56, "LGA": 2.49}  # degF, as in the README


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(WEATHER))
    monkeypatch.chdir(ROOT)
    return import_module("train_windows")


def test_labels_are_those_of_the_other_training_script(script: Any) -> None:
    """Which joins them in NumPy, airport by airport."""
    airports = train_in_keras.read(ROOT / "data" / "weather.parquet")
    expected = {}
    for origin, (times, _, target) in airports.items():
        inside = times + train_in_keras.AHEAD < train_in_keras.OCTOBER
        expected[origin] = target[inside & ~np.isnan(target)].astype(np.float32).tolist()
    found: dict[str, list[float]] = {origin: [] for origin in airports}
    for window in script.windows():
        for lane, origin in enumerate(window.keys.column(0).to_pylist()):
            labels = window.y[lane, :, 0]
            if origin is not None:
                found[origin] += labels[window.weight[lane] > 0].tolist()
            else:
                assert not window.weight[lane].any()
    assert found == expected


def test_a_keras_model_trained_on_windows_reaches_the_error_of_the_committed_one(
    script: Any, tmp_path: Path
) -> None:
    """Trained, saved, run and evaluated: within 3 % at each airport."""
    script.train(script.windows()).save(tmp_path / "mine.keras")
    paths = [f"model.path={tmp_path}/mine.keras", f"sink.path={tmp_path}/out"]
    pipeline = Pipeline.from_toml("pipelines/weather.toml", [*paths, "model.layers=[]"])
    pipeline.run()
    lines = pipeline.evaluate("stream", since="2013-10-01").table.to_pylist()
    rmse = {line["origin"]: line["rmse"] for line in lines[1:]}
    assert rmse.keys() == COMMITTED.keys()
    for origin, value in rmse.items():
        assert value <= 1.03 * COMMITTED[origin]
