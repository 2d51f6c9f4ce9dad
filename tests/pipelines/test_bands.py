"""Forecasts of the weather with a band: of quantiles, and of several seeds."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from selection import slow

from streamrnn import Pipeline

ROOT = Path(__file__).parents[2]
FILE = "pipelines/weather_quantiles.toml"
SINCE = "2013-10-01"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_model_of_quantiles_is_what_fit_writes(tmp_path: Path) -> None:
    """Byte for byte, on any CPU."""
    path = tmp_path / "quantiles.safetensors"
    Pipeline.from_toml(FILE, [f"model.path={path}"]).fit()
    assert path.read_bytes() == (ROOT / "pipelines/weather/quantiles.safetensors").read_bytes()


def test_the_band_holds_as_often_as_the_page_says(tmp_path: Path) -> None:
    pipeline = Pipeline.from_toml(FILE, [f"sink.path={tmp_path / 'out'}"])
    pipeline.run()
    band = pq.read_table(tmp_path / "out").drop_null()
    width = band["high"].to_numpy() - band["low"].to_numpy()
    time, shown = band["time_hour"].to_numpy(), []
    for since, until in (
        ("2013-01-01", "2013-09-01"),
        ("2013-09-01", SINCE),
        (SINCE, "2014-01-01"),
    ):
        low, _, high = pipeline.evaluate(since=since, until=until).table["coverage"].to_pylist()
        chosen = (time >= np.datetime64(since)) & (time < np.datetime64(until))
        shown.append((round(100 * (high - low), 1), round(float(width[chosen].mean()), 1)))
    assert shown == [(90.3, 7.5), (91.8, 8.2), (86.1, 7.6)]
    assert (width > 0).all()
    pinball = pipeline.evaluate(since=SINCE).table["pinball"].to_numpy().round(2)
    assert pinball.tolist() == [0.30, 0.95, 0.29]


@slow
def test_a_calibrated_band_holds_as_often_as_the_page_says(tmp_path: Path) -> None:
    """Slow: it needs a fit of its own."""
    paths = [f"model.path={tmp_path / 'q.safetensors'}", f"sink.path={tmp_path / 'out'}"]
    pipeline = Pipeline.from_toml(FILE, ["output.calibrate=true", *paths])
    pipeline.fit()
    pipeline.run()
    shown = []
    for since, until in (
        ("2013-09-01", SINCE),
        (SINCE, "2014-01-01"),
        (SINCE, "2013-11-01"),
        ("2013-11-01", "2013-12-01"),
        ("2013-12-01", "2014-01-01"),
    ):
        low, _, high = pipeline.evaluate(since=since, until=until).table["coverage"].to_pylist()
        shown.append(round(100 * (high - low), 1))
    assert shown == [90.2, 84.1, 90.1, 79.3, 82.6]


@slow
def test_five_seeds_as_one_model_have_an_honest_band(tmp_path: Path) -> None:
    """Slow: the band of five seeds, which takes five fits."""
    pipeline = Pipeline.from_toml(
        "pipelines/weather.toml",
        [
            "train.seeds=5",
            "train.keep=all",
            'output.names=["temp_3h", "spread"]',
            f"model.path={tmp_path / 'all.safetensors'}",
            f"sink.path={tmp_path / 'out'}",
        ],
    )
    pipeline.fit()
    pipeline.run()
    (figures,) = pipeline.evaluate(since=SINCE).table.to_pylist()
    assert round(figures["rmse"], 2) == 2.63
    assert round(figures["coverage_90"], 2) == 0.89
