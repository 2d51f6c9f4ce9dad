"""Lookups and CategoryEncoding: numbers as Keras gives them (keras/src/layers/preprocessing)."""

import numpy as np
import pytest

import streamrnn
from streamrnn import Input, Model, Sequential, layers, ops
from streamrnn.errors import ArgumentError, DataError, DTypeError, UnsupportedError
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
        ({"output_mode": "ragged"}, "output_mode must be one of int, one_hot, multi_hot, count"),
        ({"invert": True, "output_mode": "count"}, 'invert=True needs output_mode="int"'),
        ({"output_mode": "tf_idf"}, 'output_mode="tf_idf" needs idf_weights'),
        ({"output_mode": "tf_idf", "idf_weights": [1, 2]}, "expected 1 idf_weights"),
        ({"pad_to_max_tokens": True}, "pad_to_max_tokens=True needs max_tokens"),
        ({"max_tokens": 1}, "max_tokens must be 2 or more"),
        ({"salt": 3}, "TensorFlow's hashes are not reproduced"),
        ({"vocabulary": 3}, "expected vocabulary="),
        ({"vocabulary": ["a", "a"]}, "'a' is in the vocabulary more than once"),
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


@pytest.mark.parametrize(
    ("token", "length"), [("?", 2), ("b", 3), ("?", None)], ids=["padding", "known", "unknown"]
)
def test_sets_of_tokens_in_rows_of_different_length(token, length):
    """Steps of several tokens: only those before a row's end need to be in the vocabulary."""
    layer = layers.StringLookup(
        vocabulary=["a", "b"], num_oov_indices=0, output_mode="multi_hot", name="it"
    )
    model = SequenceRunner(Sequential([Input((None, 2), dtype="string"), layer]))
    tokens = np.array([[["a", "b"]] * 3, [["a", "a"], ["b", "a"], [token, "b"]]])
    lengths = np.array([3, 3 if length is None else length])
    if length is None:
        with pytest.raises(DataError, match=r"'it' .*: '\?' is not in the vocabulary"):
            model.run([tokens], lengths)
    else:
        (y,) = model.run([tokens], lengths)
        assert y[1, :2].tolist() == [[1, 0], [1, 1]]


def test_a_token_of_each_row_has_no_steps():
    """Lengths are those of another input, which has a time axis."""
    x, kind = Input((None, 1)), Input((), dtype="string")
    arguments = {"vocabulary": ["a"], "num_oov_indices": 0, "output_mode": "one_hot"}
    vector = layers.StringLookup(**arguments, name="it")(kind)
    model = SequenceRunner(Model([x, kind], [layers.GRU(2)(x), vector]))
    steps, lengths = np.ones((2, 3, 1), np.float32), np.array([3, 1])
    assert model.run([steps, np.array(["a", "a"])], lengths)[1].tolist() == [[1], [1]]
    with pytest.raises(DataError, match=r"'it' .*: 'z' is not in the vocabulary"):
        model.run([steps, np.array(["a", "z"])], lengths)


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


