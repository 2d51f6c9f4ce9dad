"""Names and paths of weights, and refusals, beside Keras itself."""

import os
import re
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

import streamrnn

X = np.ones((1, 2, 3), np.float32)
MAKERS = {
    "rnn": lambda k: k.layers.LSTM(2, name="a"),
    "stack": lambda k: k.layers.RNN(
        [k.layers.LSTMCell(2, name="c"), k.layers.GRUCell(2, name="d")], name="a"
    ),
    "both": lambda k: k.layers.Bidirectional(k.layers.GRU(2, name="g"), name="a"),
    "each": lambda k: k.layers.TimeDistributed(k.layers.Dense(2, name="d"), name="a"),
    "norm": lambda k: k.layers.BatchNormalization(name="a"),
    "model": lambda k: k.Sequential(
        [k.Input((None, 3)), k.layers.SimpleRNN(2, name="s"), k.layers.Dense(1, name="d")], name="m"
    ),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_paths_and_kinds_of_weights_are_those_of_keras(kind: str) -> None:
    described = []
    for library in (streamrnn, keras):
        made: Any = MAKERS[kind](library)
        made(X)
        described.append([
            [(w.name, re.sub(r"(stacked_rnn_cells)_\d+", r"\1", w.path), tuple(w.shape))
             for w in weights if "seed_generator" not in w.path]  # Keras's random numbers
            for weights in (made.trainable_variables, made.non_trainable_variables)
        ])  # fmt: skip
    assert described[0] == described[1]


def test_states_after_a_reset_are_those_of_keras() -> None:
    found = []
    for library in (streamrnn, keras):
        layer = library.layers.LSTM(2, stateful=True)
        layer(X)
        layer.reset_state()
        found.append([np.asarray(state).tolist() for state in layer.states])
    assert found[0] == found[1] == [[[0, 0]], [[0, 0]]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda k: k.layers.Dropout(-1),
        lambda k: k.layers.Dropout(0.5, noise_shape=5),
        lambda k: k.layers.Dropout(0.5, noise_shape=(0, 1)),
        lambda k: k.layers.RepeatVector(0),
        lambda k: k.initializers.VarianceScaling(scale=-1),
        lambda k: k.initializers.VarianceScaling(mode="x"),
        lambda k: k.layers.Input((2,), batch_shape=(1, 2)),
        lambda k: k.layers.Input(),
    ],
)
def test_what_keras_refuses_is_refused_in_its_words(wrong: Any) -> None:
    texts = []
    for library in (streamrnn, keras):
        with pytest.raises(ValueError) as caught:
            wrong(library)
        texts.append(str(caught.value))
    first_words = texts[1].split(". ")[0].rstrip(".").partition(":")[0][:60]
    assert first_words in texts[0]
