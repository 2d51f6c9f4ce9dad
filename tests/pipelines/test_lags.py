"""pipelines/lags.py: the columns and labels of LightGBM, and the figures, in plain Python."""

import math
import runpy
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def lags(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return runpy.run_path("pipelines/lags.py")


def test_rows_before_and_labels_ahead_are_of_the_same_stream(lags: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    at = np.sort(rng.integers(0, 60, 90)).astype(float)
    streams, values = rng.integers(0, 3, 90), rng.normal(size=90)
    rows = list(zip(streams.tolist(), at.tolist(), values.tolist(), strict=True))
    order = np.argsort(streams, kind="stable")
    for lag in (1, 4):
        found = lags["_before"](values, streams, order, lag).tolist()
        for number, (stream, _, _) in enumerate(rows):
            past = [value for other, _, value in rows[:number] if other == stream]
            same = past[-lag] if len(past) >= lag else math.nan
            assert found[number] == same or (math.isnan(same) and math.isnan(found[number]))
    ahead = lags["_ahead"](values, streams, at, 3).tolist()
    for (stream, time, _), label in zip(rows, ahead, strict=True):
        there = [value for other, when, value in rows if (other, when) == (stream, time + 3)]
        assert label in there or (not there and math.isnan(label))


def test_figures_are_those_of_pairs(lags: dict[str, Any]) -> None:
    score, label = np.array([0.2, 0.8, 0.4, 0.8, 0.6]), np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    log_loss, auc = lags["_figures"](score, label, probability=True)
    chosen = [s if y else 1 - s for s, y in zip(score.tolist(), label.tolist(), strict=True)]
    assert log_loss == pytest.approx(-sum(map(math.log, chosen)) / 5)
    pairs = [(a > b) + (a == b) / 2 for a in (0.8, 0.4, 0.6) for b in (0.2, 0.8)]
    assert auc == pytest.approx(sum(pairs) / len(pairs))
    assert lags["_figures"](score, label, probability=False)[1] == pytest.approx(0.44)