def test_category_encoding_of_one_number_a_row() -> None:
    """Behind the time axis, rows have no steps: their lengths do not apply."""
    inputs = Input((None, 2))
    last = layers.LSTM(3, kernel_initializer="ones")(inputs)
    is_above = ops.cast(last[:, 0] > 0, "int32")
    model = Model(inputs, layers.CategoryEncoding(2, output_mode="one_hot")(is_above))
    x = np.array([[[1, 1], [1, 1]], [[-9, -9], [7, 7]]], np.float32)
    (y,) = SequenceRunner(model).run([x], np.array([2, 1]))
    assert y.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    "layer",
    [
        layers.CategoryEncoding(3, output_mode="count"),
        layers.IntegerLookup(vocabulary=[1, 2], output_mode="count"),
    ],
)
def test_a_set_of_steps_has_no_step_past_the_end_of_a_row(layer: layers.Layer) -> None:
    model = Sequential([Input((None,), dtype="int64"), layer])
    ids = np.array([[1, 2, 1], [2, 0, 0]])
    (y,) = SequenceRunner(model).run([ids], np.array([3, 1]))
    assert y.tolist() == [[0, 2, 1], [0, 0, 1]]


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


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("multi_hot", {}, [[1, 1, 0], [0, 1, 1]]),
        ("count", {}, [[1, 2, 0], [0, 1, 2]]),
        ("binary", {}, [[1, 1, 0], [0, 1, 1]]),
        ("count", {"mask_token": "b"}, [[1, 2], [0, 1]]),
        ("count", {"max_tokens": 5, "pad_to_max_tokens": True}, [[1, 2, 0, 0, 0], [0, 1, 2, 0, 0]]),
        ("tf_idf", {"idf_weights": [0.5, 0.25]}, [[0.375, 1, 0], [0, 0.5, 0.5]]),
    ],
)
def test_vectors_of_sets(mode, options, expected):
    """The last axis is a set; a mask token is no number; unknown words have the mean weight."""
    vocabulary = ["a"] if "mask_token" in options else ["a", "b"]
    layer = layers.StringLookup(vocabulary=vocabulary, output_mode=mode, **options)
    words = np.array([["a", "?", "a"], ["b", "a", "b"]])
    made = layer(words)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, np.array(expected, np.float32))
    np.testing.assert_array_equal(layer(words[1]), made[1])
    again = layers.deserialize(layers.serialize(layer))
    np.testing.assert_array_equal(again(words), made)


def test_one_hot_vectors_stream():
    """One vector a word; sets of words are refused on streams."""
    x = Input((None,), dtype="string")
    layer = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    model = Model(x, layers.GRU(2)(layer(x)))
    words = np.array([["a", "?", "b"]])
    np.testing.assert_array_equal(layer(words)[0], np.eye(3)[[1, 0, 2]])
    assert layer(words[0]).shape == (3, 3)
    stream = StepRunner(model)
    states = stream.initial_state(1)
    steps = stream.run([words], None, states)[0]
    np.testing.assert_array_equal(steps[:, -1], model(words))
    sets = layers.StringLookup(vocabulary=["a"], output_mode="multi_hot")
    with pytest.raises(streamrnn.errors.ModelMismatchError, match='use output_mode="one_hot"'):
        StepRunner(Model(x, sets(x)))


def test_tokens_of_numbers():
    """What is no number of the vocabulary is the oov token. Only arrays: no layer reads tokens."""
    layer = layers.StringLookup(vocabulary=["a", "b"], mask_token="", invert=True)
    assert layer(np.array([[0, 1, 2, 3, 9]])).tolist() == [["", "[UNK]", "a", "b", "[UNK]"]]
    again = layers.deserialize(layers.serialize(layer))
    assert again([3]).tolist() == ["b"]
    numbers = layers.IntegerLookup(vocabulary=[7, 5], invert=True)
    assert numbers([0, 1, 2, 3]).tolist() == [-1, 7, 5, -1]
    with pytest.raises(UnsupportedError, match="call the layer on arrays"):
        layer(Input((None,), dtype="int64"))


def test_a_vocabulary_is_learned():
    """By frequency, then the greater token first; special tokens and what is too much are left."""
    layer = layers.StringLookup(max_tokens=4, mask_token="")
    with pytest.raises(UnsupportedError, match="it has no vocabulary; call adapt"):
        layer(np.array(["a"]))
    words = [["c", "a", "a", ""], ["b", "c", "[UNK]"], ["d"]]
    layer.adapt(words)
    assert layer.get_vocabulary() == ["", "[UNK]", "c", "a"]
    assert layer.get_vocabulary(include_special_tokens=False) == ["c", "a"]
    layer.adapt(np.array(row) for row in words)
    assert layer.get_vocabulary() == ["", "[UNK]", "c", "a"]
    layer.adapt((np.array(row) for row in words), steps=1)
    assert layer.get_vocabulary() == ["", "[UNK]", "a", "c"]
    again = layers.StringLookup.from_config(layer.get_config())
    assert again.get_vocabulary() == layer.get_vocabulary()
    with pytest.raises(UnsupportedError, match="its vocabulary was passed"):
        layers.StringLookup(vocabulary=["a"]).adapt(words)
    numbers = layers.IntegerLookup()
    numbers.adapt(np.array([3, 3, 5, -1]))
    assert numbers.get_vocabulary() == [-1, 3, 5]
    numbers.set_vocabulary([9])
    assert numbers([9, 3]).tolist() == [1, 0]


