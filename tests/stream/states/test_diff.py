"""Differences of two state tables, stream by stream and bit by bit."""

import numpy as np
import pyarrow as pa
import pytest

from streamrnn.errors import StateError
from streamrnn.states import Layout, StateTable, diff

LAYOUT = Layout(
    keys=(pa.field("k", pa.timestamp("ns")),),
    time=None,
    states={"h": 2},
    previous={"a": pa.float32()},
    waiting={"i": pa.int64()},
    waiting_rows=2,
)


def _table(*ticks: int) -> StateTable:
    table = StateTable(LAYOUT)
    table.find([pa.array(ticks, pa.int64()).cast(pa.timestamp("ns"))])
    return table


def test_streams_are_compared_by_key_not_by_row() -> None:
    """Keys are shown to the nanosecond."""
    got = diff(_table(1, 2, 3), _table(4, 3, 2).to_arrow())
    assert got.only_a == ["1970-01-01 00:00:00.000000001"]
    assert got.only_b == ["1970-01-01 00:00:00.000000004"]
    assert (got.same, got.changed, bool(got)) == (2, {}, True)
    assert not diff(_table().to_arrow(), _table().to_arrow())


def test_each_column_that_differs_is_named_to_the_bit() -> None:
    """-0.0 is not 0.0 here; null is like null; nested columns count."""
    a, b = _table(1, 2, 3, 4, 5), _table(1, 2, 3, 4, 5)
    slots, none = np.arange(5), np.zeros(5, np.int64)
    a.scatter(slots[:1], {"h": np.array([[0.0, -0.0]], np.float32)})
    present = np.array([False, False, True, True, False])
    a.advance(slots, np.array([0, 1, 0, 0, 0]), none, {"a": (np.zeros(5), present)}, seen=False)
    values = np.array([0, 0, 0, -0.0, 7])  # 7 is not present: stays null
    b.advance(slots, none, none, {"a": (values, slots == 3)}, seen=False)
    a.wait(slots[3:4], np.array([1]), {"i": none[:1]})
    got = diff(a.to_arrow(), b.to_arrow())
    assert list(got.changed.values()) == [
        ["h"],
        ["steps"],
        ["previous/a"],
        ["previous/a", "waiting/i"],
    ]
    assert got.same == 1
    assert got.largest == {"h": 0.0, "steps": 1.0, "previous/a": 0.0, "waiting/i": None}


@pytest.mark.parametrize(
    ("kind", "ticks", "largest"),
    [
        (pa.timestamp("ns"), 3_500_000_000, 3.5),
        (pa.timestamp("s", "UTC"), 60, 60.0),
        (pa.date32(), 2, 172_800.0),
        (pa.int64(), 7, 7.0),
        (pa.float64(), float("nan"), None),
        (pa.string(), 7, None),
    ],
)
def test_the_largest_difference_of_a_column(
    kind: pa.DataType, ticks: float, largest: float | None
) -> None:
    """Of times in seconds; null and NaN have none, nor do texts."""
    a = _table(1, 2).to_arrow()
    number = pa.int64() if pa.types.is_temporal(kind) and not pa.types.is_date(kind) else None

    def column(value: float) -> pa.Array:
        values = pa.array([None, value if not pa.types.is_string(kind) else str(value)], number)
        if pa.types.is_date(kind):
            values = values.cast(pa.int32())
        return values.cast(kind)

    both = [a.append_column("x", column(value)) for value in (ticks, 0)]
    assert diff(*both).largest == {"x": largest}


def test_tables_with_other_columns_or_types_are_refused() -> None:
    """Both sides are printed."""
    a = _table(1).to_arrow()
    with pytest.raises(StateError, match="different columns"):
        diff(a, a.drop_columns(["steps"]))
    at = a.schema.get_field_index("steps")
    b = a.set_column(at, "steps", pa.array(np.zeros(1, np.int32)))
    with pytest.raises(StateError, match="column 'steps' has type int64 in a, but int32 in b"):
        diff(a, b)
    with pytest.raises(StateError, match="not a state table"):
        diff(pa.table({"k": [1]}), a)
