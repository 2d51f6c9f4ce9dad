"""Weights as attributes of layers, with the methods of Keras's variables."""

import copy
import pickle
from typing import Any, cast

import numpy as np
import pytest

from streamrnn import Input, Sequential, initializers, layers
from streamrnn.errors import ArgumentError, ConfigError, ShapeError

X = np.random.default_rng(3).normal(size=(2, 5, 3)).astype(np.float32)


def dense() -> layers.Dense:
    layer = layers.Dense(4, name="head")
    layer.build((None, 3))
    return layer


def test_a_weight_has_the_name_path_and_type_that_keras_gives_it() -> None:
    kernel = dense().kernel
    assert (kernel.name, kernel.path, kernel.shape) == ("kernel", "head/kernel", (3, 4))
    assert (kernel.dtype, kernel.trainable) == ("float32", True)
    assert type(kernel.numpy()) is np.ndarray
    assert kernel.numpy().flags.writeable


def test_an_assigned_weight_changes_what_the_layer_computes() -> None:
    """Also after a first call, which packs the weights for the kernel."""
    layer = dense()
    layer(X)
    layer.kernel.assign(np.ones((3, 4)))
    layer.bias.assign_add([1, 2, 3, 4])
    layer.bias.assign_sub([1, 1, 1, 1])
    expected = X.sum(-1, keepdims=True) + np.arange(4)
    np.testing.assert_allclose(layer(X), expected, atol=1e-6)
    layer.kernel = np.zeros((3, 4))
    assert (layer(X) == [0, 1, 2, 3]).all()
    lstm = layers.LSTM(2)
    lstm(X)
    for weight in lstm.weights:
        weight.assign(np.zeros(weight.shape))
    assert not lstm(X).any()


def test_a_wrong_value_is_refused_and_changes_nothing() -> None:
    layer = dense()
    before, part = layer.kernel.numpy(), cast(Any, np.ndarray.__getitem__(layer.kernel, slice(1)))
    with pytest.raises(ShapeError, match="shape of the target variable"):
        layer.kernel.assign(np.ones((4, 3)))
    with pytest.raises(ValueError, match="read-only"):
        layer.kernel[0, 0] = 1
    with pytest.raises(ConfigError, match="no layer"):
        part.assign(0)
    assert (layer.kernel == before).all()


def test_what_is_computed_from_a_weight_is_a_plain_array() -> None:
    kernel: Any = dense().kernel
    made = [kernel + 1, X @ kernel, kernel[0], kernel.T, np.abs(kernel), kernel.copy(), -kernel]
    made += [np.asarray(kernel), kernel.reshape(-1), copy.copy(kernel), kernel.sum(axis=0)]
    assert {type(array) for array in made} == {np.ndarray}
    assert isinstance(kernel.sum(), np.float32)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_weights_of_a_copy_are_its_own(duplicate: Any) -> None:
    layer = dense()
    made = duplicate(layer)
    made.kernel.assign(np.zeros((3, 4)))
    assert not made(X).any()
    assert layer(X).any()
    assert made.kernel.path == "head/kernel"


def test_layers_name_their_weights() -> None:
    norm = layers.BatchNormalization()
    norm.build((None, 3))
    assert [w.name for w in norm.variables] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert norm.gamma.shape == norm.moving_variance.shape == (3,)
    assert [w.name for w in norm.trainable_variables] == ["gamma", "beta"]
    assert [w.name for w in norm.non_trainable_variables] == ["moving_mean", "moving_variance"]
    assert layers.LayerNormalization(center=False).beta is None
    table = layers.Embedding(5, 2)
    table.build()
    assert table.embeddings.shape == (5, 2)
    gru = layers.GRU(2, activation="relu", dropout=0.5)
    gru.build((None, None, 3))
    assert gru.cell.recurrent_kernel.shape == (2, 6)
    assert gru.activation == gru.cell.activation
    assert (gru.dropout, gru.reset_after, layers.LSTM(2).unit_forget_bias) == (0.5, True, True)


def test_a_weight_that_is_not_there_is_named() -> None:
    layer = layers.Dense(2, use_bias=False)
    with pytest.raises(AttributeError, match="build the layer before accessing `kernel`"):
        _ = layer.kernel
    layer.build((None, 3))
    assert layer.bias is None
    assert not hasattr(layer, "gamma")
    assert "kernel" in dir(layer)
    assert "gamma" not in dir(layer)


def test_weights_can_be_frozen_one_by_one() -> None:
    layer = dense()
    layer.bias.trainable = False
    assert [w.name for w in layer.trainable_weights] == ["kernel"]
    model = Sequential([Input((3,)), layer])
    model.compile("sgd", "mse")
    assert [name.rpartition("/")[2] for name in model.gradients(X[0], np.zeros((5, 4)))] == [
        "kernel"
    ]


