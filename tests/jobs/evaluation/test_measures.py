"""Figures of pairs, against their definitions; however the pairs are divided."""

from collections.abc import Callable

import naive_scores
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.jobs.evaluation.measures import Band, Binary, Classes, Distance, Measure, Pairs

PROBABILITY = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))
NUMBER = st.floats(-100, 100, width=32)
NOT_OF_THE_ORACLE = {"auc_error", "coverage", "better_base_rate"}
CUT = st.integers(0, 30)


FORECASTS = ("persistence", "seasonal")
Rows = list[tuple[int, list[float], float, float | None, float | None, int]]
"""Group, scores, label, value now, value a season before, weight."""


def rows_of(
    score: st.SearchStrategy[float], units: int, label: st.SearchStrategy[float]
) -> st.SearchStrategy[Rows]:
    scores = st.lists(score, min_size=units, max_size=units)
    value = st.one_of(st.none(), label)
    row = st.tuples(st.integers(0, 2), scores, label, value, value, st.integers(1, 3))
    return st.lists(row, min_size=1, max_size=30)


def found(
    measure: Measure, rows: Rows, cut: int, mean: float | None = None
) -> list[dict[str, float]]:
    """The figures of groups 0 to 2 of rows that are added in two calls."""
    for part in (rows[:cut], rows[cut:]):
        if part:
            group, score, label, *values, weight = map(np.array, zip(*part, strict=True))
            forecasts = dict(zip(FORECASTS, (of.astype(float) for of in values), strict=True))
            measure.add(
                Pairs(group, score.astype(np.float32), label, forecasts, weight.astype(float))
            )
    result = measure.result(3, mean)
    return [{name: float(values[group]) for name, values in result.items()} for group in range(3)]


def compare(
    figures: list[dict[str, float]],
    rows: Rows,
    expected: Callable[[list[naive_scores.Pair]], dict[str, float | None]],
) -> None:
    for group, line in enumerate(figures):
        inside = [row[1:] for row in rows if row[0] == group]
        pairs = [naive_scores.Pair(s, y, now, w, past) for s, y, now, past, w in inside]
        if not pairs:
            assert all(np.isnan(v) or name.startswith("rows_") for name, v in line.items())
            continue
        figures = expected(pairs)
        for name, value in line.items():
            if name not in figures:  # of no rows
                assert not value > 0 or name in NOT_OF_THE_ORACLE, name
            elif (right := figures[name]) is None:
                assert value == -np.inf, name
            elif not name.startswith("better_") or abs(right) < 1000:
                assert value == pytest.approx(right, rel=1e-5, abs=1e-4), name


@settings(max_examples=150, deadline=None)
@given(rows=rows_of(PROBABILITY, 1, st.sampled_from([0.0, 1.0])), cut=CUT)
def test_probabilities(rows: Rows, cut: int) -> None:
    figures = found(Binary(FORECASTS), rows, cut)
    compare(figures, rows, naive_scores.probabilities)
    assert {"auc", "accuracy_persistence", "log_loss_base_rate"} <= figures[0].keys()


@settings(max_examples=150, deadline=None)
@given(rows=rows_of(PROBABILITY, 3, st.sampled_from([0.0, 1.0, 2.0])), cut=CUT)
def test_classes(rows: Rows, cut: int) -> None:
    figures = found(Classes(FORECASTS[1:], target="c", count=3), rows, cut)
    compare(figures, rows, naive_scores.classes)
    assert "accuracy_seasonal" in figures[0]
    assert "accuracy_persistence" not in figures[0]


@settings(max_examples=150, deadline=None)
@given(
    rows=rows_of(NUMBER, 1, NUMBER),
    cut=CUT,
    quantile=st.sampled_from([None, 0.1, 0.5, 0.95]),
    constant=st.sampled_from([None, -3.5, 40.0]),
)
def test_distances(rows: Rows, cut: int, quantile: float | None, constant: float | None) -> None:
    """Each baseline over the rows that it has; all other figures over all rows."""

    def expected(pairs: list[naive_scores.Pair]) -> dict[str, float | None]:
        figures = naive_scores.distances(pairs, 0, constant)
        if quantile is None:
            return figures
        return figures | naive_scores.pinballs(pairs, quantile)

    figures = found(Distance(FORECASTS, quantile), rows, cut, constant)
    compare(figures, rows, expected)
    wanted = {"mae", "rmse", "rmse_persistence", "rmse_where_seasonal", "rmse_mean"}
    assert wanted <= figures[0].keys()
    assert ("pinball_seasonal" in figures[0]) == (quantile is not None)
    assert "mae_persistence" not in found(Distance(), rows, cut)[0]


@settings(max_examples=25, deadline=None)
@given(rows=rows_of(NUMBER, 2, NUMBER), cut=CUT)
def test_bands(rows: Rows, cut: int) -> None:
    """Of means, with deviations from 0 on."""
    made: Rows = [(g, [s[0], abs(s[1])], *rest) for g, s, *rest in rows[:6]]
    figures = found(Band(FORECASTS), made, cut)
    compare(figures, made, naive_scores.bands)
    assert {"crps", "coverage_90", "spread", "rmse_seasonal"} <= figures[0].keys()


def test_labels_far_from_zero_keep_their_deviation() -> None:
    """A sum of squares would lose it."""
    rows: Rows = [(0, [0.0], 1e9 + n % 2, 0.0, None, 1) for n in range(10)]
    assert found(Distance(), rows, 5)[0]["rmse_mean"] == pytest.approx(0.5)
    assert found(Distance(), rows, 5, 1e9 - 1)[0]["rmse_mean"] == pytest.approx(2.5**0.5)


@pytest.mark.parametrize("constant", [None, 0.5])
def test_groups_far_from_each_other_keep_their_deviations(constant: float | None) -> None:
    """Such as streams in several units, or meters of several ages."""
    rows: Rows = [
        (group, [0.0], level + n % 2, None, None, 1)
        for n in range(10)
        for group, level in enumerate((0.0, 1e9, -1e12))
    ]
    figures = found(Distance(), rows, 7, constant)
    compare(figures, rows, lambda pairs: naive_scores.distances(pairs, 0, constant))
