"""Models inside models: Keras counts their calls from 1 in one part of a file, from 0 in another.

Random graphs of shared layers and models, in a file of Keras, and in one that this package writes.
"""

import os
from random import Random
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("h5py", reason="needs the keras extra")

import streamrnn  # noqa: E402
from streamrnn.nn.formats.keras.write import save_keras  # noqa: E402

k = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")
X, Y = np.random.default_rng(3).normal(size=(2, 2, 4, 3)).astype(np.float32)


def layer(random: Random, deep: int) -> Any:
    """A layer or a model of one input, which keeps the shape (4, 3)."""
    kind = random.choice(("dense", "rnn", "tanh", "stack", "open stack", "model", "plain"))
    if kind == "dense":
        return k.Dense(3)
    if kind == "rnn":
        return k.SimpleRNN(3, return_sequences=True)
    if kind == "tanh" or not deep:
        return k.Activation("tanh")
    if kind == "plain":
        return keras.Sequential([keras.Input((4, 3)), k.Activation("tanh")])
    if kind == "model":
        return graph(random, deep - 1, inputs=1, outputs=random.choice((1, 1, 2)))
    inside = [layer(random, 0) for _ in range(random.randint(1, 2))]
    return keras.Sequential([keras.Input((4, 3)), *inside] if kind == "stack" else inside)


def graph(random: Random, deep: int, *, inputs: int, outputs: int) -> Any:
    """A functional model that calls its layers and models once or several times."""
    read = [keras.Input((4, 3)) for _ in range(inputs)]
    values = list(read)
    layers = [layer(random, deep) for _ in range(random.randint(1, 3))]
    pairs = [graph(random, 0, inputs=2, outputs=2)] if deep and random.random() < 0.3 else []
    for _ in range(random.randint(1, 6)):
        called = random.choice(layers + pairs)
        first, second = random.choice(values), random.choice(values)
        got = called([first, second] if called in pairs else first)
        values += got if isinstance(got, list) else [got]
    chosen = [random.choice(values[inputs:]) for _ in range(outputs - 1)] + [values[-1]]
    return keras.Model(
        read if inputs > 1 else read[0],
        chosen if outputs > 1 or random.random() < 0.2 else chosen[0],
    )


def outputs_of(model: Any, arrays: Any) -> list[np.ndarray]:
    made = model(arrays)
    return [
        keras.ops.convert_to_numpy(y) for y in (made if isinstance(made, list | tuple) else [made])
    ]


def assert_same(model: Any, arrays: Any, folder: Any) -> None:
    """Both of Keras's files give what Keras gives; and what is written, gives it in Keras."""
    wanted = outputs_of(model, arrays)
    for name in ("m.keras", "m.h5"):
        model.save(folder / name)
        loaded = streamrnn.load_model(folder / name, strict=True)
        for ours, theirs in zip(outputs_of(loaded, arrays), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    save_keras(loaded, folder / "written.keras")
    again = streamrnn.load_model(folder / "written.keras", strict=True)
    back = keras.models.load_model(folder / "written.keras")
    for ours, read, theirs in zip(
        outputs_of(loaded, arrays), outputs_of(again, arrays), outputs_of(back, arrays), strict=True
    ):
        assert read.tobytes() == ours.tobytes()
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_of_shared_and_nested_models(seed, tmp_path):
    """Shared and nested models, stacks and models without weights, several outputs of a model."""
    random = Random(seed)
    keras.utils.set_random_seed(seed)
    inputs = random.choice((1, 2))
    model = graph(random, 2, inputs=inputs, outputs=random.randint(1, 3))
    assert_same(model, [X, Y] if inputs == 2 else X, tmp_path)


def test_a_nested_model_is_an_output(tmp_path):
    """One that is called a second time for an inner layer, and one that is the whole model."""
    i, j = keras.Input((4, 3)), keras.Input((4, 3))
    x = keras.Input((4, 3))
    enc = keras.Model(x, k.LSTM(2)(x))
    assert_same(keras.Model([i, j], [enc(i), k.Dense(1)(enc(j))]), [X, Y], tmp_path)
    assert_same(keras.Model(i, enc(i)), X, tmp_path)