def test_weights_are_learned():
    """log(1 + rows / (1 + rows with the token)); special tokens have the mean."""
    layer = layers.StringLookup(output_mode="tf_idf")
    layer.adapt([["a", "a", "b"], ["a"], ["a", "b"]])
    weights = [np.log(1 + 3 / 4), np.log(1 + 3 / 3)]
    expected = [2 * np.mean(weights), weights[0], 0]
    np.testing.assert_allclose(layer(np.array([["a", "?", "?"]])), [expected], rtol=1e-6)


def test_a_vocabulary_from_a_file(tmp_path):
    """One token a line; no file is read for a config, which may come from anybody."""
    path = tmp_path / "words.txt"
    path.write_text("b\na\n")
    layer = layers.StringLookup(vocabulary=str(path))
    assert layer.get_vocabulary() == ["[UNK]", "b", "a"]
    assert layer.get_config()["vocabulary"] == ["b", "a"]
    (tmp_path / "numbers.txt").write_text("7\n5")
    assert layers.IntegerLookup(vocabulary=str(tmp_path / "numbers.txt"))([5]).tolist() == [2]
    with pytest.raises(FileNotFoundError, match=r"the vocabulary file .* does not exist"):
        layers.StringLookup(vocabulary=str(tmp_path / "none.txt"))
    with pytest.raises(UnsupportedError, match="no file is read for a config"):
        layers.StringLookup.from_config({"name": "it", "vocabulary": str(path)})


def test_category_encoding_of_one_sample():
    """Without a batch: a number, or a set of them."""
    for mode, one, several in (
        ("one_hot", [0, 1, 0], [[0, 1, 0], [0, 0, 1], [0, 0, 1]]),
        ("multi_hot", [0, 1, 0], [0, 1, 1]),
        ("count", [0, 1, 0], [0, 1, 2]),
    ):
        assert layers.CategoryEncoding(3, mode)(1).tolist() == one
        assert layers.CategoryEncoding(3, mode)([1, 2, 2]).tolist() == several
    assert layers.CategoryEncoding(3, "binary").output_mode == "multi_hot"


def test_weighted_counts():
    """Each number adds its weight."""
    layer = layers.CategoryEncoding(3, "count")
    ids, weights = np.array([[1, 2, 2]]), [[0.5, 1.0, 0.25]]
    assert layer(ids, count_weights=weights).tolist() == [[0, 0.5, 1.25]]
    assert layer(ids[0], count_weights=weights[0]).tolist() == [0, 0.5, 1.25]
    with pytest.raises(streamrnn.errors.ShapeError, match=r"count_weights of shape \(1, 3\)"):
        layer(ids, count_weights=[1.0])
    with pytest.raises(UnsupportedError, match="`count_weights` is not used when"):
        layers.CategoryEncoding(3)(ids, count_weights=weights)


@pytest.mark.parametrize("edges", [None, [], [1.0, 0.0]])
def test_bins_need_boundaries_in_order(edges: list[float] | None) -> None:
    with pytest.raises(ArgumentError, match="expected bin_boundaries in ascending order"):
        layers.Discretization(edges, num_bins=3)


def test_bins_are_not_joined() -> None:
    """Keras joins the steps of a sequence, not the values of a step."""
    with pytest.raises(ArgumentError, match="output_mode must be int or one_hot"):
        layers.Discretization([0.0], output_mode="multi_hot")
