"""Names, configs, initializers, activations: what layers are made from."""

import json
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same, built

import streamrnn
from streamrnn import activations, initializers, layers, regularizers
from streamrnn.errors import DTypeError, UnsupportedError

RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 6, 4)).astype(np.float32)


def test_configs_as_keras_writes_them() -> None:
    """Module, registered name, dtype policy and initializers as nested configs."""
    keras = {
        "module": "keras.layers",
        "class_name": "LSTM",
        "registered_name": None,
        "build_config": {"input_shape": [None, None, 3]},
        "config": {
            "name": "lstm",
            "trainable": True,
            "dtype": {
                "module": "keras",
                "class_name": "DTypePolicy",
                "config": {"name": "float32"},
                "registered_name": None,
            },
            "units": 3,
            "activation": "tanh",
            "kernel_initializer": {
                "module": "keras.initializers",
                "class_name": "GlorotUniform",
                "config": {"seed": None, "input_axes": None, "output_axes": None},
                "registered_name": None,
            },
            "kernel_regularizer": None,
            "bias_constraint": None,
            "activity_regularizer": None,
            "unit_forget_bias": True,
            "seed": None,
            "implementation": 2,
        },
    }
    layer = layers.deserialize(keras)
    assert isinstance(layer, layers.LSTM)
    assert layer.units == 3


@pytest.mark.parametrize(
    "config",
    [
        *({}, {"class_name": "LSTM"}, [], None, "LSTM"),
        *({"class_name": "LSTM", "config": None}, {"class_name": 3, "config": {}}),
    ],
)
def test_configs_that_are_none(config: Any) -> None:
    """Named for what they are, never a traceback."""
    with pytest.raises(UnsupportedError, match="class_name and config"):
        layers.deserialize(config)


def test_a_registered_class_is_found_with_and_without_its_package() -> None:
    """`register_layer` maps a file's class to one of yours; not over ours, not any object."""

    class Ours(layers.GRUCell):
        pass

    streamrnn.register_layer("TheirCell", Ours)
    assert layers.get("TheirCell") is layers.get("their_package>TheirCell") is Ours
    with pytest.raises(UnsupportedError, match="'LSTM'\\): this is a layer of streamrnn"):
        streamrnn.register_layer("LSTM", Ours)
    with pytest.raises(DTypeError, match=r"expected a class derived from layers\.Layer"):
        streamrnn.register_layer("Thing", dict)  # type: ignore[arg-type]


def test_automatic_names() -> None:
    """Counted a class, in snake case; inputs from 1; clear_session starts again."""
    streamrnn.clear_session()
    assert [layers.LSTM(1).name for _ in range(3)] == ["lstm", "lstm_1", "lstm_2"]
    names = [
        layers.SimpleRNN(1).name,
        layers.Conv1D(1, 1, padding="causal").name,
        layers.ReLU().name,
        layers.PReLU().name,
        layers.TimeDistributed(layers.Dense(1)).name,
        layers.Bidirectional(layers.GRU(1)).name,
        layers.RNN(layers.GRUCell(1)).name,
    ]
    assert names == [
        "simple_rnn",
        "conv1d",
        "re_lu",
        "p_re_lu",
        "time_distributed",
        "bidirectional",
        "rnn",
    ]
    assert [layers.Input((1,)).layer.name for _ in range(2)] == ["input_1", "input_2"]
    assert layers.LSTM(1, name="mine").name == "mine"
    streamrnn.clear_session()
    assert layers.LSTM(1).name == "lstm"


@pytest.mark.parametrize(
    ("initializer", "mean", "deviation"),
    [
        ("zeros", 0, 0),
        ("ones", 1, 0),
        (initializers.Constant(3), 3, 0),
        (initializers.RandomUniform(-1, 3, seed=1), 1, 4 / np.sqrt(12)),
        (initializers.RandomNormal(2, 0.5, seed=1), 2, 0.5),
        (initializers.TruncatedNormal(2, 0.5, seed=1), 2, 0.5 * 0.8796),
        (initializers.GlorotUniform(seed=1), 0, np.sqrt(2 / 800)),
        (initializers.GlorotNormal(seed=1), 0, np.sqrt(2 / 800)),
        (initializers.HeUniform(seed=1), 0, np.sqrt(2 / 300)),
        (initializers.HeNormal(seed=1), 0, np.sqrt(2 / 300)),
        (initializers.LecunUniform(seed=1), 0, np.sqrt(1 / 300)),
        (initializers.LecunNormal(seed=1), 0, np.sqrt(1 / 300)),
        (initializers.VarianceScaling(2, "fan_out", "untruncated_normal", 1), 0, np.sqrt(2 / 500)),
    ],
)
def test_initializers(initializer: Any, mean: float, deviation: float) -> None:
    """Mean and deviation of a (300, 500) weight; a seed repeats itself; the config comes back."""
    made = initializers.get(initializer)
    weight = made((300, 500))
    assert weight.dtype == np.float32
    assert weight.mean() == pytest.approx(mean, abs=0.01)
    assert weight.std() == pytest.approx(deviation, rel=0.02, abs=1e-6)
    assert_same(weight, made((300, 500)))
    assert_same(weight, initializers.get(initializers.serialize(made))((300, 500)))


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4), (2, 3, 4)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    """Rows or columns, whichever are fewer, are orthonormal; gain scales them."""
    weight = initializers.Orthogonal(gain=2.0, seed=1)(shape).reshape(-1, shape[-1])
    product = weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_initializers_by_name() -> None:
    """Keras's spellings, classes and numbers; unknown ones are refused."""
    assert isinstance(initializers.get("glorot_uniform"), initializers.GlorotUniform)
    assert isinstance(initializers.get("GlorotUniform"), initializers.GlorotUniform)
    assert isinstance(initializers.get("uniform"), initializers.RandomUniform)
    assert isinstance(initializers.get(initializers.Ones), initializers.Ones)
    assert_same(initializers.Identity(2.0)((3, 3)), 2 * np.eye(3, dtype=np.float32))
    with pytest.raises(
        UnsupportedError,
        match=r"initializer 'glorot' is not known; did you mean 'glorot_\w+'\? Known: ",
    ):
        initializers.get("glorot")
    one, other = (
        layers.LSTM(3, kernel_initializer=initializers.RandomNormal(seed=2)) for _ in "12"
    )
    for layer in (one, other):
        layer.build((None, None, 4))
    assert_same(one.weights[0], other.weights[0])


