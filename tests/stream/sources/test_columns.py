"""Columns to arrays: what float32 can hold, what it cannot, and nulls."""

import decimal
from fractions import Fraction
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import first_quick

from streamrnn.errors import DataError
from streamrnn.stream.sources import Faults, Feature, cast_columns, casts, shown
from streamrnn.stream.sources.columns import to_float32, to_identifiers

D = decimal.Decimal


def _read(array: pa.Array, **options: Any) -> tuple[list[Any], list[int], dict[str, int], Faults]:
    faults = Faults(np.zeros(len(array), np.int32), [])
    counts = {"filled": 0, "nan": 0, "clipped": 0, "out_of_range": 0}
    values = to_float32(array, Feature("x", **options), faults, counts)
    assert values.dtype == np.float32
    return values.tolist(), np.flatnonzero(faults.codes).tolist(), counts, faults


GOOD = {
    "bool": (pa.array([True, False]), [1.0, 0.0]),
    "int8": (pa.array([-128, 127], pa.int8()), [-128.0, 127.0]),
    "uint64": (pa.array([2**63, 2**24], pa.uint64()), [2.0**63, 2.0**24]),
    "int64": (pa.array([-(2**63), 2**40], pa.int64()), [-(2.0**63), 2.0**40]),
    "float16": (pa.array(np.array([0.5, -2], np.float16)), [0.5, -2.0]),
    "float64": (pa.array([0.1, -1e-300]), [float(np.float32(0.1)), 0.0]),
    "decimal128": (pa.array([D("1.5"), D("-2.25")]), [1.5, -2.25]),
    "decimal256": (pa.array([D("1.5")], pa.decimal256(60, 1)), [1.5]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_numbers_that_float32_holds_are_taken(kind: str) -> None:
    """Every numeric and boolean type; float64 is rounded."""
    array, expected = GOOD[kind]
    assert _read(array)[:2] == (expected, [])
    with_null = pa.concat_arrays([array, pa.nulls(1, array.type)])
    values, bad, counts, _ = _read(with_null, nulls=7.0)
    assert (values, bad, counts["filled"]) == ([*expected, 7.0], [], 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**25), 2**25), min_size=1))
def test_an_integer_is_refused_exactly_if_float32_cannot_hold_it(numbers: list[int]) -> None:
    """The oracle is Python: int(float32(i)) == i."""
    bad = _read(pa.array(numbers, pa.int64()))[1]
    assert bad == [i for i, n in enumerate(numbers) if int(np.float32(n)) != n]


def test_unsigned_extremes_are_refused_where_they_would_change() -> None:
    """2**64 - 1 rounds to 2**64."""
    numbers = [2**64 - 1, 2**63, 2**63 + 1, 2**64 - 2**40]
    assert _read(pa.array(numbers, pa.uint64()))[1] == [0, 2]


# Decimal type -> digits and bytes. (pyarrow < 18 has the last two only.)
WIDTHS = {
    getattr(pa, name): size
    for name, size in {
        "decimal32": (9, 4),
        "decimal64": (18, 8),
        "decimal128": (38, 16),
        "decimal256": (76, 32),
    }.items()
    if hasattr(pa, name)
}
# A number with few bits set, its neighbours, and any number at all.
UNSCALED = st.one_of(
    st.integers(-(10**76) + 1, 10**76 - 1),
    st.builds(
        lambda odd, shift, add, sign: sign * ((odd << shift) + add),
        st.integers(0, 2**25),
        st.integers(0, 230),
        st.integers(-2, 2),
        st.sampled_from((-1, 1)),
    ),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(list(WIDTHS)), st.integers(-6, 40), st.lists(UNSCALED, min_size=1, max_size=9)
)
@pytest.mark.parametrize("integers", first_quick([True, False]))
def test_a_decimal_without_a_fraction_is_an_integer_and_any_other_a_float(
    integers: bool, width: Any, scale: int, unscaled: list[int]
) -> None:
    """The oracle is Python's fractions: float64 would take 2**53 + 1 for 2**53.

    Slow: decimals of which most have a fraction.
    """
    digits, size = WIDTHS[width]
    scale = min(scale, digits)
    unit = 10 ** max(scale, 0) if integers else 1
    numbers = [n for u in [0, *unscaled] if abs(n := u * unit) < 10**digits]
    raw = b"".join(n.to_bytes(size, "little", signed=True) for n in numbers)
    kind = width(digits, scale)
    values, bad, _, _ = _read(pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(raw)]))
    for row, (number, value) in enumerate(zip(numbers, values, strict=True)):
        exact = Fraction(number) / Fraction(10) ** scale
        if abs(exact) >= 2**128:
            assert row in bad
        elif scale <= 0:
            with np.errstate(over="ignore"):
                nearest = float(np.float32(float(exact)))
            assert (row in bad) == (abs(nearest) == float("inf") or Fraction(nearest) != exact)
            assert row in bad or value == exact
        elif abs(exact) < 2**127:
            assert row not in bad
            # Nearest, but for what lies within a millionth of half way between two.
            spacing = Fraction(float(np.spacing(np.float32(abs(value)))))
            assert abs(Fraction(value) - exact) <= spacing / 2 * (1 + Fraction(1, 10**6))


def test_a_decimal_that_is_an_integer_is_refused_in_the_words_for_integers() -> None:
    """In a slice, beside a null, beyond the bits of a float64."""
    numbers = [D(12), D(16777216), None, D(16777217), D(16777218)]
    column = pa.array([D(16777217), *numbers], pa.decimal128(20, 0)).slice(1)
    values, bad, _, faults = _read(column, nulls=0.0)
    assert bad == [3]
    assert "integer is not exactly representable as float32" in faults.reason(3)
    assert values == [12, 2.0**24, 0, 2.0**24, 2.0**24 + 2]
    assert _read(pa.array([D(16777000), D(16777217000)], pa.decimal128(20, -3)))[1] == [1]
    assert _read(pa.array([D(2**53), D(2**53 + 1)], pa.decimal128(20, 0)))[1] == [1]
    assert _read(pa.array([D(2**53 + 1), D(2**100)], pa.decimal256(76, 0)))[1] == [0]


