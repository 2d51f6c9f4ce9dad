"""Draw forecast.svg: the forecast and the reading three hours later, at three airports.

    streamrnn run pipelines/weather.toml
    python pipelines/weather/draw_forecast.py

The picture shows some days of November, which were not used in training, and the errors that
`streamrnn evaluate pipelines/weather.toml --by stream --since 2013-10-01` prints.
"""

import argparse
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from svg import FAINT, INK, ORANGE, Picture, Point

from streamrnn import Pipeline

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SINCE, AHEAD = "2013-10-01", np.timedelta64(3, "h")
BEGIN, END = np.datetime64("2013-11-20T00:00"), np.datetime64("2013-11-27T00:00")
NAMES = {"EWR": "Newark (EWR)", "JFK": "Kennedy (JFK)", "LGA": "LaGuardia (LGA)"}
WIDTH, LEFT, RIGHT = 860, 40, 12
TOP, PANEL, GAP = 62, 112, 34
COLDEST, WARMEST, GRID = 10, 70, (20, 40, 60)


def series(table: pa.Table, origin: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one airport's times and values of a column, NaN for null, sorted by time."""
    rows = table.filter(pc.equal(table["origin"], origin)).sort_by("time_hour")
    times = rows["time_hour"].to_numpy().astype("datetime64[us]")
    return times, rows[column].to_numpy().astype(np.float64)


def errors(output: Path) -> dict[str, tuple[float, float]]:
    """Return the RMSE of the model and of persistence at each airport."""
    paths = {
        "source.path": ROOT / "data" / "weather.parquet",
        "model.path": HERE / "model.safetensors",
        "sink.path": output,
    }
    overrides = [f"{key}={path}" for key, path in paths.items()]
    pipeline = Pipeline.from_toml(ROOT / "pipelines" / "weather.toml", overrides)
    lines = pipeline.evaluate("stream", since=SINCE).table.to_pylist()
    return {line["origin"]: (line["rmse"], line["rmse_persistence"]) for line in lines}


def read(output: Path) -> tuple[pa.Table, pa.Table]:
    """Read the log and the forecast of an output folder."""
    log = pq.read_table(ROOT / "data" / "weather.parquet", columns=["origin", "time_hour", "temp"])
    columns = ["origin", "time_hour", "temp_3h"]
    parts = [pq.read_table(part, columns=columns) for part in sorted(output.glob("*.parquet"))]
    return log, pa.concat_tables(parts)


def draw(log: pa.Table, forecast: pa.Table, rmse: dict[str, tuple[float, float]]) -> str:
    """Draw the log (origin, time_hour, temp) and the output (…, temp_3h)."""
    height = TOP + len(NAMES) * (PANEL + GAP)
    picture = Picture(WIDTH, height, "Temperature read and forecast at three airports")
    _legend(picture)
    for i, (origin, name) in enumerate(NAMES.items()):
        top = TOP + i * (PANEL + GAP)
        model, persistence = rmse[origin]
        note = f"October to December: RMSE {model:.2f} °F, persistence {persistence:.2f} °F"
        picture.text(LEFT, top - 8, name, 13, bold=True)
        picture.text(WIDTH - RIGHT, top - 8, note, 12, "end")
        _grid(picture, top, days=i == len(NAMES) - 1)
        times, readings = series(log, origin, "temp")
        _curve(picture, top, times, readings, INK, 2.5)
        times, forecasts = series(forecast, origin, "temp_3h")
        _curve(picture, top, times + AHEAD, forecasts, ORANGE, 1.5)
    return picture.svg()


def _legend(picture: Picture) -> None:
    picture.line([(LEFT, 14), (LEFT + 24, 14)], INK, 2.5)
    picture.text(LEFT + 32, 18, "temperature that was read, °F", 13)
    picture.line([(LEFT + 250, 14), (LEFT + 274, 14)], ORANGE, 1.5)
    picture.text(LEFT + 282, 18, "forecast for that hour, made three hours before", 13, fill=ORANGE)


def _grid(picture: Picture, top: float, days: bool) -> None:
    for degrees in GRID:
        y = _y(top, degrees)
        picture.line([(LEFT, y), (WIDTH - RIGHT, y)], FAINT)
        picture.text(LEFT - 6, y + 4, str(degrees), 11, "end")
    for day in np.arange(BEGIN, END, np.timedelta64(1, "D")):
        x = _x(day)
        picture.line([(x, top), (x, top + PANEL)], FAINT)
        if days:
            year = f", {day.item().year} (UTC)" if day == BEGIN else ""
            picture.text(x + 4, top + PANEL + 16, f"Nov {day.item().day}{year}", 11)


def _curve(
    picture: Picture, top: float, times: np.ndarray, values: np.ndarray, stroke: str, width: float
) -> None:
    """Draw a line through the values from BEGIN to END, with gaps at NaN."""
    shown = (times >= BEGIN) & (times <= END)
    points = zip(times[shown], values[shown], strict=True)
    for missing, run in groupby(points, lambda point: bool(np.isnan(point[1]))):
        if not missing:
            picture.line([_point(top, *point) for point in run], stroke, width)


def _point(top: float, time: np.datetime64, degrees: float) -> Point:
    return _x(time), _y(top, degrees)


def _x(time: np.datetime64) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * float((time - BEGIN) / (END - BEGIN))


def _y(top: float, degrees: float) -> float:
    return top + PANEL * (WARMEST - degrees) / (WARMEST - COLDEST)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the weather forecast against the truth.")
    parser.add_argument("output", nargs="?", type=Path, default=Path("out/weather"))
    parser.add_argument("--to", type=Path, default=HERE / "forecast.svg")
    arguments = parser.parse_args()
    rmse = errors(arguments.output)
    arguments.to.write_text(draw(*read(arguments.output), rmse), encoding="utf-8")


if __name__ == "__main__":
    main()
