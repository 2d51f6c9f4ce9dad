"""What cannot be right stops with one message: the layer's name, expected, received."""

from operator import attrgetter
from typing import Any

import numpy as np
import pytest

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import ConfigError, DataError, DTypeError, ShapeError, UnsupportedError

X = np.zeros((2, 5, 4), np.float32)


def lstm() -> layers.LSTM:
    layer = layers.LSTM(3, name="it")
    layer.build((None, None, 4))
    return layer


def dense() -> layers.Dense:
    layer = layers.Dense(3, name="it")
    layer.build((None, 4))
    return layer


def normalization() -> layers.LayerNormalization:
    layer = layers.LayerNormalization(axis=1, name="it")
    layer.build((None, 2, 4))
    return layer


def difference() -> layers.Subtract:
    layer = layers.Subtract(name="it")
    layer.build([(None, 5, 4), (None, 5, 4)])
    return layer


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (lstm(), X[..., :3], ShapeError, r"expected 4 features .* received shape \(2, 5, 3\)"),
        (lstm(), X[0], ShapeError, r"expected 3 axes \(batch, time, features\)"),
        (lstm(), X[..., None], ShapeError, "expected 3 axes"),
        (lstm(), [X, X], ShapeError, "expected an array .* list of 2 arrays; .*initial_state="),
        (lstm(), X.astype(object), DTypeError, "expected numbers .* received object"),
        (lstm(), X.astype(complex), DTypeError, "received complex"),
        (lstm(), np.full((2, 5, 4), "a"), DTypeError, "expected numbers .* received <U1"),
        (dense(), X[..., :3], ShapeError, "expected 4 features"),
        (layers.Embedding(5, 2, name="it"), [[0, 5]], DataError, r"token id 5 at \(0, 1\) .*0…4"),
        (layers.Embedding(5, 2, name="it"), [[-1]], DataError, r"token id -1 at \(0, 0\)"),
        (layers.Embedding(5, 2, name="it"), [[0.5]], DTypeError, "whole numbers, but some have a"),
        (layers.Embedding(5, 2, name="it"), [[np.nan]], DTypeError, "whole numbers"),
        (layers.Embedding(5, 2, name="it"), [["a"]], DTypeError, "must be integers"),
        (layers.Embedding(5, 2, name="it"), [[1e30]], DataError, r"1e\+30 at \(0, 0\) is outside"),
        (layers.Embedding(5, 2, name="it"), np.full((1, 1), 2**63, "u8"), DataError, "9223372036"),
        (dense(), np.full((1, 4), 1e300), DataError, r"up to 1e\+300, too large for float32"),
        (layers.RepeatVector(2, name="it"), X, ShapeError, r"expected \(batch, features\)"),
        (layers.TimeDistributed(layers.Dense(1), name="it"), X[0], ShapeError, "time"),
        (layers.Add(name="it"), X, ShapeError, "on a list of inputs, received shape"),
        (layers.Add(name="it"), [X, X[:, :4]], ShapeError, "its inputs cannot be broadcast"),
        (layers.Add(name="it"), [X, X[0]], ShapeError, "the same number of axes"),
        (layers.Concatenate(name="it"), [X, X[:, :4]], ShapeError, "its inputs do not fit"),
        (layers.Subtract(name="it"), [X, X, X], ShapeError, "exactly 2 inputs, received 3"),
        (difference(), [X, X, X], ShapeError, "exactly 2 inputs, received 3"),
        (layers.Reshape((3, 3), name="it"), X, ShapeError, r"cannot reshape 20 values .*\(3, 3\)"),
        (layers.Conv1D(3, 4, name="it"), X[:, :3], ShapeError, "needs 4 steps, received 3"),
        (layers.MaxPooling1D(4, name="it"), X[:, :3], ShapeError, "needs 4 steps, received 3"),
        (layers.Cropping1D(1, name="it"), X[:, :2], ShapeError, "`cropping` must remove"),
        (layers.Permute((2, 1), name="it"), X[0], ShapeError, "for inputs of 3 axes"),
        (layers.Rescaling([1, 2], name="it"), X, ShapeError, "is for 2 features"),
        (normalization(), X[0, :2], ShapeError, r"expected sizes \(2,\) on axis 1, .* \(2, 4\)"),
    ],
)
def test_inputs(layer: Any, x: Any, error: type[Exception], message: str) -> None:
    """Each error is also the builtin a caller would guess."""
    with pytest.raises(error, match=message) as caught:
        layer(x)
    assert "'it'" in str(caught.value)
    assert isinstance(caught.value, ValueError | TypeError)


