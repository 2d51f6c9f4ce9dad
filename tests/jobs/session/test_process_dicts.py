"""`process` takes rows as dicts: those of an Arrow table with the same values."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import logs
import numpy as np
import pyarrow as pa
import pytest

from streamrnn import Pipeline
from streamrnn.errors import DataError, DTypeError

LOG = logs.random_log(120, streams=5, nulls=0.1, resets=0.1)
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    logs.small_model().save(tmp_path / "m.safetensors")
    data = logs.config("unused", str(tmp_path / "m.safetensors"), None)
    data["source"].pop("path")
    data["source"] |= {"nulls": "previous", "reset": "new"}
    return data


def _row(minute: int = 0, **values: Any) -> dict[str, Any]:
    time = NOON + timedelta(minutes=minute)
    return {"id": "s", "t": time, "a": 1.0, "b": 2, "new": False, **values}


@pytest.mark.parametrize("columns", ["*", ["id", "t", "a", "b"]])
@pytest.mark.parametrize("size", [1, 7, 120])
def test_rows_as_dicts_are_scored_as_a_table(
    config: dict[str, Any], columns: Any, size: int
) -> None:
    """Bit for bit, however they are cut; nulls are None or missing, unknown keys are ignored."""
    config["output"] = {"columns": columns}
    table = LOG.set_column(3, "b", LOG["b"].cast(pa.float64()))
    expected = Pipeline.from_dict(config).process(table)
    rows = LOG.to_pylist()
    for number, row in enumerate(rows):
        if number % 2:
            rows[number] = {name: value for name, value in row.items() if value is not None}
        if columns != "*":
            rows[number]["comment"] = [number, "x"]
    pipeline = Pipeline.from_dict(config)
    scored = []
    for first in range(0, 120, size):
        scored.append(pipeline.process(rows[first : first + size]))
        assert isinstance(scored[-1], pa.Table)
    assert pa.concat_tables(scored).combine_chunks() == expected.combine_chunks()
    assert pa.table(pipeline.state).num_rows == 5


def test_values_of_numpy_and_integers_for_floats(config: dict[str, Any]) -> None:
    config["output"] = {"columns": ["id", "t", "a"]}
    plain = [_row(0, a=1.0, b=2.0), _row(1, a=3.0, b=0.0), _row(2, a=0.5, b=1.0, new=True)]
    numpy = [
        _row(0, a=1, b=np.int8(2), id=np.str_("s")),
        _row(1, a=np.float32(3), b=np.float16(0)),
        _row(2, a=np.float64(0.5), b=True, new=np.bool_(True)),
    ]
    found = [Pipeline.from_dict(config).process(rows) for rows in (plain, numpy)]
    assert found[0] == found[1]
    pipeline = Pipeline.from_dict(config)
    assert pa.concat_tables([pipeline.process([row]) for row in numpy]) == found[0]
    decimals = [_row(0, a=1.0, b=Decimal("2")), *plain[1:]]
    pipeline = Pipeline.from_dict(config)
    assert pa.concat_tables([pipeline.process([row]) for row in decimals]) == found[0]


def test_a_column_of_none_takes_any_value_later(config: dict[str, Any]) -> None:
    """Also one that is only copied, which has no type until then."""
    config["output"] = {"columns": ["id", "note", "a"]}
    pipeline = Pipeline.from_dict(config)
    first = pipeline.process([_row(0, a=None, b=None, note=None)])
    assert first.to_pylist()[0]["note"] is None
    second = pipeline.process([_row(1, note="hot"), _row(2)])
    assert second["note"].to_pylist() == ["hot", None]
    assert second.schema.field("a").type == first.schema.field("a").type == pa.float64()


def test_times_keep_their_instants(config: dict[str, Any]) -> None:
    """In the zone of the first row; those in NumPy's type, dates and integers are times, too."""
    rome, tokyo = ZoneInfo("Europe/Rome"), timezone(timedelta(hours=9))
    times = [NOON.astimezone(zone) for zone in (rome, UTC, tokyo)]
    rows = [_row(id=name, t=time) for name, time in zip("abc", times, strict=True)]
    scored = Pipeline.from_dict(config).process(rows)
    assert scored.schema.field("t").type == pa.timestamp("us", "Europe/Rome")
    assert scored["t"].to_pylist() == [NOON] * 3
    for time in (np.datetime64("2024-01-01T12", "us"), date(2024, 1, 1), 17):
        assert Pipeline.from_dict(config).process([_row(t=time)]).num_rows == 1


def test_a_list_without_rows_gives_a_table_without_rows(config: dict[str, Any]) -> None:
    pipeline = Pipeline.from_dict(config)
    before = pipeline.process([])
    assert isinstance(before, pa.Table)
    assert (before.num_rows, before.column_names) == (0, ["id", "t", "score"])
    scored = pipeline.process([_row()], position=3)
    after = pipeline.process([], position=4)
    assert (after.num_rows, after.schema) == (0, scored.schema)
    assert pipeline.position == 4


