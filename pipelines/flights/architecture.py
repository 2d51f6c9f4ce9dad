"""Make the models that flights.toml is fitted from: recurrent.safetensors, logistic.safetensors.

    python pipelines/flights/architecture.py

Both read the same inputs: eight numbers, and the id of the carrier. The logistic regression has no
state: what it knows of an aircraft's past is in the row.
"""

from pathlib import Path
from typing import Any

from streamrnn import Input, Model, initializers, layers

HERE = Path(__file__).parent
CARRIERS = 16
NUMBERS = 8


def features(size: int) -> tuple[list[Any], Any]:
    """Return the inputs, and all of them as one vector; `size` of its numbers are the carrier's."""
    numbers, carrier = Input((None, NUMBERS), name="numbers"), Input((None,), name="carrier")
    scaled = layers.Normalization(name="normalize")(numbers)
    embedded = layers.Embedding(CARRIERS, size, name="embedding")(carrier)
    return [numbers, carrier], layers.Concatenate()([scaled, embedded])


def recurrent() -> Model:
    """Make a GRU over the flights of an aircraft."""
    inputs, x = features(4)
    x = layers.GRU(32, return_sequences=True, name="past")(x)
    return Model(inputs, layers.Dense(1, "sigmoid", name="delayed")(x))


def logistic() -> Model:
    """Make a logistic regression: a weight for each number, and one for each carrier."""
    inputs, x = features(1)
    return Model(inputs, layers.Dense(1, "sigmoid", name="delayed")(x))


def main() -> None:
    for make in (recurrent, logistic):
        with initializers.seeded(0):
            make().save(HERE / f"{make.__name__}.safetensors")


if __name__ == "__main__":
    main()