def test_numbers_are_cast() -> None:
    """float64, float16, integers, booleans, nested lists and other memory orders are taken."""
    layer, x = lstm(), np.random.default_rng(0).integers(0, 2, (2, 5, 4))
    expected = layer(x.astype(np.float32))
    for cast in (np.float64, np.float16, np.int64, np.uint8, np.bool_):
        np.testing.assert_array_equal(layer(x.astype(cast)), expected)
    np.testing.assert_array_equal(layer(x.tolist()), expected)
    np.testing.assert_array_equal(layer(np.asfortranarray(x)), expected)
    assert layer(x).dtype == np.float32


def made(cls, **options):
    """A layer with arguments that a type checker would refuse."""
    return cls(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: layers.LSTM(3, time_major=True, name="it"),
            "Keras argument time_major=True is re",
        ),
        (lambda: made(layers.LSTM, units=3, unites=4), "unknown argument 'unites'"),
        (lambda: made(layers.SimpleRNN, units=3, recurrent_activation="tanh"), "unknown argument"),
        (lambda: layers.LSTM(0, name="it"), "`units` must be a positive integer, received 0"),
        (lambda: layers.LSTM(0, name="lstm"), r"^layer 'lstm' \(LSTM\): `units` must"),
        (lambda: layers.LSTM(3, dropout=0.5, seed="a", name="it"), "seed must be a whole number"),
        (lambda: layers.Dropout(0.5, seed=-1, name="it"), "seed must be .* received -1"),
        (lambda: layers.GRU(2.5, name="it"), "`units` must be a positive integer, received 2.5"),
        (lambda: layers.Dense("4", name="it"), "`units` must be a positive integer, received '4'"),
        (
            lambda: layers.LSTM(3, activation="tahn", name="it"),
            "activation 'tahn' is not supported",
        ),
        (lambda: layers.Dense(3, activation="nope", name="it"), "activation 'nope'"),
        (lambda: layers.Dense(3, dtype="float16", name="it"), "dtype must be 'float32', received"),
        (lambda: layers.Dense(3, lora_rank=2, name="it"), "lora_rank=2 is refused"),
        (lambda: layers.Embedding(0, 2, name="it"), "`input_dim` must be a positive integer"),
        (lambda: layers.Conv1D(3, 2, padding="full", name="it"), "padding must be one of valid,"),
        (lambda: layers.Conv1D(3, 2, 2, dilation_rate=2, name="it"), "cannot both be more than 1"),
        (lambda: layers.Conv1D(3, 2, groups=2, name="it"), "filters must be a multiple of groups"),
        (lambda: layers.Conv1D(2, 1, groups=2, name="it")(np.ones((1, 2, 3))), "multiple of grou"),
        (lambda: layers.MaxPooling1D(0, name="it"), "pool_size. must be a positive integer"),
        (lambda: layers.Cropping1D((1, -1), name="it"), "cropping must be one number of"),
        (lambda: layers.ZeroPadding1D((1, 2, 3), name="it"), "padding must be one number of s"),
        (
            lambda: layers.GlobalMaxPooling1D("channels_first", name="it"),
            r"data_format='channels_first' is not supported: .*put a Permute\(\(2, 1\)\)",
        ),
        (lambda: layers.Permute((2, 3), name="it"), "expected the numbers 1 to 2 in"),
        (lambda: layers.UpSampling1D(0, name="it"), "`size` should be a positive integer"),
        (lambda: layers.RNN([], name="it"), "one cell or more"),
        (
            lambda: layers.StackedRNNCells.from_config(
                {"name": "it", "cells": layers.serialize(layers.LSTMCell(3))}
            ),
            "expected a list of cells, received layer",
        ),
        (lambda: layers.Input(), "pass either shape"),
        (lambda: layers.Input((3,), dtype="complex64", name="it"), "dtype must be one of"),
        (
            lambda: layers.LayerNormLSTMCell(3, norm_epsilon=-1.0, name="it"),
            "norm_epsilon must be a finite number, 0",
        ),
        (lambda: layers.LayerNormLSTMCell(3, norm_epsilon=np.nan, name="it"), "received nan"),
        (lambda: layers.LayerNormLSTMCell(3, norm_epsilon=None, name="it"), "received None"),
        (lambda: layers.LayerNormalization(axis=3, name="it")(X), "axis=3 is out of bounds for an"),
        (lambda: layers.BatchNormalization(axis=[1, 2], name="it")(X), "must be a single axis"),
        (
            lambda: layers.RMSNormalization(axis=[1, -2], name="it")(X),
            "one or more axes, each once",
        ),
        (lambda: layers.UnitNormalization(axis=0, name="it")(X), "axis=0 is the batch"),
        (lambda: layers.GroupNormalization(3, name="it")(X), "4, must be a multiple of groups=3"),
        (lambda: layers.GroupNormalization(0, name="it"), "the argument `groups` must be a posi"),
        (lambda: layers.GroupNormalization(9, name="it")(X), "more than the number of channels"),
        (lambda: layers.DepthwiseConv1D(2, depth_multiplier=0, name="it"), "depth_multiplier=0."),
        (lambda: layers.Softmax(axis=-4, name="it")(X), "axis=-4 is out of bounds"),
        (lambda: layers.LayerNormalization({"axis": 1}, name="it"), "Expected an int or a list/tu"),
        (lambda: layers.UnitNormalization(1.5, name="it"), "Invalid value for `axis` argument: ex"),
        (lambda: layers.LayerNormalization(3, name="it").compute_output_shape((2, 4)), "of bounds"),
        (lambda: layers.BatchNormalization(renorm=True, name="it"), "renorm=True is refused"),
        (lambda: layers.Normalization(axis=3, name="it").build((2, 2)), "must be in the range"),
        (lambda: layers.Normalization(name="it").adapt([]), "an empty iterable"),
        (lambda: layers.Normalization(name="it").adapt(iter([])), "an empty iterable"),
        (
            lambda: layers.Normalization(name="it").adapt(iter([42])),
            r"with a `\.shape`, received 42",
        ),
        (lambda: layers.Normalization(name="it").adapt(7), "or an iterable of batches, received 7"),
        (lambda: layers.CategoryEncoding(name="it"), "num_tokens must be set"),
        (lambda: layers.CategoryEncoding(0, name="it"), "must be an integer, 1 or more"),
        (lambda: layers.Conv1D(0, 1, name="it"), "strictly positive value. Received filters=0."),
        (lambda: layers.IntegerLookup(vocabulary_dtype="int32", name="it"), "must be 'int64'"),
        (lambda: layers.PReLU(name="it")(layers.Input((None, 3))), "shared_axes="),
        (lambda: layers.PReLU(shared_axes=[3], name="it")(X), r"\[3\] is out of bounds for an in"),
        (lambda: layers.PReLU(shared_axes=-3, name="it")(X), r"\[-3\] is out of bounds for an inp"),
        (lambda: made(layers.PReLU, shared_axes="1", name="it"), "shared_axes must be an int or a"),
        (lambda: layers.TimeDistributed(3, name="it"), "expected a layer, received int"),
        (
            lambda: layers.Normalization(mean=1.0, name="it"),
            "both `mean` and `variance` must be set",
        ),
        (lambda: model()([X, IDS], initial_state=[X]), "make it an Input"),
        (lambda: layers.Dense(3, name="it")(X, initial_state=[X]), "takes no initial_state"),
    ],
)
def test_arguments(make: Any, message: str) -> None:
    """A misspelt, refused or impossible argument of a constructor or a call."""
    with pytest.raises(UnsupportedError, match=message):
        make()


