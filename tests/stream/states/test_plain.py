"""Plain rows: read in one call if nothing is to be decided about them, and left alone otherwise."""

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streamrnn.stream.sources import Contract, Feature
from streamrnn.stream.states import Layout, StateTable

ROWS = 9
NUMBERS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64()]
DATES = [pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("ns", "UTC")]
BYTES = [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(3)]
KEYS = [*NUMBERS, pa.uint64(), *DATES, pa.time32("s"), pa.decimal128(30, 2), pa.decimal256(60, 2)]
TIMES = [pa.int32(), pa.int64(), *DATES, pa.timestamp("us")]
NOT_PLAIN = [pa.bool_(), pa.dictionary(pa.int32(), pa.string())]
MOST = np.iinfo(np.uint64).max
"""As many ticks as there are: no gap is too long."""


def keys(kind: pa.DataType, count: int = ROWS) -> pa.Array:
    """Distinct keys, of different sizes if they may be."""
    if kind in BYTES:
        texts = [f"k-{i}" if kind == pa.binary(3) else f"key {i}" * i for i in range(count)]
        return pa.array([text.encode() for text in texts], pa.binary()).cast(kind)
    numbers = pa.array([7 * i + 1 for i in range(count)], pa.int32())
    if pa.types.is_date64(kind):
        return pa.array([datetime.date(1970, 1, 1 + i) for i in range(count)], kind)
    if pa.types.is_temporal(kind):
        return numbers.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    return numbers.cast(kind)


def times(kind: pa.DataType, first: int) -> pa.Array:
    days = np.arange(first, first + ROWS, dtype=np.int64)
    if pa.types.is_date64(kind):
        return pa.array(days * 86_400_000).cast(kind)
    return pa.array(days).cast(pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)


def batch(**changes: Any) -> pa.RecordBatch:
    a = np.arange(ROWS, dtype=np.float32) / 4
    columns = {
        "id": keys(pa.string()),
        "t": times(pa.int64(), 100),
        "a": pa.array(a),
        "b": pa.array(-a.astype(np.float64)),
    }
    return pa.record_batch(columns | changes)


class Streams:
    """A table with the streams of a batch, each with a row before it."""

    def __init__(self, first: pa.RecordBatch, **feature: Any) -> None:
        time = "t" if "t" in first.schema.names else None
        self.contract = Contract(("id",), time, (Feature("a", **feature), Feature("b")))
        self.schema = first.schema
        self.table = StateTable(Layout((first.schema.field("id"),), pa.int64(), {"h": 2}))
        slots = self.table.find([first.column("id")])
        last = np.arange(50, 50 + len(slots))
        self.table.advance(slots, slots * 0, last, {})

    def read(self, rows: pa.RecordBatch, most: int = MOST) -> Any:
        columns = self.contract.plain_columns(rows.schema, self.schema)
        return None if columns is None else self.table.plain(rows, columns, most)


def assert_reads(streams: Streams, rows: pa.RecordBatch) -> None:
    plain = streams.read(rows)
    assert plain is not None
    assert plain.slots.tolist() == streams.table.find([rows.column("id")]).tolist()
    for name, values in zip("ab", plain.features.T, strict=True):
        assert values.tolist() == rows.column(name).to_numpy().astype(np.float32).tolist()
    if "t" in rows.schema.names:
        kind = pa.int32() if rows.column("t").type.bit_width == 32 else pa.int64()
        assert plain.time.tolist() == rows.column("t").cast(kind).to_pylist()


@pytest.mark.parametrize("kind", [*KEYS, *BYTES], ids=str)
def test_keys_of_a_type_are_found(kind: pa.DataType) -> None:
    rows = batch(id=keys(kind))
    order = np.random.default_rng(0).permutation(ROWS)
    assert_reads(Streams(rows), rows)
    assert_reads(Streams(rows), batch(id=keys(kind).take(pa.array(order))))


@pytest.mark.parametrize("kind", NOT_PLAIN, ids=str)
def test_keys_that_are_converted_are_not_plain(kind: pa.DataType) -> None:
    rows = batch(id=pa.array(["x", "y"] * 4 + ["z"]).dictionary_encode())
    if kind == pa.bool_():
        rows = batch(id=pa.array([True] * ROWS))
    assert Streams(rows).read(rows) is None


@pytest.mark.parametrize("kind", TIMES, ids=str)
def test_times_of_a_type_are_read(kind: pa.DataType) -> None:
    rows = batch(t=times(kind, 100))
    assert_reads(Streams(rows), rows)


def test_rows_without_times_are_plain() -> None:
    rows = batch().drop_columns(["t"])
    assert_reads(Streams(rows), rows)


@pytest.mark.parametrize("first", range(ROWS))
def test_a_slice_is_read_where_it_is(first: int) -> None:
    """Also if a row outside of it is null, and the nulls are not counted yet."""
    outside = pa.array([None if i < first else i / 2 for i in range(ROWS)], pa.float32())
    rows = batch(a=outside)
    assert_reads(Streams(rows), rows.slice(first))
    if first:
        assert Streams(rows).read(rows.slice(first - 1)) is None


