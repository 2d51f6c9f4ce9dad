"""Labels against the oracle, however the rows are cut."""

from collections.abc import Callable
from typing import Any

import naive_labels
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.stream.windows import LabelJoin, Labels, TargetRows

ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),  # the stream
        st.integers(-1, 3),  # how much later than the row before it, of any stream
        st.integers(0, 9).map(lambda n: n == 0),  # a reset
        st.one_of(st.none(), st.integers(-5, 5)),
    ),
    max_size=60,
)


RULES: list[dict[str, Any]] = [
    {},
    *({"horizons": horizons} for horizons in [(1,), (3,), (7,), (1, 3), (7, 1, 4)]),
    *({"rows": rows} for rows in (1, 4)),
]


def rows_of(drawn: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    now = 0
    for stream, step, reset, value in drawn:
        now += step
        rows.append({"key": stream, "time": now, "reset": reset, "x": value, "y": stream * 100})
    return rows


def target_rows(rows: list[dict[str, Any]], numbers: list[int], count: int = 1) -> TargetRows:
    """The values x and y, `count` times each: as many as there are horizons."""
    values = [[np.nan if rows[n]["x"] is None else rows[n]["x"], rows[n]["y"]] for n in numbers]
    return TargetRows(
        np.array(numbers, np.int64),
        np.array([rows[n]["key"] for n in numbers], np.int64),
        np.array([rows[n]["time"] for n in numbers], np.int64),
        np.array([rows[n]["reset"] for n in numbers], bool),
        np.array(values, np.float64).reshape(-1, 2).repeat(count, axis=1),
        np.array(numbers, np.float64),
    )


def by_horizon(oracle: Callable[..., dict[int, list[Any]]], *rows: Any, **rule: Any) -> Any:
    """What an oracle says of x and y at each horizon: those of x, then those of y."""
    horizons = rule.pop("horizons", None) or [None]
    each = [oracle(*rows, time="time", horizon=horizon, **rule) for horizon in horizons]
    numbers = set.intersection(*(set(of) for of in each))
    return {n: [of[n][column] for column in (0, 1) for of in each] for n in numbers}


def collect(found: Labels | None, into: dict[int, list[Any]], order: dict[int, list[int]]) -> None:
    if found is None:
        return
    assert found.label.shape == found.rows.value.shape
    for i, number in enumerate(found.rows.row.tolist()):
        assert number not in into
        assert found.rows.weight[i] == number
        assert found.rows.value[i, -1] == 100 * found.rows.slot[i]
        into[number] = [None if np.isnan(v) else v for v in found.label[i].tolist()]
        order.setdefault(int(found.rows.slot[i]), []).append(number)


@settings(max_examples=300, deadline=None)
@given(
    drawn=ROWS,
    cuts=st.lists(st.integers(0, 60), max_size=6),
    rule=st.sampled_from(RULES),
    gap=st.sampled_from([None, 2, 5]),
    late=st.sampled_from(["drop", "apply"]),
)
def test_labels_are_those_of_the_oracle_wherever_the_rows_are_cut(
    drawn: Any, cuts: list[int], rule: dict[str, Any], gap: int | None, late: str
) -> None:
    """Every row comes out once, in the order of its stream, and as soon as its label is known."""
    rows = rows_of(drawn)
    streams = naive_labels.kept_streams(rows, "key", "time", late)
    kept = sorted(number for numbers in streams.values() for number in numbers)
    horizons = rule.get("horizons", ())
    ahead = {"horizons": horizons, "ahead": rule.get("rows", 0), "reset": "reset"}
    expected = by_horizon(naive_labels.labels, rows, streams, ["x", "y"], max_gap=gap, **ahead)
    join = LabelJoin(**rule, max_gap=gap)
    found: dict[int, list[Any]] = {}
    order: dict[int, list[int]] = {}
    ends = [*sorted(cuts), len(rows)]
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        numbers = [n for n in kept if first <= n < end]
        collect(join.add(target_rows(rows, numbers, max(1, len(horizons)))), found, order)
        if not rule:
            assert len(found) == sum(n < end for n in kept)
    collect(join.finish(), found, order)
    assert join.finish() is None
    assert found == expected
    assert order == {slot: numbers for slot, numbers in streams.items() if numbers}


def added(join: LabelJoin, times: list[int], slot: int = 0, **options: Any) -> Labels:
    n = len(times)
    reset = np.zeros(n, bool)
    reset[options.get("resets", [])] = True
    return join.add(
        TargetRows(
            np.array(times, np.int64),
            np.full(n, slot),
            np.array(times, np.int64),
            reset,
            np.array(times, np.float64)[:, None] * 10,
            np.ones(n),
        )
    )


def pairs(found: Labels | None) -> dict[int, float]:
    assert found is not None
    return dict(zip(found.rows.row.tolist(), found.label[:, 0].tolist(), strict=True))


def test_a_row_comes_out_once_its_stream_has_reached_the_time() -> None:
    join = LabelJoin(horizons=[3])
    assert pairs(added(join, [0, 1, 2])) == {}
    assert pairs(added(join, [3])) == {0: 30.0}
    np.testing.assert_equal(pairs(added(join, [5])), {1: np.nan, 2: 50.0})
    np.testing.assert_equal(pairs(join.finish()), {3: np.nan, 5: np.nan})


def test_a_stream_that_is_silent_waits_while_others_go_on() -> None:
    join = LabelJoin(horizons=[2])
    added(join, [7], slot=4)
    for time in range(20):
        found = pairs(added(join, [time], slot=1))
        assert found == ({time - 2: time * 10.0} if time >= 2 else {})
    assert pairs(added(join, [9], slot=4)) == {7: 90.0}


def test_of_several_rows_with_the_time_the_first_counts() -> None:
    """For each of several rows with one time, too."""
    join = LabelJoin(horizons=[1])
    found = join.add(
        TargetRows(
            np.arange(4),
            np.zeros(4, np.int64),
            np.array([5, 5, 6, 6]),
            np.zeros(4, bool),
            np.arange(4.0)[:, None],
            np.ones(4),
        )
    )
    assert pairs(found) == {0: 2.0, 1: 2.0}


def test_a_reset_at_the_label_row_and_a_longer_gap_give_none() -> None:
    join = LabelJoin(horizons=[2], max_gap=1)
    np.testing.assert_equal(
        pairs(added(join, [0, 1, 2, 4, 5, 6], resets=[2])),
        {0: np.nan, 1: np.nan, 2: np.nan, 4: 60.0},
    )


@pytest.mark.parametrize("time", [np.iinfo(np.int64).max - 1, np.iinfo(np.int64).min])
def test_times_at_the_ends_of_int64(time: int) -> None:
    join = LabelJoin(horizons=[5])
    found = pairs(added(join, [time, time + 1]))
    found |= pairs(join.finish())
    np.testing.assert_equal(found, {time: np.nan, time + 1: np.nan})


def test_what_waits_is_one_horizon_of_each_stream() -> None:
    """However long the streams are."""
    join = LabelJoin(horizons=[10])
    came = sum(len(added(join, list(range(i, i + 5))).label) for i in range(0, 5000, 5))
    rest = join.finish()
    assert rest is not None
    assert (came, len(rest.label)) == (4990, 10)