def test_arguments_that_matter_only_to_training_are_taken() -> None:
    """Regularizers and constraints, and the refused ones at their defaults."""
    layer = layers.LSTM(
        3,
        kernel_regularizer="l2",
        bias_constraint=None,
        activity_regularizer=None,
        time_major=False,
        use_cudnn="auto",
        dtype={"class_name": "DTypePolicy", "config": {"name": "float32"}},
    )
    assert layer(X).shape == (2, 3)


def test_layers_that_do_not_exist() -> None:
    """Lambda is refused with its reason; a near miss gets its neighbour."""
    with pytest.raises(UnsupportedError, match="'Lambda' is not supported: it holds Python code"):
        layers.get("Lambda")
    for name, why in (
        ("GroupQueryAttention", "it shares keys among heads"),
        ("ConvLSTM3D", "convolutional recurrence"),
        ("Conv2D", "images are not supported"),
        ("MaxPool3D", "images are not supported"),
        ("TextVectorization", "texts are not supported; split them into words"),
    ):
        with pytest.raises(UnsupportedError, match=f"{name!r} is not supported: {why}") as refused:
            layers.get(name)
        assert "did you mean" not in str(refused.value)
    with pytest.raises(UnsupportedError, match="did you mean 'LSTM'"):
        layers.get("LSTMM")
    assert not hasattr(layers, "Lambda")
    with pytest.raises(AttributeError, match="'CuDNNLSTM': there is no GPU"):
        _ = attrgetter("CuDNNLSTM")(layers)
    with pytest.raises(AttributeError, match=r"no 'LSTMM'; did you mean 'LSTM'\?$"):
        _ = attrgetter("LSTMM")(layers)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([np.zeros((4, 3))], ShapeError, r"weights must be 2 \(kernel, bias\), received 1"),
        ([np.zeros((3, 3)), np.zeros(3)], ShapeError, r"'kernel' has shape \(4, 3\), received"),
        ([np.zeros((4, 3)), np.full(3, "a")], DTypeError, "'bias' must be numbers"),
        (None, DTypeError, "'it'.*expected a list of arrays"),
    ],
)
def test_weights(weights: Any, error: type[Exception], message: str) -> None:
    """Number, shape and type; nothing is set if one is wrong."""
    layer = dense()
    before = layer.get_weights()
    with pytest.raises(error, match=message):
        layer.set_weights(weights)
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ShapeError, match="not built yet"):
        layers.Dense(3).set_weights(weights or [np.zeros(3)])