def test_decimals_with_a_fraction_are_rounded_whatever_their_digits_are() -> None:
    """As doubles are: 16777217.00 is an amount of a column of amounts, not an id."""
    amounts = [12.34, 16777216.0, 16777217.0, 16777217.5, 2.0**53 + 2]
    decimals = pa.array([D(f"{amount:.2f}") for amount in amounts], pa.decimal128(20, 2))
    values, bad, _, _ = _read(decimals)
    assert (values, bad) == _read(pa.array(amounts))[:2]
    assert bad == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e39, -1e39])
@pytest.mark.parametrize("nulls", ["error", "skip", "previous", 0.0])
def test_nan_infinity_and_overflow_are_always_faults(bad: float, nulls: str | float) -> None:
    """Whatever stands for null: NaN is not null."""
    _, rows, _, faults = _read(pa.array([1.0, bad]), nulls=nulls, valid=(0, 2), clip=(0, 1))
    assert rows == [1]
    assert ("overflows" in faults.reason(1)) == (abs(bad) == 1e39)


def test_valid_then_clip_then_nulls() -> None:
    """Outside valid (inclusive) is null; clip limits what is left; a number fills."""
    values, bad, counts, _ = _read(
        pa.array([-1.0, 0.0, 5.0, 10.0, 10.5, None]), valid=(0, 10), clip=(1, 8), nulls=-9.0
    )
    assert values == [-9, 1, 5, 8, -9, -9]
    assert bad == []
    assert counts == {"filled": 3, "nan": 0, "clipped": 2, "out_of_range": 2}


def test_a_limit_beyond_float32_is_none() -> None:
    """Written to say "any size"; an integer limit is as good as a float."""
    values, bad, counts, _ = _read(
        pa.array([-3e38, 3e38]), valid=(-1e39, 1e39), clip=(-(10**39), 0)
    )
    assert (values, bad) == ([float(np.float32(-3e38)), 0], [])
    assert counts == {"filled": 0, "nan": 0, "clipped": 1, "out_of_range": 0}


def test_columns_without_values() -> None:
    """A column of type null, and one with nulls only, are all null."""
    for array in (pa.nulls(2), pa.nulls(2, pa.int32()), pa.nulls(2, pa.float16())):
        assert np.isnan(_read(array, nulls="skip")[0]).all()
        assert _read(array)[1] == [0, 1]
        assert _read(array, nulls=3.0)[0] == [3, 3]
    assert _read(pa.array([], pa.float64()))[0] == []


def _identify(array: pa.Array, kind: str, nulls: Any) -> tuple[list[Any], list[bool], list[int]]:
    faults = Faults(np.zeros(len(array), np.int32), [])
    counts = {"filled": 0}
    values, there = to_identifiers(array, Feature("x", kind, nulls=nulls), faults, counts)
    return values.tolist(), there.tolist(), np.flatnonzero(faults.codes).tolist()


def test_identifiers_stay_what_they_are() -> None:
    """Integers beyond float32, any width; text as Python strings."""
    large = [2**53 + 1, -(2**63)]
    assert _identify(pa.array(large, pa.int64()), "int64", "error") == (large, [True] * 2, [])
    assert _identify(pa.array([2**64 - 1, 5], pa.uint64()), "int64", "error")[2] == [0]
    assert _identify(pa.array(["b", "", "b"]), "string", "error")[0] == ["b", "", "b"]
    assert _identify(pa.array([], pa.string()), "string", "error") == ([], [], [])


def test_nulls_of_identifiers() -> None:
    """An int8 column takes a fill that int8 could not hold; previous and skip leave holes."""
    column = pa.array([1, None], pa.int8())
    assert _identify(column, "int64", 300.0) == ([1, 300], [True, True], [])
    assert _identify(column, "int64", "skip")[1:] == ([True, False], [])
    assert _identify(column, "int64", "error")[2] == [1]
    assert _identify(pa.array([None, 7], pa.uint64()), "int64", -1.0)[0] == [-1, 7]
    assert _identify(pa.array(["a", None]), "string", "previous")[1:] == ([True, False], [])


def test_bytes_that_are_no_text_are_a_fault_of_their_row_and_can_be_shown() -> None:
    """Parquet takes any bytes for text."""
    raw = pa.array([b"a", b"\xff\xfe", None, b"\xff\xfe"])
    column = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    values, there, bad = _identify(column, "string", "skip")
    assert (values[0], there, bad) == ("a", [True, True, False, True], [1, 3])
    assert [shown(column, row) for row in range(3)] == ["'a'", r"b'\xff\xfe'", "None"]


def test_the_first_value_that_does_not_fit_is_soon_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By halving the rows: to cast 65,536 of them one by one takes seconds, decimals half a minute.

    Of several columns, the first is named.
    """
    exact = Mock(wraps=casts._exact)
    monkeypatch.setattr(casts, "_exact", exact)
    rows = pa.array(np.arange(65_536))
    batch = pa.record_batch({"x": pa.array(np.arange(65_536) + 2**31 - 60_000), "y": rows})
    schema = pa.schema({"x": pa.int32(), "y": pa.int8()})
    with pytest.raises(DataError, match=r"^f: row 60007 \(from 0\): column 'x': .* 2147483648 "):
        cast_columns(batch, schema, "f", 7, "first")
    assert exact.call_count < 20
