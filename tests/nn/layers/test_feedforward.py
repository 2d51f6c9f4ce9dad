"""Layers without a state, against the oracle; and that they see one step at a time."""

from typing import Any

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.layers.kinds import assert_same

from streamrnn import activations, layers
from streamrnn.errors import ShapeError

QUICK = settings(max_examples=20, deadline=None)
SIZES = st.sampled_from([1, 3, 8, 17])
SEEDS = st.integers(0, 2**32 - 1)


def ready(layer: Any, features: int, seed: int) -> Any:
    """Built, with random weights (variances positive)."""
    layer.build((None, None, features))
    rng = np.random.default_rng(seed)
    layer.set_weights(
        [
            np.abs(rng.normal(size=w.shape)) + 0.1
            if "variance" in name
            else rng.normal(size=w.shape)
            for name, w in layer.named_weights().items()
        ]
    )
    return layer


def inputs(seed: int, features: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 3, features)).astype(np.float32)


def close(mine: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


@given(seed=SEEDS, features=SIZES, units=SIZES, bias=st.booleans())
@QUICK
def test_dense(seed: int, features: int, units: int, bias: bool) -> None:
    """Any sizes, with and without bias, on two axes as on three."""
    layer = ready(layers.Dense(units, "tanh", use_bias=bias), features, seed)
    x = inputs(seed, features)
    close(layer(x), naive.dense(x, *layer.get_weights(), activation="tanh"))
    assert_same(layer(x[:, 1]), layer(x)[:, 1])


@given(seed=SEEDS, taps=st.integers(1, 4), dilation=st.integers(1, 3), features=SIZES, units=SIZES)
@QUICK
def test_conv1d(seed: int, taps: int, dilation: int, features: int, units: int) -> None:
    """Causal, any kernel size and dilation, also longer than the input."""
    layer = layers.Conv1D(units, taps, padding="causal", dilation_rate=dilation, activation="relu")
    ready(layer, features, seed)
    x = inputs(seed, features)
    kernel, bias = layer.get_weights()
    close(layer(x), naive.conv1d_causal(x, kernel, bias, dilation, "relu"))


@given(seed=SEEDS, features=SIZES)
@QUICK
def test_normalisations(seed: int, features: int) -> None:
    """LayerNormalization, BatchNormalization, Normalization and back."""
    x = inputs(seed, features) * 3
    layer = ready(layers.LayerNormalization(epsilon=0.01), features, seed)
    close(layer(x), naive.layer_normalization(x, *layer.get_weights(), epsilon=0.01))
    batch = ready(layers.BatchNormalization(), features, seed)
    gamma, beta, mean, variance = batch.get_weights()
    close(batch(x), naive.batch_normalization(x, mean, variance, gamma, beta))
    scaled = ready(layers.Normalization(), features, seed)
    mean, variance, _ = scaled.get_weights()
    close(scaled(x), naive.normalization(x, mean, variance))
    back = layers.Normalization(mean=mean, variance=variance, invert=True)
    close(back(scaled(x)), x)


def test_normalization_learns_by_adapt() -> None:
    """Mean and variance of each feature, over rows and steps."""
    x = inputs(1, 4) * [1, 10, 100, 0] + [0, 5, -5, 3]
    layer = layers.Normalization()
    layer.adapt(x)
    y = layer(x)
    close(y.mean(axis=(0, 1)), np.zeros(4))
    close(y.std(axis=(0, 1)), [1, 1, 1, 0])
    single = layers.Normalization(axis=None)
    single.adapt(x)
    close(single(x).mean(), 0)


@pytest.mark.parametrize("axis", [-1, None])
def test_normalization_learns_from_batches_what_it_learns_from_all(axis: int | None) -> None:
    """Batches of different sizes, of a list or a generator, with labels or without."""
    x = np.random.default_rng(3).normal([0, 50, -1000], [1, 3, 0.01], (11, 2, 3))
    whole = layers.Normalization(axis=axis)
    whole.adapt(x)
    parts = [x[:2], x[2:3], x[3:3], x[3:]]
    for data in (parts, iter(parts), ((part, np.zeros(len(part))) for part in parts)):
        layer = layers.Normalization(axis=axis)
        layer.adapt(data)
        for found, expected in zip(layer.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-7)
    with pytest.raises(ShapeError, match=r"shape \(2, 4\): the layer was built for 3"):
        layers.Normalization().adapt([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ShapeError, match="must have a known shape"):
        layers.Normalization().build((None, None))


def test_rescaling() -> None:
    """A number or one a feature."""
    x = inputs(2, 3)
    close(layers.Rescaling(2.5, -1)(x), naive.rescaling(x, 2.5, -1.0))
    scale, offset = [1.0, -2.0, 0.5], [0.0, 1.0, 2.0]
    close(layers.Rescaling(scale, offset)(x), naive.rescaling(x, scale, offset))


@pytest.mark.parametrize(
    ("layer", "name", "parameters"),
    [
        (layers.ReLU(), "relu", {}),
        (layers.ELU(0.5), "elu", {"alpha": 0.5}),
        (layers.LeakyReLU(0.1), "leaky_relu", {"negative_slope": 0.1}),
        (layers.LeakyReLU(), "leaky_relu", {"negative_slope": 0.3}),
        (layers.LeakyReLU(alpha=0.2), "leaky_relu", {"negative_slope": 0.2}),
        (layers.Softmax(), "softmax", {}),
        (layers.Activation("gelu"), "gelu", {}),
        (layers.Activation(activations.softsign), "softsign", {}),
    ],
)
def test_activations_as_layers(layer: Any, name: str, parameters: dict[str, float]) -> None:
    """Arguments under their names in Keras 3 and 2."""
    x = inputs(3, 5)
    close(layer(x), naive.activation(x, name, **parameters))


def test_relu_with_all_arguments() -> None:
    """max_value, negative_slope and threshold, at and around the edges, as in Keras 3."""
    x = np.array([[-1, 0.1, 0.2, 0.3, 0.9, 1.0, 5]], np.float32)
    y = layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)(x)
    close(y, [[-0.12, -0.01, 0, 0.3, 0.9, 1.0, 1.0]])


def test_prelu() -> None:
    """One alpha a feature, shared over time."""
    layer = ready(layers.PReLU(shared_axes=[1]), 3, 4)
    x = inputs(4, 3)
    close(layer(x), naive.prelu(x, layer.get_weights()[0][0]))


def test_shapes() -> None:
    """Flatten, Reshape and RepeatVector keep the order of values."""
    x = inputs(5, 4)
    np.testing.assert_array_equal(layers.Flatten()(x), x.reshape(2, 12))
    np.testing.assert_array_equal(layers.Reshape((4, 3))(x), x.reshape(2, 4, 3))
    np.testing.assert_array_equal(layers.Reshape((-1, 2))(x), x.reshape(2, 6, 2))
    repeated = layers.RepeatVector(3)(x[:, 0])
    np.testing.assert_array_equal(repeated, np.stack([x[:, 0]] * 3, axis=1))
    assert layers.Flatten()(layers.Input((None, 4))).shape == (None, None)
    assert layers.Reshape((-1, 2))(layers.Input((3, 4))).shape == (None, 6, 2)
    assert layers.RepeatVector(3)(layers.Input((4,))).shape == (None, 3, 4)


def test_time_distributed() -> None:
    """Each step of each row is a row of its own for the layer inside, recurrent ones too."""
    x = np.random.default_rng(6).normal(size=(2, 3, 4, 5)).astype(np.float32)
    lstm = layers.LSTM(3)
    assert_same(layers.TimeDistributed(lstm)(x)[1, 2], lstm(x[1, 2:3])[0])
    dense = layers.Dense(2)
    assert_same(layers.TimeDistributed(dense)(x[:, :, 0]), dense(x[:, :, 0]))
    assert layers.TimeDistributed(lstm)(layers.Input((None, 4, 5))).shape == (None, None, 3)


def test_merges() -> None:
    """Element by element, two or more inputs, one feature for all as well; or side by side."""
    a, b, c = inputs(7, 4), inputs(8, 4), inputs(9, 4)
    for kind, expected in {
        "Add": a + b + c,
        "Multiply": a * b * c,
        "Average": (a + b + c) / np.float32(3),
        "Maximum": np.maximum(np.maximum(a, b), c),
        "Minimum": np.minimum(np.minimum(a, b), c),
        "Concatenate": np.concatenate([a, b, c], axis=-1),
    }.items():
        assert_same(getattr(layers, kind)()([a, b, c]), expected)
    assert_same(layers.Subtract()([a, b]), a - b)
    assert_same(layers.Multiply()([a, b[:, :, :1]]), a * b[:, :, :1])
    assert_same(layers.Concatenate(axis=1)([a, b]), np.concatenate([a, b], axis=1))


def test_embedding() -> None:
    """Rows of the table, for ids of any integer type, also whole floats."""
    layer = layers.Embedding(6, 3)
    layer.build((None, None))
    ids = np.array([[0, 5, 2], [1, 1, 3]])
    for dtype in (np.int64, np.uint8, np.int32, np.float32):
        close(layer(ids.astype(dtype)), naive.embedding(ids, layer.get_weights()[0]))
    assert abs(layer.get_weights()[0]).max() <= 0.05


def test_a_prelu_shares_the_axes_that_keras_shares() -> None:
    """From 1; Keras takes the axis - 1 of a list, so that 0 is the last axis, -1 the one before."""
    x = np.ones((2, 3, 4), np.float32)
    for axes, shape in ((1, (1, 4)), (2, (3, 1)), (0, (3, 1)), (-1, (1, 4)), ((1, 2), (1, 1))):
        layer = layers.PReLU(shared_axes=axes)
        layer(x)
        assert layer.alpha.shape == shape


def test_a_prelu_is_for_one_number_of_steps() -> None:
    """An alpha of each step fits only as many steps, and never the rows of a batch."""
    layer = layers.PReLU(name="it")
    layer(np.ones((2, 3, 4), np.float32))
    for shape in ((2, 5, 4), (3, 4)):
        with pytest.raises(ShapeError, match=r"'it' .*alpha of shape \(3, 4\) does not fit"):
            layer(np.ones(shape, np.float32))
    assert layers.PReLU("ones")(-np.ones(3, np.float32)).tolist() == [-1, -1, -1]
