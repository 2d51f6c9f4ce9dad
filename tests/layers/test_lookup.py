"""Lookups and CategoryEncoding: numbers as Keras gives them (keras/src/layers/preprocessing)."""

import numpy as np
import pytest

import streamrnn
from streamrnn import Input, Sequential, layers
from streamrnn.errors import DataError, DTypeError, UnsupportedError
from streamrnn.models import SequenceRunner, StepRunner


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 0]),
        ({"mask_token": ""}, [2, 3, 1]),
        ({"num_oov_indices": 0, "vocabulary": ["a", "b", "?"]}, [0, 1, 2]),
        ({"vocabulary": ["[UNK]", "a", "b"]}, [1, 2, 0]),
        ({"mask_token": "", "vocabulary": ["", "[UNK]", "a", "b"]}, [2, 3, 1]),
        ({"oov_token": "b", "vocabulary": ["a"]}, [1, 0, 0]),
    ],
)
def test_strings(options, expected):
    """Mask first, then unknown, then the vocabulary."""
    layer = layers.StringLookup(**{"vocabulary": ["a", "b"], **options})
    made = layer(np.array([["a", "b", "?"]]))
    assert made.dtype == np.int64
    assert made.tolist() == [expected]
    assert layer(np.array(["a", "b", "?"], dtype=object)).tolist() == expected
    again = layers.deserialize(layers.serialize(layer))
    assert again(np.array(["a", "b", "?"])).tolist() == expected
    assert layer.vocabulary_size() > max(expected)


def test_integers():
    """Unknown integers are spread by their remainder."""
    layer = layers.IntegerLookup(vocabulary=[10, 20], num_oov_indices=3, mask_token=0)
    assert layer(np.array([10, 20, 0, 7, 8, -1])).tolist() == [4, 5, 0, 2, 3, 3]


def test_refusals():
    """Unknown tokens without a number, hashes, other outputs, wrong vocabularies."""
    layer = layers.StringLookup(vocabulary=["a"], num_oov_indices=0)
    with pytest.raises(DataError, match=r"'z' is not in the vocabulary"):
        layer(np.array(["z"]))
    with pytest.raises(DTypeError, match="expected strings, received int64"):
        layer(np.array([1]))
    for options, expected in (
        ({"num_oov_indices": 2}, "TensorFlow's hash"),
        ({"output_mode": "one_hot"}, "put a CategoryEncoding after it"),
        ({"invert": True}, "invert=True"),
        ({"vocabulary": None}, "expected vocabulary="),
        ({"vocabulary": ["a", "a"]}, "'a' is in the vocabulary twice"),
        ({"vocabulary": ["a", "[UNK]"]}, r"special token '\[UNK\]'"),
    ):
        with pytest.raises(UnsupportedError, match=expected):
            layers.StringLookup(**{"vocabulary": ["a"], **options})
    with pytest.raises(UnsupportedError, match=r"Hashing.*hash is not reproduced"):
        layers.get("Hashing")


def test_rows_of_different_length():
    """What stands past a row's end is nobody's token."""
    model = Sequential(
        [
            Input((None,), dtype="string"),
            layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=0),
            layers.Embedding(2, 3),
            layers.GRU(2),
        ]
    )
    assert model.input_specs[0][1:] == ((None,), "string")
    tokens = np.array([["a", "b", "a"], ["b", "", "?"]])
    y = SequenceRunner(model).run([tokens], np.array([3, 1]))[0]
    np.testing.assert_array_equal(y[1], model(tokens[1:, :1])[0])
    stream = StepRunner(model)
    states = stream.initial_state(2)
    steps = stream.run([tokens], np.array([3, 1]), states)[0]
    np.testing.assert_array_equal(steps[0, -1], y[0])


def test_category_encoding():
    """One vector a number, or one a set."""
    ids = np.array([[0, 2, 2]])
    one = layers.CategoryEncoding(4, output_mode="one_hot")(ids)
    np.testing.assert_array_equal(one, np.eye(4, dtype=np.float32)[ids])
    assert layers.CategoryEncoding(4)(ids).tolist() == [[1, 0, 1, 0]]
    assert layers.CategoryEncoding(4, output_mode="count")(ids).tolist() == [[1, 0, 2, 0]]
    assert layers.CategoryEncoding(4, output_mode="one_hot")(ids.T).shape == (3, 4)
    with pytest.raises(DataError, match=r"4 is outside 0…3"):
        layers.CategoryEncoding(4)(np.array([[4]]))


def test_category_encoding_on_streams():
    """A window of one step is still a sequence; a set of all steps is refused."""
    model = Sequential(
        [Input((None,), dtype="int64"), layers.CategoryEncoding(3, "one_hot"), layers.GRU(2)]
    )
    ids = np.array([[0, 2, 1]])
    stream = StepRunner(model)
    states = stream.initial_state(1)
    parts = [stream.run([ids[:, t : t + 1]], None, states)[0] for t in range(3)]
    np.testing.assert_array_equal(parts[-1][:, 0], model(ids))
    joined = Sequential([Input((None,), dtype="int64"), layers.CategoryEncoding(3)])
    with pytest.raises(streamrnn.errors.ModelMismatchError, match="joins all steps"):
        StepRunner(joined)
