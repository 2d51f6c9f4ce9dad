"""Subclasses of Model with their own call, beside the same code in Keras."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")

import streamrnn  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def classifier(library: Any) -> Any:
    """The code of a user, for one library or the other."""
    layers = library.layers

    class Classifier(library.Model):  # type: ignore[misc]
        def __init__(self, units: int) -> None:
            super().__init__()
            self.out = layers.Dense(2, activation="softmax")
            self.embed = layers.Embedding(9, 3, mask_zero=True)
            self.blocks = [layers.LSTM(units, return_sequences=True) for _ in range(2)]
            self.norm = layers.LayerNormalization()
            self.drop = layers.Dropout(0.5)

        def call(self, inputs: Any, training: bool = False) -> Any:
            x = self.embed(inputs["ids"])
            for block in self.blocks:
                x = x + block(x)
            x = self.drop(self.norm(x), training=training)
            return [self.out(x), x[:, -1] * inputs["scale"]]

    return Classifier(3)


def test_outputs_weights_and_predict_are_those_of_keras() -> None:
    rng = np.random.default_rng(1)
    x = {"ids": rng.integers(1, 9, (5, 6)), "scale": rng.normal(size=(5, 1)).astype("f4")}
    theirs, ours = classifier(keras), classifier(streamrnn)
    theirs(x), ours(x)
    ours.set_weights(theirs.get_weights())
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    assert len(ours.layers) == len(theirs.layers)
    assert ours.count_params() == theirs.count_params()
    for mine, other in ((ours(x), theirs(x)), (ours.predict(x, 2), theirs.predict(x, 2))):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), rtol=1e-5, atol=1e-6)
