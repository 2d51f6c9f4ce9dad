"""LSTM cells with more weights, against what TensorFlow Addons says (tests/golden)."""

from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
from selection import first_quick

from streamrnn import layers

GOLDEN = dict(np.load(Path(__file__).parents[2] / "golden" / "addons.npz"))
CELLS: dict[str, Any] = {
    "peephole": lambda: layers.PeepholeLSTMCell(5),
    "layer_norm": lambda: layers.LayerNormLSTMCell(5),
    "peephole_relu": lambda: layers.PeepholeLSTMCell(
        5, activation="relu", recurrent_activation=("hard_sigmoid", 0.2, 0.5), use_bias=False
    ),
    "layer_norm_epsilon": lambda: layers.LayerNormLSTMCell(5, norm_epsilon=0.1, use_bias=False),
}


def _kept(name: str) -> list[np.ndarray]:
    found = [key for key in GOLDEN if key.startswith(name)]
    return [GOLDEN[f"{name}{i}"] for i in range(len(found))]


@pytest.mark.parametrize("name", first_quick(CELLS, 2))
def test_cells_say_what_addons_says(name: str) -> None:
    """Outputs and states, under a mask with gaps.

    Slow: other activations and another epsilon, compiled for themselves.
    """
    layer = layers.RNN(CELLS[name](), return_sequences=True, return_state=True)
    layer.build((None, None, 2))
    layer.set_weights(_kept(f"{name}:w"))
    got = layer(GOLDEN["input:x"], mask=GOLDEN["input:mask"])
    for array, wanted in zip(got, _kept(f"{name}:y"), strict=True):
        np.testing.assert_allclose(np.asarray(array), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "cell"), [("peephole", 0), ("layer_norm", 1)])
def test_the_oracle_says_what_addons_says(name: str, cell: int) -> None:
    """It is what every other test of these cells is held against."""
    kernel, recurrent, bias, *own = _kept(f"{name}:w")
    made = (
        naive.layer_norm_lstm(kernel, recurrent, bias, *own)
        if cell
        else naive.peephole_lstm(kernel, recurrent, bias, np.stack(own))
    )
    y, _, states = naive.layer(made, GOLDEN["input:x"], mask_BT=GOLDEN["input:mask"])
    for array, wanted in zip((y, *states), _kept(f"{name}:y"), strict=True):
        np.testing.assert_allclose(np.array(array), wanted, rtol=0, atol=2e-6)
