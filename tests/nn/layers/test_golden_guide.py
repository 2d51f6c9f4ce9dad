"""What takes more than one call, against values of Keras (tests/golden/make_guide.py)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import flat

from streamrnn import Model, layers

with np.load(Path(__file__).parents[2] / "golden" / "guide.npz") as file:
    GOLDEN = dict(file)


def kept(name: str, key: str) -> list[np.ndarray]:
    """name:key0, name:key1, …"""
    arrays = []
    while f"{name}:{key}{len(arrays)}" in GOLDEN:
        arrays.append(GOLDEN[f"{name}:{key}{len(arrays)}"])
    assert arrays, name
    return arrays


def assert_close(mine: Any, keras: list[np.ndarray]) -> None:
    for one, other in zip(flat(mine), keras, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def of(kind: str, name: str, **options: Any) -> Any:
    layer = getattr(layers, kind)(4, return_sequences=True, **options)
    layer.build((None, None, 2))
    layer.set_weights(kept(name, "w"))
    return layer


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_stateful_calls(kind: str) -> None:
    """Four calls of several lengths, one of which brings its own initial state."""
    layer = of(kind, f"stateful/{kind}", stateful=True)
    windows, states = (x := kept(f"stateful/{kind}", "x"))[:4], x[4:]
    results = [layer(windows[0]), layer(windows[1])]
    results += [layer(windows[2], initial_state=states), layer(windows[3])]
    assert_close(results, kept(f"stateful/{kind}", "y"))


def test_encoder_decoder() -> None:
    """The guide's model in small, with a masked encoder."""
    source, target = layers.Input((None,)), layers.Input((None,))
    embedded = layers.Embedding(7, 3, mask_zero=True)(source)
    _, h, c = layers.LSTM(4, return_state=True)(embedded)
    y = layers.LSTM(4)(layers.Embedding(6, 2)(target), initial_state=[h, c])
    model = Model([source, target], layers.Dense(2)(y))
    weights = kept("encoder_decoder", "w")
    assert [w.shape for w in model.weights] == [w.shape for w in weights]
    model.set_weights(weights)
    assert_close(model(kept("encoder_decoder", "x")), kept("encoder_decoder", "y"))


@pytest.mark.parametrize(
    "kind", ["Add", "Subtract", "Average", "Multiply", "Maximum", "Minimum", "Concatenate"]
)
def test_merges_of_masked_inputs(kind: str) -> None:
    """Values and masks, the latter shown by an LSTM behind."""
    inputs = [layers.Input((None, 2)), layers.Input((None, 2))]
    merged = getattr(layers, kind)()([layers.Masking()(x) for x in inputs])
    lstm = layers.LSTM(3, return_sequences=True)
    model = Model(inputs, [merged, lstm(merged)])
    lstm.set_weights(kept(f"merge/{kind}", "w"))
    assert_close(model(kept(f"merge/{kind}", "x")), kept(f"merge/{kind}", "y"))


@pytest.mark.parametrize("which", ["inputs", "both"])
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU", "GRU/reset_after"])
def test_dropout_with_the_masks_of_keras(
    kind: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the masks that Keras drew (how many, in which shapes), the outputs are the same."""
    name, rates = f"dropout/{kind}/{which}", {"dropout": 0.5}
    if which == "both":
        rates["recurrent_dropout"] = 0.25
    options = {"reset_after": False} if "/" in kind else {}
    layer = of(kind.partition("/")[0], name, **rates, **options)
    theirs = [GOLDEN.get(f"{name}:{key}", np.ones((1, 3, 4), np.float32)) for key in ("mx", "mh")]
    masks = [np.ascontiguousarray(m.swapaxes(0, 1)) for m in theirs]
    assert [m.shape for m in layer.cell.draw_masks(3, 2)] == [m.shape for m in masks]
    many = layer.cell.draw_masks(300, 2)  # six numbers of one mask may all be alike
    for mine, keras in zip(many, masks, strict=True):
        assert set(np.unique(mine)) == set(np.unique(keras))
    monkeypatch.setattr(layer.cell, "draw_masks", lambda rows, features: masks)
    assert_close(layer(kept(name, "x")[0], training=True), kept(name, "y"))
