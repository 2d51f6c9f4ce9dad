"""Real weights: chars2vec eng_50 (files/chars2vec/NOTICE), a legacy weights file of Keras 2.2.0."""

from pathlib import Path

import naive
import numpy as np
import pytest

pytest.importorskip("h5py", reason="needs the keras extra")

import streamrnn
from streamrnn.errors import UnsupportedError

FILES = Path(__file__).parent / "files" / "chars2vec"
LETTERS = (FILES / "NOTICE").read_text().strip().splitlines()[-1]


def tables(**options):
    return [
        {"type": "LSTM", "units": 50, "return_sequences": True, **options},
        {"type": "LSTM", "units": 50, **options},
    ]


@pytest.fixture(scope="module")
def model():
    return streamrnn.load_model(
        FILES / "eng_50.h5", layers=tables(recurrent_activation="hard_sigmoid"), strict=True
    )


def one_hot(word):
    return np.eye(len(LETTERS), dtype=np.float32)[[LETTERS.index(letter) for letter in word]]


def test_the_gate_must_be_said():
    """The file does not, and the default changed in Keras 2.3."""
    with pytest.raises(
        UnsupportedError, match=r"Keras 2\.2\.0.*hard_sigmoid.*set recurrent_activation"
    ):
        streamrnn.load_model(FILES / "eng_50.h5", layers=tables())


def test_words_that_look_alike_are_near(model):
    """What it was trained for."""
    vectors = {w: model(one_hot(w)[None])[0] for w in ("recurrent", "recurent", "elephant")}
    near = np.linalg.norm(vectors["recurrent"] - vectors["recurent"])
    far = np.linalg.norm(vectors["recurrent"] - vectors["elephant"])
    assert near < far / 2


def test_against_the_oracle(model):
    """The numbers are those of the equations, with the gate of Keras 2."""
    x = one_hot("stream")[None]
    y = x
    for layer in model.layers:
        cell = naive.lstm(*layer.get_weights(), recurrent_activation="hard_sigmoid_02")
        y, last, _ = naive.layer(cell, y)
    np.testing.assert_allclose(model(x), last, atol=1e-5)