def test_old_names_are_keys_too(config: dict[str, Any]) -> None:
    config["source"]["rename"] = {"a": "temperature"}
    row = _row()
    expected = Pipeline.from_dict(config).process([row])
    row["temperature"] = row.pop("a")
    assert Pipeline.from_dict(config).process([row]) == expected
    with pytest.raises(DataError, match="column 'a': expected one column, found a, temperature"):
        Pipeline.from_dict(config).process([row, _row(1)])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("a", [1.0, "x"], "expected a float as in row 7, received text: 'x'"),
        ("a", [None, 3, "x"], "expected an integer as in row 8, received text: 'x'"),
        ("a", [1, 2**53 + 1], "expected a number that float64 can hold, received 900719925474099"),
        ("a", [1.0, 10**400], "expected a number that float64 can hold, received 1000"),
        ("a", [Decimal(1), 1.5], "expected a decimal as in row 7, received a float: 1.5"),
        ("id", ["a", 1], "expected text as in row 7, received an integer: 1"),
        ("id", [1, 2**70], "expected a value that Arrow can hold, received 1180591620717411303424"),
        ("new", [True, 1], "expected a boolean as in row 7, received an integer: 1"),
        (
            "t",
            [NOON + timedelta(hours=1), datetime(2024, 1, 1, 14)],
            "expected a time with a zone as in row 7, received a time without a zone: datetime",
        ),
        ("t", [date(2024, 1, 2), NOON], "expected a date as in row 7, received a time with a zone"),
    ],
)  # fmt: skip
def test_values_of_several_types_are_refused_by_row_and_column(
    config: dict[str, Any], column: str, values: list[Any], message: str
) -> None:
    """Rows are counted over the calls, as in other messages. The call counts nothing."""
    pipeline, twin = Pipeline.from_dict(config), Pipeline.from_dict(config)
    for one in (pipeline, twin):
        one.process([_row(minute) for minute in range(7)])
    rows = [_row(10 + number, **{column: value}) for number, value in enumerate(values)]
    with pytest.raises(DataError) as caught:
        pipeline.process(rows)
    place = f"the batch: row {6 + len(values)} (from 0): column {column!r}: "
    assert str(caught.value).startswith(place + message)
    assert pipeline.process([_row(20)]) == twin.process([_row(20)])


def test_a_key_or_time_that_no_row_has_is_named(config: dict[str, Any]) -> None:
    rows = [{"ID": "s", "t": NOON, "a": 1.0, "b": 1.0, "new": False}]
    with pytest.raises(DataError, match=r"column 'id' not found\. Did you mean 'ID'\?"):
        Pipeline.from_dict(config).process(rows)
    with pytest.raises(DataError, match=r"row 1 \(from 0\).*column 'id': key is null"):
        Pipeline.from_dict(config).process([_row(), {**_row(1), "id": None}])


def test_other_data_is_refused_by_its_type(config: dict[str, Any]) -> None:
    with pytest.raises(DTypeError, match=r"row 1 \(from 0\): expected a dict, received list"):
        Pipeline.from_dict(config).process([_row(), [1]])
    with pytest.raises(DTypeError, match="or a list of dicts, received dict"):
        Pipeline.from_dict(config).process(_row())


def test_nan_is_what_the_pipeline_says_of_it(config: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="column 'a': expected a finite number, received NaN"):
        Pipeline.from_dict(config).process([_row(a=math.nan)])
    config["source"] |= {"nan": "null", "nulls": 1.0}
    scored = Pipeline.from_dict(config).process([_row(a=math.nan)])
    assert scored == Pipeline.from_dict(config).process([_row(a=1.0)])


@pytest.mark.parametrize(
    "values",
    [
        [Decimal("1.5"), Decimal("12.25"), 3, None, Decimal("-0.001")],
        [None, Decimal("1.5"), Decimal("12.25")],
        [2**63 + 5, 7, None, 2**64 - 1],
        [7, 2**62, -1],
    ],
)
@pytest.mark.parametrize("columns", [["id", "note"], "*"])
def test_a_copied_column_takes_the_values_of_later_calls(
    config: dict[str, Any], columns: Any, values: list[Any]
) -> None:
    """One row a call or all in one: the same values, in one type."""
    config["output"] = {"columns": columns}
    rows = [_row(minute, note=value) for minute, value in enumerate(values)]
    whole = Pipeline.from_dict(config).process(rows)
    assert whole["note"].to_pylist() == values
    pipeline = Pipeline.from_dict(config)
    parts = [pipeline.process([row])["note"] for row in rows]
    assert [value for part in parts for value in part.to_pylist()] == values
    assert parts[-1].type == whole["note"].type


def test_a_key_may_be_any_unsigned_integer(config: dict[str, Any]) -> None:
    pipeline = Pipeline.from_dict(config)
    pipeline.process([_row(0, id=2**63 + 5)])
    assert pipeline.process([_row(1, id=5)])["id"].to_pylist() == [5]
    assert pa.table(pipeline.state)["id"].to_pylist() == [2**63 + 5, 5]


def test_fractions_in_a_column_of_integers_are_refused_with_advice(config: dict[str, Any]) -> None:
    """Whole floats are integers. The advice works, and the call counts nothing."""
    config["output"] = {"columns": ["id", "note"]}
    pipeline = Pipeline.from_dict(config)
    pipeline.process([_row(0, note=1), _row(1, note=2)])
    message = (
        r"row 3 \(from 0\): column 'note': expected int64 as in earlier rows, received a float: "
        r"2\.5\. The first rows gave the column its type: start with floats \(1\.0, not 1\), or "
        "with Arrow data that has float64 there"
    )
    with pytest.raises(DataError, match=message):
        pipeline.process([_row(2, note=3), _row(3, note=2.5)])
    assert pipeline.process([_row(2, note=4.0)])["note"].to_pylist() == [4]
    pipeline = Pipeline.from_dict(config)
    for minute, number in enumerate([1.0, 2.5, 3]):
        assert pipeline.process([_row(minute, note=number)])["note"].to_pylist() == [number]


@pytest.mark.parametrize("columns", [["id"], "*"])
def test_a_name_of_a_column_that_is_no_text_is_named(config: dict[str, Any], columns: Any) -> None:
    config["output"] = {"columns": columns}
    message = r"row 1 \(from 0\): expected text as the name of each column, received the key 7 "
    with pytest.raises(DTypeError, match=message):
        Pipeline.from_dict(config).process([_row(), _row(1) | {7: 1}])
