"""Seasonal naive forecasts against the oracle, however the rows are cut."""

from collections.abc import Iterator
from typing import Any

import naive_labels
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream.windows.test_labels import by_horizon, rows_of, target_rows

from streamrnn.stream.windows import LabelJoin, Labels, SeasonalLabels, SeasonJoin, with_seasons

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the stream
        st.integers(-2, 2),  # how much later than the row before it, of any stream
        st.integers(0, 9).map(lambda n: n == 0),  # a reset
        st.one_of(st.none(), st.integers(-5, 5)),
    ),
    max_size=60,
)
RULES: list[dict[str, Any]] = [
    {},
    *({"horizons": horizons} for horizons in [(1,), (4,), (7,), (4, 1, 7)]),
    *({"rows": rows} for rows in (1, 3)),
]


def joined(
    rows: list[dict[str, Any]], kept: list[int], cuts: list[int], rule: dict[str, Any]
) -> Iterator[Labels]:
    """The labels of rows that come in several record batches."""
    join = LabelJoin(**rule)
    ends = [*sorted(cuts), len(rows)]
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        numbers = [n for n in kept if first <= n < end]
        yield join.add(target_rows(rows, numbers, max(1, len(rule.get("horizons", ())))))
    if (rest := join.finish()) is not None:
        yield rest


def values_of(forecasts: Iterator[SeasonalLabels]) -> dict[int, list[Any]]:
    values: dict[int, list[Any]] = {}
    for item in forecasts:
        numbers = item.labels.rows.row.tolist()
        for number, row in zip(numbers, item.seasonal.tolist(), strict=True):
            assert number not in values
            values[number] = [None if np.isnan(value) else value for value in row]
    return values


@settings(max_examples=300, deadline=None)
@given(
    drawn=ROWS,
    cuts=st.lists(st.integers(0, 60), max_size=6),
    rule=st.sampled_from(RULES),
    season=st.sampled_from([1, 3, 5]),
    late=st.sampled_from(["drop", "apply"]),
)
def test_forecasts_are_those_of_the_oracle_wherever_the_rows_are_cut(
    drawn: Any, cuts: list[int], rule: dict[str, Any], season: int, late: str
) -> None:
    """Of the same stream, at exactly that time, before a reset as well; late rows too."""
    rows = rows_of(drawn)
    streams = naive_labels.kept_streams(rows, "key", "time", late)
    kept = sorted(number for numbers in streams.values() for number in numbers)
    ahead = {"horizons": rule.get("horizons"), "ahead": rule.get("rows", 0), "reset": "reset"}
    expected = by_horizon(naive_labels.seasonal, rows, streams, ["x", "y"], season, **ahead)
    values = values_of(with_seasons(joined(rows, kept, cuts, rule), season))
    assert sorted(values) == kept
    assert {number: values[number] for number in expected} == expected


@settings(max_examples=100, deadline=None)
@given(drawn=ROWS, rule=st.sampled_from(RULES), season=st.sampled_from([1, 3]), data=st.data())
def test_nothing_that_comes_later_is_used(
    drawn: Any, rule: dict[str, Any], season: int, data: st.DataObject
) -> None:
    """Garbage from any row on leaves the forecasts of all rows before it as they are."""
    rows = rows_of(drawn)
    if not rows:
        return
    first = data.draw(st.integers(0, len(rows) - 1))
    garbage = [{**row, "x": 1e30 if n >= first else row["x"]} for n, row in enumerate(rows)]
    kept = list(range(len(rows)))
    right = values_of(with_seasons(joined(rows, kept, [], rule), season))
    other = values_of(with_seasons(joined(garbage, kept, [], rule), season))
    for number in range(first):
        assert other[number] == right[number]


@pytest.mark.parametrize(
    ("horizon", "season", "before"), [(0, 5, 5), (3, 5, 2), (5, 5, 0), (6, 5, 4), (12, 5, 3)]
)
def test_the_fewest_seasons_that_lead_to_the_row_or_before_it(
    horizon: int, season: int, before: int
) -> None:
    rows = [{"key": 0, "time": n, "reset": False, "x": n, "y": 0} for n in range(40)]
    labels = joined(rows, list(range(40)), [], {"horizons": [horizon] if horizon else []})
    values = values_of(with_seasons(labels, season))
    assert values[20][0] == 20 - before


def test_rows_of_one_season_are_kept() -> None:
    join = SeasonJoin(5)
    for first in range(0, 1000, 10):
        rows = [{"key": 0, "time": first + n, "reset": False, "x": 0, "y": 0} for n in range(10)]
        join.add(next(joined(rows, list(range(10)), [], {})))
        assert join.kept == 6