def test_other_names_of_activations() -> None:
    """swish is silu, None is linear, Keras's nested config too; others list what there is."""
    assert activations.get("swish") == activations.get(activations.swish) == "silu"
    assert activations.get(None) == "linear"
    assert activations.get({"class_name": "function", "config": "relu"}) == "relu"
    with pytest.raises(UnsupportedError, match=r"'nope' is not supported; supported: .*tanh"):
        activations.get("nope")


def test_hard_sigmoid_has_two_slopes() -> None:
    """Keras 3's by that name, Keras 2's by its own."""
    x = np.array([1.0], np.float32)
    assert activations.hard_sigmoid(x) == pytest.approx(1 / 6 + 0.5)
    assert activations.hard_sigmoid_02(x) == pytest.approx(0.7)


def test_weights_are_read_only_and_set_as_copies() -> None:
    """Nothing changes a layer behind its back: the packed weights are always the ones it shows."""
    layer = built("lstm", 3, 4)
    with pytest.raises(ValueError, match="read-only"):
        layer.weights[0][0, 0] = 1
    given = layer.get_weights()
    layer.set_weights(given)
    before = layer(X)
    given[0][:] = 0
    assert_same(layer(X), before)
    layer.set_weights(given)
    assert (layer(X) != before).any()


def test_trainable_parameters() -> None:
    """Moving statistics never count; trainable=False takes all out."""
    layer = layers.BatchNormalization()
    layer.build((None, None, 4))
    assert (layer.count_params(), layer.trainable_params()) == (16, 8)
    still = layers.Bidirectional(layers.GRU(2), trainable=False)
    still.build((None, None, 4))
    assert (still.count_params(), still.trainable_params()) == (96, 0)


class Scaled(layers.Dense):
    """A layer of the package with an argument of its own."""

    def __init__(self, units: int, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.factor = factor

    def apply(self, inputs: Any, context: Any) -> Any:
        return super().apply(inputs, context) * np.float32(self.factor)


def test_an_argument_of_a_subclass_is_in_the_config() -> None:
    layer = Scaled(2, 3.0, activation="tanh", name="scaled")
    config = layer.get_config()
    assert (config["factor"], config["units"], config["activation"]) == (3.0, 2, "tanh")
    again = Scaled.from_config(config)
    assert (again.factor, again.get_config()) == (3.0, config)


class Plain(layers.Dense):
    pass


class Wrapped(layers.Bidirectional):
    pass


class OfCells(layers.RNN):
    pass


@pytest.mark.parametrize(
    "layer",
    [
        Plain(2, activation=activations.tanh, kernel_initializer=initializers.HeNormal()),
        Plain(2, activation=layers.LeakyReLU(0.1), kernel_regularizer=regularizers.L2(0.1)),
        Wrapped(layers.GRU(2)),
        OfCells(layers.GRUCell(2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_subclass_takes_what_its_base_takes(layer: Any) -> None:
    config = json.loads(json.dumps(layer.get_config()))
    assert type(layer).from_config(config).get_config() == layer.get_config()


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(axis=np.int64(-1), epsilon=np.float32(0.5)),
        layers.Dense(3, use_bias=np.bool_(True)),
        layers.Dense(3, kernel_initializer=initializers.Constant(np.float32(0.5))),
        layers.Dense(3, kernel_initializer=initializers.RandomNormal(stddev=np.float32(0.5))),
        layers.Dropout(np.float32(0.5)),
        layers.NotEqual(np.int64(3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_scalar_of_numpy_is_a_number_of_the_config(layer: Any) -> None:
    config = json.loads(json.dumps(layer.get_config()))
    assert type(layer).from_config(config).get_config() == layer.get_config()
