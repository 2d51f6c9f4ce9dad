"""Compute the error of the weather forecast from the output of the pipeline.

    streamrnn run pipelines/weather.toml
    python pipelines/weather/evaluate.py

For each airport, October to December 2013 (the model was trained on the months before): root mean
square error in degF of the column temp_3h against the temperature exactly three hours later, where
it was read, and that of a persistence baseline (forecast = current temperature). Requires numpy and
pyarrow only.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SINCE = np.datetime64("2013-10-01T00:00")
AHEAD = np.timedelta64(3, "h")
ROOT = Path(__file__).parents[2]


def series(table: pa.Table, origin: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one airport's times and values of a column, NaN for null, sorted by time."""
    rows = table.filter(pc.equal(table["origin"], origin)).sort_by("time_hour")
    times = rows["time_hour"].to_numpy().astype("datetime64[us]")
    return times, rows[column].to_numpy().astype(np.float64)


def look_up(times: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value at each of the `wanted` times, NaN where there is none."""
    index = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    return np.where(times[index] == wanted, values[index], np.nan)


def errors(log: pa.Table, forecast: pa.Table, origin: str) -> tuple[float, float, int]:
    """Return the RMSE of the model and of persistence over the same rows, and their number."""
    times, temp = series(log, origin, "temp")
    at, forecasts = series(forecast, origin, "temp_3h")
    truth, now = look_up(times, temp, at + AHEAD), look_up(times, temp, at)
    counted = (at >= SINCE) & ~np.isnan(forecasts) & ~np.isnan(truth) & ~np.isnan(now)

    def rmse(values: np.ndarray) -> float:
        return float(np.sqrt(np.mean((values[counted] - truth[counted]) ** 2)))

    return rmse(forecasts), rmse(now), int(counted.sum())


def read(output: Path, data: Path = ROOT / "data" / "weather.parquet") -> tuple[pa.Table, pa.Table]:
    """Read the log and the forecast of an output folder."""
    parts = sorted(output.glob("*.parquet"))
    if not parts:
        raise SystemExit(
            f"no .parquet files in {output}; first run `streamrnn run pipelines/weather.toml`"
        )
    log = pq.read_table(data, columns=["origin", "time_hour", "temp"])
    columns = ["origin", "time_hour", "temp_3h"]
    return log, pa.concat_tables([pq.read_table(part, columns=columns) for part in parts])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="RMSE of the weather forecast, October to December."
    )
    parser.add_argument("output", nargs="?", type=Path, default=Path("out/weather"))
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "weather.parquet")
    arguments = parser.parse_args()
    log, forecast = read(arguments.output, arguments.data)
    print("airport  hours  model  persistence   (RMSE in degF)")
    for origin in sorted(pc.unique(log["origin"]).to_pylist()):
        model, persistence, hours = errors(log, forecast, origin)
        print(f"{origin:7}  {hours:5}  {model:5.2f}  {persistence:11.2f}")


if __name__ == "__main__":
    main()
