"""The constants of time features: where they come from, and that each row gets its own."""

import decimal
import math
from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from streamrnn.stream.sources import Contract, Origin
from streamrnn.stream.sources.times import _table

BITS = 256
PERIODS = {"hour": 24, "day_of_week": 7, "day_of_year": 366}


def sine_and_cosine(angle: float) -> tuple[float, float]:
    """Of exactly this number, rounded to float64 once: the series in integers of 256 bits."""
    x = int(Fraction(angle) * 2**BITS)
    sums, term, n = [0, 0], 2**BITS, 0
    while term:
        sums[n % 2] += -term if n % 4 >= 2 else term
        n += 1
        term = (term * x >> BITS) // n
    cosine, sine = (float(Fraction(total, 2**BITS)) for total in sums)
    return sine, cosine


def expected(name: str, n: int) -> list[np.float32]:
    return [np.float32(value) for value in sine_and_cosine((2 * math.pi / PERIODS[name]) * n)]


def features(name: str, times: pa.Array) -> np.ndarray:
    batch = pa.record_batch({"k": pa.array(np.zeros(len(times), int)), "t": times})
    return (
        Contract(("k",), "t", (), (name,))
        .read(batch, Origin.consecutive("f", 0, len(batch)))
        .features
    )


def seconds(values: np.ndarray) -> pa.Array:
    return pa.array(values).cast(pa.timestamp("s"))


DAY = 86_400
LEAP_YEAR = 1_704_067_200  # 2024-01-01, a Monday


@pytest.mark.parametrize(
    ("name", "times", "first"),
    [
        ("hour", np.arange(24) * 3600 + 1799, 0),
        ("day_of_week", LEAP_YEAR + np.arange(7) * DAY + 80_000, 0),
        ("day_of_year", LEAP_YEAR + np.arange(366) * DAY, 1),
    ],
)
def test_every_angle_is_the_exact_one_rounded(name: str, times: np.ndarray, first: int) -> None:
    """To the bit: 24 hours, 7 days from Monday, 366 days from 1."""
    got = features(name, seconds(times))
    wanted = [expected(name, first + i) for i in range(len(times))]
    assert got.tobytes() == np.array(wanted, np.float32).tobytes()


@pytest.mark.parametrize("name", PERIODS)
def test_no_function_of_the_c_library_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last bit depends on the CPU."""

    def asked(*_: object) -> None:
        raise AssertionError("a sine is computed")

    for module in (np, math):
        monkeypatch.setattr(module, "sin", asked)
        monkeypatch.setattr(module, "cos", asked)
    assert features(name, seconds(np.arange(3))).shape == (3, 2)


def test_the_decimal_context_of_the_caller_does_not_matter() -> None:
    """A program that counts money may trap every rounding."""
    _table.cache_clear()
    traps = [decimal.Inexact, decimal.FloatOperation]
    with decimal.localcontext(decimal.Context(prec=2, Emin=-9, traps=traps)):
        assert features("hour", seconds(np.array([3600])))[0].tolist() == expected("hour", 1)


@pytest.mark.parametrize("name", PERIODS)
@pytest.mark.parametrize("kind", [pa.timestamp("ns", "Europe/Berlin"), pa.date32()])
def test_a_null_time_has_the_angle_0(name: str, kind: pa.DataType) -> None:
    """The row breaks the contract; what stands in its features is not left to chance."""
    assert features(name, pa.array([None, None], kind)).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("name", PERIODS)
def test_utc_has_the_angles_of_times_without_a_zone(name: str, unit: str) -> None:
    """Also before the epoch, of null, and in a slice."""
    nanoseconds = np.random.default_rng(3).integers(-(2**62), 2**62, 200)
    ticks = nanoseconds // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    plain = pa.array(ticks, mask=ticks % 7 == 0).cast(pa.timestamp(unit))[3:]
    utc = plain.cast(pa.timestamp(unit, "UTC"))
    assert features(name, utc).tolist() == features(name, plain).tolist()


def test_years_before_the_epoch_and_dates_have_their_day() -> None:
    """1899-12-31 is day 365, a Sunday; the hour of a date is 0."""
    days = pa.array([-25568], pa.int32()).cast(pa.date32())
    assert features("day_of_year", days)[0].tolist() == expected("day_of_year", 365)
    assert features("day_of_week", days)[0].tolist() == expected("day_of_week", 6)
    assert features("hour", days)[0].tolist() == [0, 1]


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("year", [1970, 2024])
def test_a_zone_has_its_own_hours_and_days_when_its_clocks_change_too(zone: str, year: int) -> None:
    """Every half hour of a year; some zones are a quarter or a half of an hour off."""
    ticks = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) + np.arange(0, 366 * DAY, 1800)
    local = [datetime.fromtimestamp(tick, ZoneInfo(zone)) for tick in ticks.tolist()]
    numbers = {
        "hour": [time.hour for time in local],
        "day_of_week": [time.weekday() for time in local],
        "day_of_year": [time.timetuple().tm_yday for time in local],
    }
    times = seconds(ticks).cast(pa.timestamp("s", "UTC")).cast(pa.timestamp("s", zone))
    for name, wanted in numbers.items():
        table = {n: expected(name, n) for n in set(wanted)}
        assert features(name, times).tolist() == [table[n] for n in wanted]


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("us", "America/New_York"), pa.date32(), pa.date64()]
)
def test_a_time_beyond_the_calendar_is_a_fault_of_its_row(kind: pa.DataType) -> None:
    most = 2**31 - 1 if kind == pa.date32() else 2**62
    ticks = pa.array([0, most, -most, None], pa.int32() if kind == pa.date32() else pa.int64())
    batch = pa.record_batch({"k": pa.array([0] * 4), "t": ticks.view(kind)})
    contract = Contract(("k",), "t", (), tuple(PERIODS))
    rows = contract.read(batch, Origin.consecutive("f", 0, 4))
    reasons = [rows.faults.reasons[code - 1] if code else "" for code in rows.faults.codes]
    far, null = "column 't': time is more than 28,500 years from 1970", "column 't': time is null"
    assert reasons == ["", far, far, null]
