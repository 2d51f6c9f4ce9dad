"""What a fit compares its errors with: persistence, the mean label, and a season before."""

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import logs
import naive_labels
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from naive_scores import Pair, distances

from streamrnn import Input, Pipeline, Sequential, layers, load_model
from streamrnn.cli.fit import in_words
from streamrnn.cli.report import verdict
from streamrnn.pipeline import FitSummary

HOURS = 24 * 20
START = datetime(2024, 3, 1, tzinfo=UTC)
CUT = START + timedelta(days=15)
SEASONS = {"24h": timedelta(hours=24), "7h": timedelta(hours=7)}


def log(period: int = 24, noise: float = 0.1) -> pa.Table:
    """Hourly rows of two streams; b has a period, and some nulls."""
    rng = np.random.default_rng(5)
    hour, stream = np.repeat(np.arange(HOURS), 2), np.tile([0, 1], HOURS)
    b = 10 * np.sin(2 * np.pi * hour / period + stream) + rng.normal(0, noise, len(hour))
    times = [START + timedelta(hours=n) for n in hour.tolist()]
    return pa.table(
        {
            "id": pa.array([f"s{n}" for n in stream]),
            "t": pa.array(times, pa.timestamp("us", "UTC")),
            "a": pa.array(rng.normal(size=len(hour))),
            "b": pa.array(b, mask=rng.random(len(hour)) < 0.1),
            "w": pa.array((hour // 5 + stream) % 4),
        }
    )


def fitted(folder: Path, table: pa.Table, target: dict[str, Any], **train: Any) -> FitSummary:
    """A fit of a model that learns nothing: its output is `a`."""
    logs.write(table, folder / "in" / "a.parquet", row_group=100)
    model = Sequential([Input((None, 1)), layers.Dense(1)])
    model.set_weights([np.float32([[1]]), np.float32([0])])
    model.save(folder / "start.safetensors")
    data = {
        "source": {"path": str(folder / "in"), "key": "id", "time": "t", "features": ["a"]},
        "window": {"lanes": 4, "steps": 8},
        "model": {"path": str(folder / "model.safetensors")},
        "sink": {"path": str(folder / "out")},
        "target": {"column": "b", **target},
        "train": {
            "init": str(folder / "start.safetensors"),
            "optimizer": {"name": "sgd", "learning_rate": 0.0},
            "epochs": 1,
            "validation": {"since": CUT.isoformat()},
            **train,
        },
    }
    return Pipeline.from_dict(data).fit()


@pytest.mark.parametrize(
    "target",
    [
        {"horizon": "3h", "season": "24h"},
        {"rows": 2, "season": "7h"},
        {"season": "24h"},
        {},
        {"horizon": "3h", "season": "24h", "weight": "w"},
        {"weight": "w"},
    ],
    ids=str,
)
def test_errors_are_those_of_the_oracle(target: dict[str, Any], tmp_path: Path) -> None:
    """Of the model over all rows; of a baseline and the model over the rows that it judges."""
    table = log()
    best = fitted(tmp_path, table, target).best
    rows = table.to_pylist()
    streams = naive_labels.kept_streams(rows, "id", "t")
    ahead = "horizon" in target or "rows" in target
    rule: dict[str, Any] = {"time": "t", "ahead": target.get("rows", 0)}
    if "horizon" in target:
        rule["horizon"] = timedelta(hours=3)
    before: dict[int, list[Any]] = {}
    if "season" in target:
        season = SEASONS[target["season"]]
        before = naive_labels.seasonal(rows, streams, ["b"], season, **rule)
    training, pairs = [], []
    for n, (label, at) in naive_labels.labels(rows, streams, ["b", "t"], **rule).items():
        weight = rows[n]["w"] if "weight" in target else 1.0
        if label is None or not weight:
            continue
        if rows[n]["t"] >= CUT:
            (past,) = before.get(n, [None])
            pairs.append(Pair([rows[n]["a"]], label, rows[n]["b"] if ahead else None, weight, past))
        elif at < CUT:
            training.append((weight * label, weight))
    total, weights = map(sum, zip(*training, strict=True))
    figures = distances(pairs, constant=total / weights)
    near = {name: pytest.approx(value, rel=1e-4) for name, value in figures.items()}
    assert (best["val_rmse"], best["val_mae"]) == (near["rmse"], near["mae"])
    assert best["mean_rmse"] == near["rmse_mean"]
    for name, present in (("persistence", ahead), ("seasonal", "season" in target)):
        assert (f"{name}_rmse" in best) == present
        if present:
            assert best[f"{name}_rmse"] == near[f"rmse_{name}"]
            assert best[f"{name}_mae"] == near[f"mae_{name}"]
            assert best[f"{name}_rows"] == figures[f"rows_{name}"] < len(pairs)
            assert best[f"val_rmse_where_{name}"] == near[f"rmse_where_{name}"]


def test_a_model_without_skill_is_not_called_better(tmp_path: Path) -> None:
    """Persistence is worse than a model that knows nothing: the value a day before is not."""
    summary = fitted(tmp_path, log(), {"horizon": "12h", "season": "24h"})
    assert summary.better["persistence"] > 0.4
    assert summary.better["seasonal"] < -10
    text = in_words(summary)
    assert re.search(
        r"errors .*: worse, with \d+\.\d times the error of the best baseline, seas", text
    )
    assert re.search(
        r"against  RMSE of persistence .*, mean .*, seasonal \(1d\) 0\.\d+ \(\d+ rows; model", text
    )


@pytest.mark.parametrize(
    ("period", "target", "proposed"),
    [
        (24, {"horizon": "3h"}, '24h before a label forecasts it better than persistence'),
        (24, {}, "24h before a label forecasts it better than the mean label"),
        (168, {"horizon": "100h"}, '7d before'),
        (24, {"horizon": "24h"}, ""),  # the same forecast as persistence
        (24, {"horizon": "3h", "season": "24h"}, ""),
        (1, {"horizon": "3h"}, ""),  # noise
    ],
)  # fmt: skip
def test_a_season_that_the_training_rows_show_is_proposed(
    period: int, target: dict[str, Any], proposed: str, tmp_path: Path
) -> None:
    """With advice that works: it is a baseline of the next fit."""
    notes = [n for n in fitted(tmp_path, log(period), target).notes if "before a label" in n]
    assert len(notes) == bool(proposed)
    for note in notes:
        assert proposed in note
        season = re.search(r'\[target\] season = "(\w+)"', note)
        assert season is not None
        with_season = {**target, "season": season[1]}
        again = fitted(tmp_path / "again", log(period), with_season)
        assert min(again.better, key=again.better.__getitem__) == "seasonal"


@pytest.mark.parametrize("target", [{"horizon": "3h"}, {}], ids=str)
@pytest.mark.parametrize("labels", [[0.0, 0.0], [0.1, 0.1]], ids=str)
def test_no_season_is_proposed_for_constant_labels(
    labels: list[float], target: dict[str, Any], tmp_path: Path
) -> None:
    """Their mean is never wrong."""
    table = log()
    table = table.set_column(3, "b", pa.array(np.tile(labels, HOURS)))
    summary = fitted(tmp_path, table, target)
    assert summary.best["mean_rmse"] == 0
    assert not summary.notes


def test_no_season_is_proposed_beside_exact_persistence(tmp_path: Path) -> None:
    """Each stream keeps its one value, and the mean of both misses it: no forecast is better."""
    table = log()
    table = table.set_column(3, "b", pa.array(np.tile([3.0, -3.0], HOURS)))
    summary = fitted(tmp_path, table, {"horizon": "3h"})
    assert (summary.best["persistence_rmse"], summary.best["mean_rmse"]) == (0, 3)
    assert not summary.notes


def test_the_validation_proposes_no_season(tmp_path: Path) -> None:
    """Nothing of it is looked at: rows with a period come after the cut."""
    table, noise = log(), log(1)
    late = pc.greater_equal(table["t"], pa.scalar(CUT, table["t"].type))
    b = pc.if_else(late, table["b"], noise["b"])
    assert not fitted(tmp_path, table.set_column(3, "b", b), {"horizon": "3h"}).notes


def test_evaluate_takes_the_mean_that_the_fit_was_trained_on(tmp_path: Path) -> None:
    """As long as the model file is the one that it wrote, and the target the same."""
    table = log()
    fitted(tmp_path, table, {"horizon": "3h"})
    data = {
        "source": {"path": str(tmp_path / "in"), "key": "id", "time": "t", "features": ["a"]},
        "model": {"path": str(tmp_path / "model.safetensors")},
        "sink": {"path": str(tmp_path / "out")},
        "target": {"column": "b", "horizon": "3h"},
    }
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    for since in (None, CUT.isoformat()):
        found = pipeline.evaluate(since=since)
        assert "the fit of this model" in found.baselines["mean"]
        assert found.table["better_mean"][0].as_py() is not None
    other = Pipeline.from_dict({**data, "target": {"column": "a", "horizon": "3h"}})
    assert "known only afterwards" in other.evaluate().baselines["mean"]
    model = load_model(str(tmp_path / "model.safetensors"))
    model.set_weights([2 * weight for weight in model.get_weights()])
    model.save(tmp_path / "model.safetensors")
    pipeline = Pipeline.from_dict({**data, "sink": {"path": str(tmp_path / "other")}})
    pipeline.run()
    assert "before the first row" in pipeline.evaluate(since=CUT.isoformat()).baselines["mean"]


def test_a_baseline_without_error_is_never_worse() -> None:
    row = {"epoch": 1, "loss": 1.0, "val_rmse": 2.0, "val_mae": 1.0, "mean_rmse": 0.0}
    row |= {"mean_rows": 5, "val_rmse_where_mean": 2.0}
    summary = FitSummary(history=[row])
    assert summary.as_dict()["better"] == {"mean": None}
    assert "worse than the best baseline, mean, which is never wrong" in in_words(summary)


def test_verdicts_are_plain() -> None:
    assert verdict(-0.381, "mean") == "38% worse than the best baseline, mean"
    assert verdict(0.004, "mean") == "as good as the best baseline, mean"
    assert verdict(-4.2, "mean") == "worse, with 5.2 times the error of the best baseline, mean"
    never = "worse than the best baseline, mean, which is never wrong"
    assert verdict(-math.inf, "mean") == never