def model() -> Model:
    x, ids = layers.Input((5, 4), name="x"), layers.Input((None,), name="ids")
    both = layers.Concatenate()([layers.LSTM(2)(x), layers.GRU(2)(layers.Embedding(5, 2)(ids))])
    return Model([x, ids], both, name="it")


IDS = np.zeros((2, 3), np.int64)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([X], ShapeError, r"number of inputs must be 2 \(x, ids\), received 1"),
        ({"x": X}, ShapeError, r"expected inputs \['x', 'ids'\], received \['x'\]"),
        ([X[:, :4], IDS], ShapeError, r"input 'x': expected shape \(batch, 5, 4\), received"),
        ([X, X], ShapeError, r"input 'ids': expected shape \(batch, None\), received"),
        ([X, IDS[:1]], ShapeError, r"same number of rows, received \[2, 1\]"),
        ([X.astype(object), IDS], DTypeError, "input 'x': expected numbers"),
        ([X, IDS + 0.5], DTypeError, "input 'ids': token ids must be whole"),
        ([X, IDS + 9], DataError, "token id 9"),
    ],
)
def test_inputs_of_models(inputs: Any, error: type[Exception], message: str) -> None:
    """The model's and the input's name."""
    with pytest.raises(error, match=message):
        model()(inputs)


def test_graphs_that_are_none() -> None:
    """Arrays instead of symbols, an output that hangs on another input, names used twice."""
    x, other = layers.Input((None, 3), name="x"), layers.Input((None, 3), name="other")
    with pytest.raises(ConfigError, match="must be symbols"):
        Model(X, X)
    with pytest.raises(ConfigError, match="expected inputs and outputs"):
        Model(x)
    with pytest.raises(ConfigError, match="depend on Input 'other'"):
        Model(x, layers.Add()([x, other]))
    with pytest.raises(ConfigError, match="but some are used more than once: same"):
        Model(x, layers.LSTM(2, name="same")(layers.Dense(2, name="same")(x)))
    with pytest.raises(ConfigError, match="'same' is already used"):
        Sequential([layers.Dense(2, name="same"), layers.Dense(2, name="same")])
    with pytest.raises(ConfigError, match="an Input must be the first layer"):
        Sequential([layers.Dense(2), layers.Input((3,))])
    with pytest.raises(ConfigError, match="returns several outputs"):
        Sequential([layers.Input((None, 3)), layers.LSTM(2, return_state=True)])
    with pytest.raises(TypeError, match="expected a layer, received str"):
        Sequential(["LSTM"])
    with pytest.raises(ConfigError, match="not built"):
        Sequential([layers.LSTM(2)]).summary()
    with pytest.raises(ConfigError, match="has no layers"):
        Sequential()(X)
    with pytest.raises(ConfigError, match="has no layer 'there'; it has: x, "):
        Model(x, layers.Dense(2)(x)).get_layer("there")
    with pytest.raises(ShapeError, match="size of its input's last axis must be known"):
        layers.LSTM(2)(layers.Input((None, None)))


def test_sizes_may_be_integers_of_numpy() -> None:
    """They become plain ones, which a config can hold."""
    three = np.int64(3)
    for layer in (layers.LSTM(three), layers.Dense(three), layers.GRUCell(three)):
        assert type(layer.get_config()["units"]) is int
    assert type(layers.Embedding(three, three).output_dim) is int
    assert type(layers.RepeatVector(three).n) is int


def test_masks_of_a_model_with_one_input() -> None:
    """A mask, a list with it, nested lists; what is none is named."""
    x = layers.Input((None, 4))
    one = Model(x, layers.LSTM(2)(x), name="it")
    mask = np.array([[True, False] * 2 + [True]] * 2)
    expected = one(X + 1, mask=mask)
    for same in ([mask], mask.tolist()):
        np.testing.assert_array_equal(one(X + 1, mask=same), expected)
    np.testing.assert_array_equal(one(X + 1, mask=[None]), one(X + 1))
    with pytest.raises(DTypeError, match=r"'it'.*mask must be bool"):
        one(X, mask=[None, None])
    with pytest.raises(ShapeError, match=r"'it'.*expected 2 masks, received 1"):
        Model([x, layers.Input((1,))], layers.LSTM(2)(x), name="it")([X, X[:, :1, 0]], mask=[mask])


@pytest.mark.parametrize("shape", [3, (-1, 3), (1.5,), "ab"])
def test_a_shape_that_is_none(shape) -> None:
    with pytest.raises(ValueError, match="shape must be a tuple of sizes"):
        Input(shape)
