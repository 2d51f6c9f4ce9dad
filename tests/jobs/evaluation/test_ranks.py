"""The area under the curve: exact, or within its bound."""

import naive_scores
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.jobs.evaluation.measures import Ranks

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.sampled_from([0.0, -0.0, 0.5, 1.0]), st.floats(-3, 3, width=32)),
        st.booleans(),
        st.integers(1, 3),
    ),
    max_size=40,
)


def add(ranks: Ranks, rows: list[tuple[int, float, bool, int]]) -> None:
    group, score, positive, weight = (list(column) for column in zip(*rows, strict=True))
    ranks.add(
        np.array(group, np.int64),
        np.array(score, np.float32),
        np.array(positive, bool),
        np.array(weight, np.float64),
    )


def naive(rows: list[tuple[int, float, bool, int]], group: int) -> float | None:
    pairs = [naive_scores.Pair([s], float(p), None, w) for g, s, p, w in rows if g == group]
    return naive_scores.auc(pairs)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, cut=st.integers(0, 40), limit=st.sampled_from([1, 5, 1000]))
def test_the_area_is_that_of_all_pairs_within_the_bound(
    rows: list[tuple[int, float, bool, int]], cut: int, limit: int
) -> None:
    """Weights, ties, groups without one of the two; with a limit the bound is honest."""
    ranks = Ranks(limit)
    for part in (rows[:cut], rows[cut:]):
        if part:
            add(ranks, part)
    area, bound = ranks.auc(3)
    for group in range(3):
        expected = naive(rows, group)
        if expected is None:
            assert np.isnan(area[group])
            assert np.isnan(bound[group])
        else:
            assert abs(area[group] - expected) <= bound[group] + 1e-12
            if limit == 1000:
                assert bound[group] == 0


def test_memory_is_limited_and_the_bound_small() -> None:
    rng = np.random.default_rng(7)
    score = rng.random(50_000).astype(np.float32)
    positive = rng.random(50_000) < score
    exact, rough = Ranks(), Ranks(limit=2000)
    for part in np.array_split(np.arange(50_000), 20):
        for ranks in (exact, rough):
            group = np.zeros(len(part), np.int64)
            ranks.add(group, score[part], positive[part], np.ones(len(part)))
    (area,), (none,) = exact.auc(1)
    (near,), (bound,) = rough.auc(1)
    assert none == 0
    assert 0 < bound < 1e-3
    assert abs(near - area) <= bound
    assert len(rough._code) <= 2000


@pytest.mark.parametrize("groups", [0, 1, 4])
def test_without_rows_there_is_no_area(groups: int) -> None:
    area, bound = Ranks().auc(groups)
    assert np.isnan(area).all()
    assert len(area) == len(bound) == groups
