"""Values of JSON and Arrow as columns: none is changed in silence, be its type exact or not."""

import decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest

from streamrnn.errors import DataError
from streamrnn.plugins.serve.values import RequestColumns

MONEY = pa.decimal128(38, 2)


def column(kind: pa.DataType, values: Any) -> pa.Array:
    columns = RequestColumns(pa.schema([("x", kind)]), None, {})
    return columns.batch([("x", values)], len(values)).column(0)


@pytest.mark.parametrize(
    ("kind", "text", "advice"),
    [
        (pa.int64(), "9007199254740993.0", "without a point"),
        (pa.uint64(), "1e18", "without a point"),
        (MONEY, "12345678901234567.89", "as text"),
        (MONEY, "123456789012345678901", "as text"),
        (MONEY, "10000000000000000000001", "as text"),
        (pa.decimal128(38, 20), "0.30000000000000004", "as text"),
        (MONEY, "true", "received True"),
        (pa.float64(), "true", "received True"),
        (pa.float32(), "false", "received False"),
        (pa.float32(), "1e300", "received 1e+300"),
        (pa.float16(), "-70000", "received -70000"),
        (pa.list_(pa.int64()), "[1.5]", "received [1.5]"),
        (pa.list_(pa.list_(pa.int64())), "[[true]]", "received [[True]]"),
        (pa.struct({"a": pa.float32()}), '{"a": 1e300}', "received {'a': 1e+300}"),
        (pa.list_(pa.timestamp("us")), "[9223372036854775807]", "received [9223372036854775807]"),
    ],
)
def test_json_that_the_type_cannot_hold_is_refused(
    kind: pa.DataType, text: str, advice: str
) -> None:
    with pytest.raises(DataError, match=r"row 1 .*column 'x': expected ") as caught:
        column(kind, orjson.loads(f"[null, {text}]"))
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float32(), pa.array([1.0, 1e300])),
        (pa.float16(), pa.array([1.0, 1e5], pa.float32())),
        (pa.float64(), pa.array(["1", "1e400"])),
        (pa.list_(pa.float32()), pa.array([[1.0], [2.0, 1e300]])),
        (pa.struct({"a": pa.list_(pa.float32())}), pa.array([{"a": [1.0]}, {"a": [1e300]}])),
        (pa.float32(), pa.array([1, 2**53 + 1])),
        (pa.null(), pa.array([None, 2**55], pa.timestamp("s"))),
        (pa.null(), pa.array([0, -(2**55)], pa.timestamp("s", "UTC"))),
        (pa.timestamp("s"), [0, 2**55]),
        (pa.null(), pa.array([[0], [2**62]], pa.list_(pa.timestamp("us")))),
        (pa.null(), pa.array([None, [0]], pa.list_(pa.timestamp("us", "Mars/X")))),
    ],
)
def test_arrow_that_the_type_cannot_hold_is_refused(kind: pa.DataType, values: pa.Array) -> None:
    """Times in seconds, too, which Parquet does not have: they could fail at the commit."""
    with pytest.raises(DataError, match="row 1 "):
        column(kind, values)


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ms", "Asia/Tokyo")])
def test_text_of_a_time_is_in_utc_in_arrow_too(kind: pa.DataType) -> None:
    """As the key in the path of a state, which is such text."""
    texts = ["2024-05-01", "2024-05-01T01:00", "2024-05-01T02:00+02:00", None]
    times = column(kind, texts)
    assert times.cast(pa.timestamp("us", "UTC"))[1].as_py().hour == 1
    for text in (pa.string(), pa.large_string(), pa.string_view()):
        assert column(kind, pa.array(texts, text)) == times
    assert column(kind, pa.array(texts).dictionary_encode()) == times


def test_a_column_that_is_there_twice_is_refused() -> None:
    """As in a file: none of the two values is taken for the other."""
    columns = RequestColumns(pa.schema([("x", pa.int64())]), None, {"x": ("old", "older")})
    for names in (("x", "x"), ("x", "old"), ("older", "old")):
        with pytest.raises(DataError, match="the request: column 'x': expected once"):
            columns.batch([(name, [1]) for name in names], 1)
    with pytest.raises(DataError, match=r"row 1 \(from 0\): column 'x': expected once"):
        columns.of_objects([{"old": 1}, {"x": 1, "old": 1}])
    assert columns.of_objects([{"old": 1}, {"x": 1}])["x"].to_pylist() == [1, 1]


def test_exact_values_stay() -> None:
    assert column(pa.list_(pa.int64()), [[2.0, 3], [], None]).to_pylist() == [[2, 3], [], None]
    assert column(MONEY, [0.25, "12345678901234567.89", 7, None]).to_pylist() == [
        decimal.Decimal("0.25"), decimal.Decimal("12345678901234567.89"), decimal.Decimal(7), None
    ]  # fmt: skip
    assert column(MONEY, [123456789012345.0]).to_pylist() == [decimal.Decimal(123456789012345)]
    assert column(pa.int64(), [2.0, 2**62, None]).to_pylist() == [2, 2**62, None]
    assert column(pa.bool_(), [True, None]).to_pylist() == [True, None]
    lists = pa.array([[1.0, float("inf")], None, []])
    assert column(pa.list_(pa.float32()), lists).to_pylist() == lists.to_pylist()
    objects = pa.array(
        [{"a": 1.0, "b": 1e300}, None], pa.struct({"b": pa.float64(), "a": pa.float64()})
    )
    assert column(objects.type, objects) == objects
    infinite = pa.array([float("inf"), float("nan"), None])
    for values in (infinite, infinite.dictionary_encode()):
        assert str(column(pa.float32(), values).to_pylist()) == "[inf, nan, None]"