class Pair(layers.Layer):
    """Its second weight may take the name of the first; it fails to build for other sizes."""

    def __init__(self, second: str) -> None:
        super().__init__()
        self.second = second

    def build(self, input_shape: Any) -> None:
        self.first = self.add_weight("rate", input_shape[-1:], "ones")
        if input_shape[-1] != 3:
            raise ShapeError("expected 3 features")
        self.other = self.add_weight(self.second, input_shape[-1:], "ones")

    def call(self, inputs: Any) -> Any:
        return inputs * self.first + self.other


def test_weights_of_a_layer_have_different_names() -> None:
    """The first of two weights was in no file: a loaded layer computed with another one."""
    with pytest.raises(ArgumentError, match=r"pair.*two weights have the name 'rate'"):
        Pair("rate")(X)
    pair = Pair("level")
    with pytest.raises(ShapeError, match="expected 3 features"):
        pair(X[..., :2])
    assert pair.weights == []
    assert (pair(X) == X + 1).all()


def test_a_custom_layer_that_was_built_is_not_built_again() -> None:
    """Its `build` need not set `built`; the call refused the names of its weights as repeated."""
    pair = Pair("level")
    pair.build((None, 3))
    assert pair.built
    pair.set_weights([np.full(3, 2.0), np.zeros(3)])
    assert (pair(X) == 2 * X).all()


def test_initial_values_have_the_shape_of_the_weight() -> None:
    """Kernels would read past the end of others."""

    class Single(initializers.Initializer):
        def __call__(self, shape: Any, dtype: object = None) -> Any:
            return np.ones(1, np.float32)

    with pytest.raises(ShapeError, match=r"'recurrent_kernel'.* shape \(4, 12\), received \(1,\)"):
        layers.GRU(4, recurrent_initializer=Single())(X)
    with pytest.raises(ShapeError, match=r"'bias'.* shape \(16,\), received \(1,\)"):
        layers.LSTM(4, bias_initializer=Single())(X)


def test_a_custom_layer_may_use_these_names_for_anything() -> None:
    class Own(layers.Layer):
        stepwise = True

        def build(self, input_shape: Any) -> None:
            self.kernel = self.add_weight((3, 2), "ones", name="w")
            self.gamma = 0.5
            self.scalar = self.add_weight()

        def apply(self, inputs: Any, context: Any) -> Any:
            return inputs @ self.kernel * self.gamma + self.scalar

    layer = Own(name="own")
    np.testing.assert_allclose(layer(X), X.sum(-1, keepdims=True).repeat(2, -1) / 2, rtol=1e-5)
    assert [w.path for w in layer.weights] == ["own/w", "own/variable"]
    assert layer.gamma == 0.5
    del layer.gamma
    assert not hasattr(layer, "gamma")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Dropout(1.5), "Expected a float value between 0 and 1"),
        (lambda: layers.Dropout(0.5, noise_shape=5), "Expected an iterable of integers"),
        (lambda: layers.Dropout(0.5, noise_shape=(1, -2)), "negative or zero value at index 1"),
        (lambda: layers.Dropout(0.5, noise_shape=(1, 2.5)), "all elements to be integers or None"),
        (lambda: layers.Embedding(3.7, 2), "`input_dim` must be a positive integer"),
        (lambda: layers.Embedding(3, 4, weights=np.ones((3, 4))), r"weights=<array \(3, 4\)>"),
        (lambda: layers.Embedding(3, 4, weights=[[1.0] * 4] * 3), "weights=<3 values>"),
        (lambda: layers.Reshape((2.5,)), "`target_shape` must be a tuple of integers"),
        (lambda: layers.Reshape((-2,)), "`target_shape` must be a tuple of integers"),
        (lambda: layers.RepeatVector(0), "`n` should be a positive integer"),
        (lambda: layers.RepeatVector("2"), "Expected an integer value for `n`"),
        (lambda: initializers.VarianceScaling(scale=-1), "`scale` must be positive float"),
        (lambda: initializers.VarianceScaling(mode="x"), "Invalid `mode` argument: x"),
        (lambda: initializers.VarianceScaling(distribution="x"), "Invalid `distribution`"),
        (lambda: layers.Input((2,), batch_shape=(1, 2)), "both `shape` and `batch_shape`"),
        (lambda: layers.Subtract().build(((2, 3),)), "exactly 2 inputs"),
        (lambda: layers.Add().compute_mask([X, X], X), "`mask` should be a list"),
        (lambda: layers.Add().compute_mask(X, [None]), "`inputs` should be a list"),
        (lambda: layers.Add().compute_mask([X, X], [None]), "should have the same length"),
    ],
)
def test_wrong_arguments_are_refused_in_the_words_of_keras(make: Any, message: str) -> None:
    with pytest.raises((ArgumentError, ShapeError), match=message):
        make()


def test_merging_layers_are_built_with_lists_and_tuples_of_shapes() -> None:
    for shapes in ([(None, 3), (None, 3)], ((None, 3), (None, 3))):
        layer = layers.Add()
        layer.build(shapes)
        assert layer.built
