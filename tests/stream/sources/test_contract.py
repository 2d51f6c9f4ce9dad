"""The contract: types that can be used, calendar features, and where a row is."""

import datetime
import math
import re
import zoneinfo

import numpy as np
import pyarrow as pa
import pytest

from streamrnn.errors import DTypeError
from streamrnn.stream.sources import Contract, Feature, Origin


def _batch(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def test_calendar_features_are_local_across_a_change_of_clocks() -> None:
    """Hours in the column's zone: 2024-03-31 has no 2 o'clock in Berlin."""
    start = datetime.datetime(2024, 3, 31, 0, 30, tzinfo=datetime.UTC)
    times = [start + datetime.timedelta(hours=h) for h in range(3)]
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    contract = Contract(("k",), "t", (), ("hour", "day_of_week", "day_of_year"))
    batch = _batch(k=pa.array(["a"] * 3), t=pa.array(times, pa.timestamp("us", "Europe/Berlin")))
    got = contract.read(batch, Origin.consecutive("f", 0, len(batch))).features
    for row, time in zip(got, times, strict=True):
        local = time.astimezone(zone)
        parts = [(local.hour, 24), (local.weekday(), 7), (local.timetuple().tm_yday, 366)]
        angles = [2 * math.pi * value / period for value, period in parts]
        expected = [f(a) for a in angles for f in (math.sin, math.cos)]
        np.testing.assert_allclose(row, np.float32(expected), rtol=0, atol=1e-7)
    assert [t.astimezone(zone).hour for t in times] == [1, 3, 4]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("s")])
def test_dates_have_calendar_features_too(kind: pa.DataType) -> None:
    """A date is its midnight."""
    contract = Contract(("k",), "t", (), ("hour", "day_of_year"))
    times = pa.array([datetime.date(2024, 12, 31)]).cast(kind)
    row = contract.read(_batch(k=pa.array([1]), t=times), Origin.consecutive("f", 0, 1)).features[0]
    np.testing.assert_allclose(row, [0, 1, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    "kind", [pa.float32(), pa.list_(pa.int8()), pa.null(), pa.month_day_nano_interval()], ids=str
)
def test_keys_without_equality_are_refused(kind: pa.DataType) -> None:
    """Floats above all: 0.1 is not 0.1 in another file."""
    schema = pa.schema([("k", kind)])
    with pytest.raises(DTypeError, match=r"f: \[source\] key: column 'k': expected a type that a"):
        Contract(("k",), None, ()).check(schema, "f")


@pytest.mark.parametrize(
    ("kind", "calendar", "message"),
    [
        (pa.string(), False, "date or integer other than uint64, received string"),
        (pa.float64(), False, "date or integer other than uint64, received double"),
        (pa.uint64(), False, "date or integer other than uint64, received uint64"),
        (pa.int64(), True, "expected timestamp or date .*calendar.*received int64"),
        (
            pa.timestamp("s", "Mars/X"),
            False,
            "time zone in the time zone database of this machine.*Mars/X",
        ),
    ],
    ids=str,
)
def test_times_that_cannot_be_used_are_refused(
    kind: pa.DataType, calendar: bool, message: str
) -> None:
    """One message: column, expected, received."""
    contract = Contract(("k",), "t", (), ("hour",) if calendar else ())
    with pytest.raises(DTypeError, match=message):
        contract.check(pa.schema([("k", pa.int8()), ("t", kind)]), "f")


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("float32", pa.string()),
        ("float32", pa.timestamp("s")),
        ("int64", pa.float32()),
        ("string", pa.int8()),
    ],
    ids=str,
)
def test_features_of_another_kind_are_refused(kind: str, of: pa.DataType) -> None:
    """A model that reads text or integers gets no other."""
    contract = Contract(("k",), None, (Feature("x", kind),))
    with pytest.raises(DTypeError, match=f"column 'x': expected .*, received {re.escape(str(of))}"):
        contract.check(pa.schema([("k", pa.int8()), ("x", of)]), "f")


def test_a_row_is_named_by_file_number_and_key_without_losing_nanoseconds() -> None:
    """Python's datetime ends at microseconds, and Arrow refuses to shorten."""
    contract = Contract(("t", "s"), "t", ())
    batch = _batch(t=pa.array([1, 2], pa.timestamp("ns")), s=pa.array(["x", "it's"]))
    place = contract.read(batch, Origin.consecutive("a.parquet", 40, len(batch))).place(1)
    assert place == (
        'a.parquet: row 41 (from 0): stream t=1970-01-01 00:00:00.000000002, s="it\'s"'
    )


def test_rows_of_one_record_batch_may_come_from_anywhere() -> None:
    """As where rows of several files are dealt out by stream: each keeps its file and number."""
    batch = _batch(k=pa.array([1, 1, 2]), x=pa.array([0.0, math.nan, 1.0]))
    origin = Origin(("a.parquet", "b.parquet"), np.array([1, 0, 1]), np.array([9, 2, 7]))
    rows = Contract(("k",), None, (Feature("x"),)).read(batch, origin)
    assert [rows.place(i) for i in range(3)] == [
        "b.parquet: row 9 (from 0): stream k=1",
        "a.parquet: row 2 (from 0): stream k=1",
        "b.parquet: row 7 (from 0): stream k=2",
    ]


def test_the_first_thing_wrong_with_a_row_is_told() -> None:
    """Key, then time, then features in their order, then reset."""
    contract = Contract(("k",), "t", (Feature("x"),), (), "r")
    rows = contract.read(
        _batch(
            k=pa.array([None, "a", "a", "a", "a"]),
            t=pa.array([1, None, 3, 4, 5]),
            x=pa.array([None, None, math.nan, None, 1.0]),
            r=pa.array([None, True, None, None, None]),
        ),
        Origin.consecutive("f", 0, 5),
    )
    reasons = [rows.faults.reason(i) for i in range(5)]
    assert [r.split(":")[0] for r in reasons] == [f"column {c!r}" for c in "ktxxr"]
    assert "NaN" in reasons[2]
    assert "is null" in reasons[3]
