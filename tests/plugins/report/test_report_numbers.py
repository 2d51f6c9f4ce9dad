"""The numbers of a report, beside plain Python."""

import statistics
from collections import defaultdict
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from selection import first_quick

from streamrnn.plugins.report.model import SourceValues, layer_norms, norm_quantiles
from streamrnn.plugins.report.output import even_histogram, log_histogram
from streamrnn.plugins.report.scan import OutputStreams, StreamMeans
from streamrnn.plugins.report.timeline import BucketSample, Timeline, positions, text_of
from streamrnn.stream.sources.contract import Feature

DAY = 86400
DAYS = Timeline.of(0, 10 * DAY - 1, clock=True, most=20)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def test_quantiles_of_small_buckets_are_exact() -> None:
    """Across batches; NaN and infinity are no values, and an empty bucket has none."""
    rng = np.random.default_rng(0)
    bucket, value = rng.integers(0, 5, 900), rng.normal(size=(900, 2)).astype(np.float32)
    value[::7, 0], value[3, 1] = np.nan, np.inf
    bucket[bucket == 4] = 3
    sample = BucketSample(6, 2)
    for start in range(0, 900, 77):
        sample.add(bucket[start : start + 77], value[start : start + 77])
    found = sample.quantiles((0.1, 0.5, 0.9))
    assert not sample.sampled
    assert sample.counts.tolist() == [int((bucket == b).sum()) for b in range(6)]
    for b in range(6):
        for v in range(2):
            kept = [float(x) for x in value[bucket == b, v] if np.isfinite(x)]
            expected = [quantile(kept, q) for q in (0.1, 0.5, 0.9)] if kept else [np.nan] * 3
            np.testing.assert_allclose(found[b, v], expected, rtol=1e-12)


def test_quantiles_of_large_buckets_are_those_of_a_share() -> None:
    """Bounded, close, and not upset by rows that come in a fixed order of streams."""
    rows, streams = 200_000, 64
    value = (np.arange(rows) % streams).astype(np.float32)[:, None]
    sample = BucketSample(1, 1, most=500)
    for start in range(0, rows, 4096):
        part = value[start : start + 4096]
        sample.add(np.zeros(len(part), np.int64), part)
        assert sum(len(kept[0]) for kept in sample._kept) <= 2000
    low, middle, high = sample.quantiles((0.1, 0.5, 0.9))[0, 0]
    assert sample.sampled
    assert abs(low - 6) <= 2
    assert abs(middle - 32) <= 2
    assert abs(high - 57) <= 2


@pytest.mark.parametrize("stride", first_quick([1, 2584]))
def test_rows_of_a_bucket_may_have_any_period(stride: int) -> None:
    """The same rows are kept however they are cut. Multiples of the golden ratio fail at 2,584.

    Slow: ten million rows.
    """
    bucket = np.ones(4001 * stride, np.int64)
    bucket[::stride] = 0
    sample, other = (BucketSample(2, 1, most=2000) for _ in range(2))
    value = np.arange(len(bucket), dtype=np.float32)[:, None]
    for start in range(0, len(bucket), 1_000_003):
        part = slice(start, start + 1_000_003)
        sample.add(bucket[part], value[part])
    other.add(bucket, value)
    for each in (sample, other):
        each._compact()
    (kept,) = sample._kept
    assert 1_800 < np.count_nonzero(kept[0] == 0) < 2_200
    np.testing.assert_array_equal(kept[2], other._kept[0][2])


@pytest.mark.parametrize(
    ("seconds", "unit"),
    [
        *((3000, "minute"), (6 * 3600, "minute"), (2 * DAY, "10 minutes"), (10 * DAY, "hour")),
        *((365 * DAY, "day"), (2000 * DAY, "week"), (9000 * DAY, "4 weeks")),
    ],
)
def test_the_width_of_a_bucket_follows_from_the_span(seconds: int, unit: str) -> None:
    line = Timeline.of(1_000_000, 1_000_000 + seconds, clock=True)
    assert (line.unit, line.buckets <= 400) == (unit, True)
    ends = np.array([1_000_000, 1_000_000 + seconds])
    assert line.bucket(ends).tolist() == [0, line.buckets - 1]
    assert line.first <= ends[0] < line.first + line.width


def test_weeks_begin_on_monday_and_places_without_a_clock_are_numbers() -> None:
    line = Timeline.of(0, 2000 * DAY, clock=True)
    assert {datetime.fromisoformat(str(name)).weekday() for name in line.starts()["time"]} == {0}
    assert Timeline.of(-7, 12, clock=False, most=5).starts()["time"] == [-10, -5, 0, 5, 10]
    assert Timeline.of(5, 5, clock=False).starts()["time"] == [5]
    assert Timeline.of(5, 5, clock=False).per == "by 1 unit of time"
    assert Timeline.of(0, 5000, clock=False, timed=False).per == "by 20 rows"
    assert text_of(-62135596800 - 1).startswith("0000")


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "+03:00"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_places_are_those_of_the_zone(zone: str | None, unit: str) -> None:
    """A day is a day of the wall clock; before 1970 too, and with a fraction of a second."""
    hours = [-3.5, 0.0, 5.0001, 4000.0]
    utc = [datetime(1970, 1, 1) + timedelta(hours=h) for h in hours]
    column = pa.array(utc, pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)
    column = (
        column.cast(pa.timestamp(unit, zone))
        if zone is None
        else column.view(pa.int64()).cast(pa.timestamp(unit, zone))
    )
    for moment, place in zip(utc, positions(column).tolist(), strict=True):
        local = moment
        if zone == "America/New_York":
            local = moment.replace(tzinfo=ZoneInfo("UTC")).astimezone(ZoneInfo(zone))
        elif zone == "+03:00":
            local = moment + timedelta(hours=3)
        assert text_of(place) == local.strftime("%Y-%m-%dT%H:%M")