def test_keys_at_the_end_of_memory_are_read_to_their_end_only() -> None:
    """A word at the last byte would reach beyond the memory of the values."""
    texts = [f"{i}" * (i + 1) for i in range(ROWS)]
    ends = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    exact = [None, pa.py_buffer(ends), pa.py_buffer("".join(texts).encode())]
    rows = batch(id=pa.Array.from_buffers(pa.string(), ROWS, exact))
    assert_reads(Streams(batch(id=pa.array(texts))), rows)


@pytest.mark.parametrize("count", [700, 5_000])
def test_keys_are_found_while_the_index_grows(count: int) -> None:
    every = keys(pa.int64(), count)
    streams = Streams(batch(id=every[:ROWS]))
    for first in range(ROWS, count, 97):
        new = streams.table.find([every[first : first + 97]])
        streams.table.advance(new, new * 0, new * 0, {})
        assert_reads(streams, batch(id=every[first - ROWS : first]))


def _changed(column: str, row: int, value: Any) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    def change(rows: pa.RecordBatch) -> pa.RecordBatch:
        values = rows.column(column).to_pylist()
        values[row] = value
        place = rows.schema.get_field_index(column)
        return rows.set_column(place, column, pa.array(values, rows.column(column).type))

    return change


def _hidden(values: pa.Array, row: int) -> pa.Array:
    """Return values of which one is null: its bytes are still there."""
    array = pa.array(values.to_numpy(), mask=np.arange(len(values)) == row)
    assert array.null_count == 1
    return array


DECIDED = {
    "no key": _changed("id", 0, None),  # whose bytes are those of the text without any
    "no time": lambda rows: rows.set_column(1, "t", _hidden(rows.column("t"), 4)),
    "no value": lambda rows: rows.set_column(2, "a", _hidden(rows.column("a"), 4)),
    "no double": _changed("b", 8, None),
    "NaN": _changed("a", 0, float("nan")),
    "infinite": _changed("b", 8, float("-inf")),
    "beyond float32": _changed("b", 3, 1e39),
    "above a limit": _changed("a", 8, 2.125),
    "below a limit": _changed("a", 8, -0.125),
    "a zero that a limit changes": _changed("a", 8, -0.0),
    "late": _changed("t", 8, 57),
    "repeated": _changed("t", 8, 58),
    "a new stream": _changed("id", 3, "new"),
    "a part of a key": _changed("id", 8, "key 8" * 7 + "key "),
    "twice a stream": _changed("id", 8, "key 1"),
    "nothing": lambda rows: rows.slice(0, 0),
    "other type of key": lambda rows: rows.set_column(0, "id", rows.column("id").cast("binary")),
    "integers": lambda rows: rows.set_column(2, "a", pa.array(range(ROWS), pa.int32())),
}


@pytest.mark.parametrize("name", DECIDED)
def test_rows_about_which_something_is_decided_are_not_plain(name: str) -> None:
    streams = Streams(batch(), valid=(-3, 2), clip=(0, 3))
    assert streams.read(batch()) is not None
    assert streams.read(DECIDED[name](batch())) is None


def test_a_row_is_plain_that_is_at_most_so_many_ticks_after_the_last_one() -> None:
    streams, rows = Streams(batch()), _changed("t", 8, 58 + 61)(batch())
    assert streams.read(rows, 61) is not None
    assert streams.read(rows, 60) is None


def test_the_first_row_of_a_stream_is_not_plain() -> None:
    """Where an idle stream may have been dropped, it is counted."""
    streams = Streams(batch())
    slots = streams.table.find([batch().column("id")])[2:3]
    streams.table.advance(slots, slots, None, {}, seen=False)
    assert streams.read(batch()) is None
    assert streams.read(batch().slice(3)) is not None


def test_a_gap_may_be_longer_than_a_signed_integer() -> None:
    streams, latest = Streams(batch()), np.iinfo(np.int64).max
    slots = streams.table.find([batch().column("id")])
    streams.table.advance(slots, slots, slots * 0 - latest, {})
    rows = _changed("t", 0, latest)(batch())
    assert streams.read(rows, 2 * latest) is not None
    assert streams.read(rows, 2 * latest - 1) is None
    assert streams.read(rows, 60) is None


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 1_000])
def test_a_stream_that_is_there_twice_is_seen_at_any_place(rows: int) -> None:
    rng = np.random.default_rng(rows)
    every = keys(pa.int64(), 10 * rows)
    floats = pa.array(np.zeros(rows))

    def some(which: np.ndarray) -> pa.RecordBatch:
        return pa.record_batch({"id": every.take(pa.array(which)), "a": floats, "b": floats})

    streams = Streams(pa.record_batch({"id": every, "a": every, "b": every}))
    for _ in range(20):
        which = rng.choice(len(every), rows, replace=False)
        assert streams.read(some(which)) is not None
        if rows > 1:
            one, other = rng.choice(rows, 2, replace=False)
            which[one] = which[other]
            assert streams.read(some(which)) is None


def test_other_columns_are_not_plain() -> None:
    schema = batch().schema
    feature = (Feature("a"), Feature("b"))
    assert Contract(("id",), "t", feature).plain_columns(schema, schema) is not None
    others = [
        Contract(("id", "t"), None, feature),
        Contract(("id",), "t", feature, reset="r"),
        Contract(("id",), "t", (*feature, Feature("id", "string"))),
    ]
    assert [contract.plain_columns(schema, schema) for contract in others] == [None] * 3
