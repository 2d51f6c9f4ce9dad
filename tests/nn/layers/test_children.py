"""The layers inside a layer: declared by classes of the package, searched for in a user's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.rows_graphs import LAYERS

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.convert import convert
from streamrnn.nn.layers.layer import Layer

X = np.random.default_rng(8).normal(size=(4, 5, 3)).astype(np.float32)


def searched(value: object) -> set[int]:
    """The ids of the layers in a value."""
    if isinstance(value, Layer):
        return {id(value)}
    items = value.values() if isinstance(value, dict) else value
    several = isinstance(value, list | tuple | dict)
    return {found for item in items for found in searched(item)} if several else set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_declares_every_layer_in_its_attributes(name: str) -> None:
    """But for the arguments that it was made with, and what runs another layer as a cell."""
    layer = LAYERS[name].layer()
    others = "_made_with", "runner", "runners"
    inside = {name: value for name, value in vars(layer).items() if name not in others}
    if not isinstance(layer, Model):
        assert searched(inside) == set(map(id, layer.children().values()))


class Unread(list[str]):
    """A list whose items must not be read."""

    def __iter__(self) -> Any:
        raise AssertionError("searched")


def test_a_vocabulary_is_not_searched() -> None:
    """Each batch of a fit took 161 ms with 40,000 words, and 2 ms without them."""
    layer = layers.StringLookup(vocabulary=["a", "b"])
    layer.vocabulary = Unread("ab")
    assert layer.children() == {}


class Custom(layers.Layer):
    """It has layers in attributes of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.words = [f"word {i}" for i in range(9)]
        self.blocks: list[Any] = []
        self.named: dict[str, Any] = {"text": "a", "numbers": [1, 2]}
        self.one: Any = None

    def call(self, x: Any) -> Any:
        for layer in self.children().values():
            x = layer(x)
        return x


def test_a_custom_layer_has_the_layers_that_its_attributes_hold_now() -> None:
    """A list changes without its owner, so no earlier search may stand for it."""
    custom, dense = Custom(), [layers.Dense(3) for _ in range(5)]
    assert custom.children() == {}
    custom.blocks.append(dense[0])
    assert custom.children() == {"blocks/0": dense[0]}
    custom.one = dense[1]
    custom.named["numbers"].append((None, dense[2]))
    custom.words[4] = dense[3]  # type: ignore[call-overload]
    assert custom.children() == {
        "words/4": dense[3],
        "blocks/0": dense[0],
        "named/numbers/2/1": dense[2],
        "one": dense[1],
    }
    custom.one, custom.blocks[0] = custom.blocks[0], dense[4]
    assert [*custom.children().values()] == [dense[i] for i in (3, 4, 2, 0)]
    del custom.blocks[0], custom.one, custom.words[4], custom.named["numbers"]
    assert custom.children() == {}


def test_a_layer_derived_from_one_of_the_package_has_its_own_layers() -> None:
    class Gated(layers.Dense):
        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.gate = layers.Dense(2)
            self.gate.build(input_shape)

    assert [*Gated(2).children()] == []
    gated = Gated(2)
    gated.build((None, 3))
    assert [*gated.named_weights()] == ["kernel", "bias", "gate/kernel", "gate/bias"]


def compiled(rate: float = 0.5) -> tuple[Model, Any]:
    """A model that drops inputs, before all of its weights, and its layer with the rate."""
    dropout = layers.Dropout(rate)
    model = Sequential([Input((5, 3)), dropout, layers.LSTM(8), layers.Dense(2)])
    model.compile("sgd", "mse")
    return model, dropout


def test_a_batch_asks_no_layer_what_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of a fit knows; each batch asked every layer four times."""
    model, _ = compiled()
    model.train_on_batch(X, np.zeros((4, 2)))
    asked: list[object] = []
    for cls in (Model, Sequential, layers.RNN, layers.Dense, layers.Dropout, Layer):
        monkeypatch.setattr(cls, "children", lambda self: asked.append(self) or {}, raising=False)
    model.train_on_batch(X, np.zeros((4, 2)))
    assert asked == []


def test_a_rate_that_is_set_later_counts() -> None:
    (model, dropout), (other, _) = compiled(0.0), compiled(0.5)
    other.set_weights(model.get_weights())
    for each in (model, other):
        each.train_on_batch(np.zeros_like(X), np.zeros((4, 2)))
    dropout.rate = 0.5
    losses = [each.train_on_batch(X, np.ones((4, 2))) for each in (model, other)]
    assert losses[0] == losses[1]


def test_integers_that_are_loaded_later_are_refused(tmp_path: Path) -> None:
    model, _ = compiled()
    model.save(tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "i.safetensors", precision="int8")
    model.train_on_batch(X, np.zeros((4, 2)))
    model.load_weights(tmp_path / "i.safetensors")
    with pytest.raises(UnsupportedError, match="has weights in int8, which cannot be trained"):
        model.train_on_batch(X, np.zeros((4, 2)))
