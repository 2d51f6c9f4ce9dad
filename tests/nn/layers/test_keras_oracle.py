"""Recurrent layers beside Keras itself, with options drawn at random: what no golden file lists."""

import inspect
import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras
from nn.layers.kinds import flat

from streamrnn import layers

pytestmark = pytest.mark.filterwarnings("ignore")


def drawn(seed: int) -> tuple[Any, dict[str, Any], np.ndarray]:
    """A maker of one layer in either library, arguments of its call, and inputs."""
    rng = np.random.default_rng(seed)

    def coin(odds: float = 0.5) -> bool:
        return bool(rng.random() < odds)

    units, features, rows, steps = (int(n) for n in rng.integers(1, 7, 4))
    options: dict[str, Any] = {"return_sequences": coin(), "return_state": coin()}
    masked, begun = coin(0.6), coin()
    if not masked:  # with masks, what Keras does hangs on the backend and on unroll
        options["unroll"] = coin(0.3)
    wrap = [None, "Bidirectional", "stacked"][int(rng.integers(3))]
    kind = ["SimpleRNN", "LSTM", "GRU"][int(rng.integers(3))]
    own: dict[str, Any] = {"use_bias": coin(0.7), "activation": ["tanh", "relu"][int(coin(0.3))]}
    if kind == "GRU":
        own["reset_after"] = coin()
    merge = ["concat", "sum", "mul", "ave", None][int(rng.integers(5))]
    if wrap != "Bidirectional":
        options["go_backwards"] = coin(0.3)
        options["zero_output_for_mask"] = coin(0.3)

    def make(library: Any) -> Any:
        if wrap == "stacked":
            cells = [library.LSTMCell(units), getattr(library, f"{kind}Cell")(units, **own)]
            return library.RNN(cells, **options)
        layer = getattr(library, kind)(units, **own, **options)
        return library.Bidirectional(layer, merge_mode=merge) if wrap else layer

    call: dict[str, Any] = {}
    if masked:
        call["mask"] = rng.random((rows, steps)) < 0.6
    if begun and wrap != "stacked":
        count = (2 if kind == "LSTM" else 1) * (2 if wrap else 1)
        call["initial_state"] = list(rng.normal(size=(count, rows, units)).astype(np.float32))
    return make, call, rng.normal(size=(rows, steps, features)).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_layer_agrees_with_keras(seed: int) -> None:
    """Outputs and states within 1e-5. (60 seeds passed once; each takes Keras some seconds.)"""
    make, call, x = drawn(seed)
    theirs, ours = make(keras.layers), make(layers)
    theirs.build(x.shape)
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=w.shape) * 0.4 for w in theirs.get_weights()]
    ours.build(x.shape)
    for layer in (theirs, ours):
        layer.set_weights(weights)
    for mine, other in zip(flat(ours(x, **call)), flat(theirs(x, **call)), strict=True):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, np.asarray(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell"]
)
def test_signatures_are_those_of_keras(name):
    """The same arguments in the same order, with the same defaults."""
    ours, theirs = (
        [
            (p.name, p.default)
            for p in inspect.signature(getattr(package, name)).parameters.values()
            if p.name not in ("kwargs", "use_cudnn")  # no GPU here
        ]
        for package in (layers, keras.layers)
    )
    assert ours == theirs
