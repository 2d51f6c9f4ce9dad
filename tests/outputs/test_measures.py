"""Figures of pairs, against their definitions; however the pairs are divided."""

from collections.abc import Callable

import naive_scores
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.outputs.measures import Binary, Classes, Distance, Measure, Pairs

PROBABILITY = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))
NUMBER = st.floats(-100, 100, width=32)
CUT = st.integers(0, 30)


Rows = list[tuple[int, list[float], float, float, int]]
"""Group, scores, label, value now, weight."""


def rows_of(
    score: st.SearchStrategy[float], units: int, label: st.SearchStrategy[float]
) -> st.SearchStrategy[Rows]:
    scores = st.lists(score, min_size=units, max_size=units)
    row = st.tuples(st.integers(0, 2), scores, label, label, st.integers(1, 3))
    return st.lists(row, min_size=1, max_size=30)


def found(measure: Measure, rows: Rows, cut: int) -> list[dict[str, float]]:
    """The figures of groups 0 to 2 of rows that are added in two calls."""
    for part in (rows[:cut], rows[cut:]):
        if part:
            group, score, label, now, weight = map(np.array, zip(*part, strict=True))
            measure.add(Pairs(group, score.astype(np.float32), label, now, weight.astype(float)))
    result = measure.result(3)
    return [{name: float(values[group]) for name, values in result.items()} for group in range(3)]


def compare(
    figures: list[dict[str, float]],
    rows: Rows,
    expected: Callable[[list[naive_scores.Pair]], dict[str, float]],
) -> None:
    for group, line in enumerate(figures):
        pairs = [naive_scores.Pair(s, y, now, w) for g, s, y, now, w in rows if g == group]
        if not pairs:
            assert all(np.isnan(value) for value in line.values())
            continue
        for name, value in expected(pairs).items():
            if name in line:
                assert line[name] == pytest.approx(value, rel=1e-6, abs=1e-4), name


@settings(max_examples=150, deadline=None)
@given(rows=rows_of(PROBABILITY, 1, st.sampled_from([0.0, 1.0])), cut=CUT)
def test_probabilities(rows: Rows, cut: int) -> None:
    figures = found(Binary(ahead=True), rows, cut)
    compare(figures, rows, naive_scores.probabilities)
    assert {"auc", "accuracy_persistence", "log_loss_base_rate"} <= figures[0].keys()


@settings(max_examples=150, deadline=None)
@given(rows=rows_of(PROBABILITY, 3, st.sampled_from([0.0, 1.0, 2.0])), cut=CUT)
def test_classes(rows: Rows, cut: int) -> None:
    figures = found(Classes(ahead=False, target="c", count=3), rows, cut)
    compare(figures, rows, naive_scores.classes)
    assert "accuracy_persistence" not in figures[0]


@settings(max_examples=150, deadline=None)
@given(rows=rows_of(NUMBER, 1, NUMBER), cut=CUT, quantile=st.sampled_from([0.1, 0.5, 0.95]))
def test_distances(rows: Rows, cut: int, quantile: float) -> None:
    def expected(pairs: list[naive_scores.Pair]) -> dict[str, float]:
        loss = naive_scores.pinball(pairs, 0, quantile)
        return {**naive_scores.distances(pairs), "pinball": loss}

    for ahead, baseline in ((True, "rmse_persistence"), (False, "rmse_mean")):
        figures = found(Distance(ahead, quantile), rows, cut)
        compare(figures, rows, expected)
        assert {"mae", "rmse", "pinball", baseline} <= figures[0].keys()


def test_labels_far_from_zero_keep_their_deviation() -> None:
    """A sum of squares would lose it."""
    rows: Rows = [(0, [0.0], 1e9 + n % 2, 0.0, 1) for n in range(10)]
    assert found(Distance(ahead=False), rows, 5)[0]["rmse_mean"] == pytest.approx(0.5)