def test_dates_and_integers_have_places() -> None:
    dates = pa.array([datetime(2013, 1, 2)], pa.date32())
    assert text_of(int(positions(dates)[0])) == "2013-01-02T00:00"
    assert positions(pa.array([3, 1], pa.int32())).tolist() == [3, 1]


def test_streams_are_active_and_new_as_counted_by_hand() -> None:
    rng = np.random.default_rng(1)
    keys, place = rng.integers(0, 30, 500), rng.integers(0, 10 * DAY, 500)
    streams = OutputStreams([pa.field("key", pa.int64())], DAYS)
    for start in range(0, 500, 60):
        batch = pa.record_batch({"key": pa.array(keys[start : start + 60])})
        streams.add(streams.find(batch), place[start : start + 60])
    by_key = defaultdict(list)
    for key, when in zip(keys.tolist(), place.tolist(), strict=True):
        by_key[str(key)].append(when)
    assert dict(zip(streams.keys(np.arange(len(streams))), streams.rows.tolist(), strict=True)) == {
        key: len(times) for key, times in by_key.items()
    }
    active = [
        len({k for k, t in by_key.items() if any(w // DAY == d for w in t)}) for d in range(10)
    ]
    assert streams.active().tolist() == active
    new = [sum(min(t) // DAY == d for t in by_key.values()) for d in range(10)]
    assert streams.new().tolist() == new


def test_means_of_chosen_streams_leave_out_what_is_not_finite() -> None:
    slots = np.array([3, 0])
    means = StreamMeans(slots, DAYS, 1)
    slot, place = np.array([0, 3, 3, 1, 3]), np.array([0, DAY, DAY + 5, 0, 9 * DAY])
    value = np.array([[1], [2], [4], [9], [np.inf]], np.float32)
    means.add(slot, place, value)
    found = means.means()[:, :, 0]
    assert found[0, 1] == 3
    assert found[1, 0] == 1
    assert np.isnan(found).sum() == found.size - 2


def test_values_of_a_source_are_limited_and_counted_as_a_run_does() -> None:
    """`valid` before `clip`; rows without a time or beyond the ends are left out."""
    times = pa.array([0, DAY, DAY + 1, DAY + 2, None, 99 * DAY], pa.timestamp("s"))
    values = [1.0, None, 50.0, 9.0, 5.0, 5.0]
    batch = pa.record_batch({"t": times, "a": pa.array(values), "b": pa.array([1] * 6)})
    columns = [Feature("a", valid=(0.0, 20.0), clip=(0.0, 8.0)), Feature("b")]
    found = SourceValues(columns, "t", DAYS)
    found.add(batch)
    assert found.nulls.tolist()[:2] == [0, 1]
    assert found.invalid.tolist()[:2] == [0, 1]
    assert found.clipped.tolist()[:2] == [0, 1]
    assert found.sample.counts.sum() == 4
    assert found.sample.quantiles((0.5,))[:2, 0, 0].tolist() == [1.0, 8.0]


def test_norms_and_saturation_of_a_state_table() -> None:
    """Of h alone; units that are not bounded by 1 have no share."""
    rng = np.random.default_rng(2)
    bounded, free = rng.uniform(-1, 1, (50, 4)), rng.normal(0, 3, (50, 2))
    bounded[:5, 0] = 0.999

    def column(values: np.ndarray) -> pa.Array:
        flat = pa.array(values.astype(np.float32).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])

    table = pa.table(
        {"key": range(50), "a/h": column(bounded), "a/c": column(free), "b/h": column(free)}
    )
    first, second = layer_norms(table)
    norms = [float(np.sqrt(sum(x * x for x in row))) for row in bounded]
    np.testing.assert_allclose(first.norm, norms, rtol=1e-6)
    assert (first.layer, first.units, second.layer) == ("a", 4, "b")
    assert first.saturated == pytest.approx((abs(bounded) > 0.99).sum() / bounded.size)
    assert second.saturated is None
    low, middle, high = norm_quantiles(first) or (0, 0, 0)
    assert middle == pytest.approx(statistics.median(norms), rel=1e-5)
    assert low < middle < high
    assert norm_quantiles(layer_norms(table.slice(0, 0))[0]) is None


def test_histograms_count_each_value_once() -> None:
    rng = np.random.default_rng(3)
    steps = rng.integers(0, 5000, 300)
    rows = log_histogram(steps).to_pylist()
    for row in rows:
        expected = sum(row["from"] <= s <= row["to"] for s in steps.tolist())
        assert row["count"] == expected
    assert sum(row["count"] for row in rows) == int((steps > 0).sum())
    assert log_histogram(np.zeros(3, np.int64)).num_rows == 0
    assert log_histogram(np.array([2**62])).to_pylist()[-1]["count"] == 1
    values = rng.normal(size=100)
    assert sum(even_histogram(values, 7)["count"].to_pylist()) == 100
    assert even_histogram(np.array([2.0, 2.0])).to_pylist() == [
        {"from": 2.0, "to": 2.0, "count": 2}
    ]
    assert even_histogram(np.array([np.nan])).num_rows == 0
