"""What an editor, `dir`, `help` and a typing error show of layers and models."""

import inspect
import json
import pydoc
from functools import partial
from operator import attrgetter

import numpy as np
import pytest

import streamrnn
from streamrnn import Input, Model, Sequential, layers, models
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError
from streamrnn.nn.layers.keras_call import INTERNAL, WHY_MISSING
from streamrnn.nn.training import losses

CLASSES = [
    found
    for name in layers.__all__
    if inspect.isclass(found := getattr(layers, name)) and issubclass(found, layers.Layer)
]
GATED = ["LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell"]


def small():
    return Sequential([Input((None, 8)), layers.LSTM(4, name="lstm")], name="small")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_layer_names_its_arguments(cls):
    """No `*args` hides them; `**kwargs` are those of every layer."""
    kinds = {p.kind for p in inspect.signature(cls).parameters.values()}
    assert inspect.Parameter.VAR_POSITIONAL not in kinds


def test_help_shows_the_arguments_with_defaults():
    text = pydoc.plain(pydoc.render_doc(layers.LSTM))
    for part in (
        "activation: ActivationLike = 'tanh'",
        "return_sequences: 'bool' = False",
        "stateful",
    ):
        assert part.replace("'bool'", "bool") in text.replace("'bool'", "bool")
    assert "States: [h, c]" in text
    assert "Numba can compile" in pydoc.plain(pydoc.render_doc(layers.Cell))


@pytest.mark.parametrize("name", GATED)
def test_each_argument_of_a_recurrent_layer_reaches_its_config(name):
    """Each explicit argument is handed on: another value than the default is kept."""
    cls = getattr(layers, name)
    values = {
        "activation": "relu",
        "recurrent_activation": "hard_sigmoid",
        "use_bias": False,
        "kernel_initializer": "ones",
        "recurrent_initializer": "ones",
        "bias_initializer": "ones",
        "unit_forget_bias": False,
        "reset_after": False,
        "dropout": 0.25,
        "recurrent_dropout": 0.5,
        "seed": 3,
        "return_sequences": True,
        "return_state": True,
        "go_backwards": True,
        "stateful": True,
        "unroll": True,
    }
    parameters = inspect.signature(cls).parameters
    named = {key: value for key, value in values.items() if key in parameters}
    for_training = [p for p in parameters if p.endswith(("_regularizer", "_constraint"))]
    assert set(parameters) - {"units", "kwargs", *for_training} == set(named)
    config = cls(4, **named, **dict.fromkeys(for_training, "l2")).get_config()
    plain = cls(4).get_config()
    for key, value in named.items():
        assert config[key] != plain[key], key
        assert config[key] == value or value == "ones"
    ordered = {p: values.get(p, "l2") for p in parameters if p not in ("units", "kwargs")}
    positional = cls(4, *ordered.values(), name="same").get_config()
    assert positional == {**config, "name": "same"}


def test_rare_arguments_are_taken_too():
    layer = layers.LSTM(4, zero_output_for_mask=True, implementation=1, input_shape=(None, 3))
    assert layer.get_config()["zero_output_for_mask"] is True
    assert layer.batch_input_shape == (None, None, 3)


def made(cls, options):
    """A layer with arguments that a type checker would refuse."""
    return cls(**options)


@pytest.mark.parametrize(
    ("cls", "options", "argument", "near"),
    [
        (layers.LSTM, {"units": 4, "return_seqs": True}, "return_seqs", "return_sequences"),
        (layers.Dense, {"units": 4, "kernel_init": "ones"}, "kernel_init", "kernel_initializer"),
        (layers.StringLookup, {"vocab": ["a"]}, "vocab", "vocabulary"),
        (layers.Add, {"names": "x"}, "names", "name"),
    ],
)
def test_a_misspelled_argument(cls, options, argument, near):
    with pytest.raises(ArgumentError) as caught:
        made(cls, options)
    message = str(caught.value)
    assert f"unknown argument {argument!r}; did you mean {near!r}? (known here: " in message
    known = message.partition("(known here: ")[2].rstrip(")").split(", ")
    assert {near, "name", "trainable"} <= set(known)
    assert not any(name.endswith("_regularizer") for name in known)


def test_an_argument_like_no_other_gets_the_list():
    with pytest.raises(ArgumentError) as caught:
        made(layers.Dense, {"units": 4, "xyz": 1})
    assert "unknown argument 'xyz' (known here: units, activation, " in str(caught.value)


def test_a_recurrent_layer_on_the_last_output_of_another():
    """The message names the layer before and the argument that it lacks."""
    hint = r"from layer 'a' \(\w+\), which returns only its last output; give it return_sequences"
    x = Input((None, 8))
    lstm = layers.LSTM(4, name="a")
    both = layers.Bidirectional(layers.LSTM(4), name="a")
    for before in (lstm, both):
        for after in (
            layers.GRU(3),
            layers.Bidirectional(layers.GRU(3)),
            layers.TimeDistributed(layers.Dense(3)),
            layers.Conv1D(3, 2, padding="causal"),
        ):
            with pytest.raises(ShapeError, match=hint):
                after(before(x))
    with pytest.raises(ShapeError, match=hint):
        Sequential([layers.LSTM(4, name="a"), layers.LSTM(3)])(np.zeros((2, 5, 8)))
    with pytest.raises(ShapeError) as caught:
        layers.LSTM(3)(layers.Dense(4)(Input((8,))))
    assert "return_sequences" not in str(caught.value)


@pytest.mark.parametrize("name", GATED[:3])
def test_a_recurrent_layer_has_the_attributes_that_its_cell_keeps(name):
    """Arguments for training are not among them, neither in the layer nor in the cell."""
    layer = getattr(layers, name)(3, kernel_regularizer="l2")
    assert layer.units == 3
    assert not [name for name in dir(layer) if name.endswith(("_regularizer", "_constraint"))]
    with pytest.raises(AttributeError, match=f"^'{name}' object has no attribute 'kernel_regu"):
        _ = layer.kernel_regularizer


def test_dir_shows_public_names():
    assert dir(layers) == sorted(layers.__all__)
    assert {"Model", "load_model"} <= {*dir(models)} == {*models.__all__}
    for found in (small(), layers.LSTM(4), layers.Dense(3)):
        names = set(dir(found))
        assert not names & INTERNAL
        assert {"weights", "get_config", "summary"} & names
    assert {"predict", "save", "layers", "get_state"} <= set(dir(small()))


def test_hidden_names_exist():
    """An entry that nothing has is a misspelling."""
    have = {name for cls in [*CLASSES, Model, Sequential] for name in vars(cls)}
    have |= {name for cls in layers.LSTM.__mro__ for name in vars(cls)}
    have |= set(vars(layers.LSTM(4))) | {name for c in Sequential.__mro__ for name in vars(c)}
    assert have >= INTERNAL


@pytest.mark.parametrize("name", WHY_MISSING)
def test_a_name_of_keras_that_is_missing_has_a_reason(name):
    with pytest.raises(AttributeError) as caught:
        getattr(small(), name)
    expected = f"'Sequential' object has no attribute {name!r}: {WHY_MISSING[name]}"
    assert str(caught.value) == expected


def test_other_missing_names_are_plain_errors():
    with pytest.raises(AttributeError, match=r"^'Sequential' object has no attribute 'nothing'$"):
        _ = small().nothing
    with pytest.raises(AttributeError, match=r"has no attribute 'backend': arrays are NumPy"):
        _ = attrgetter("backend")(streamrnn)
    with pytest.raises(AttributeError, match=r"models has no 'save_model': use model.save\(path\)"):
        _ = attrgetter("save_model")(models)
    with pytest.raises(AttributeError, match=r"^streamrnn.models has no 'nothing'$"):
        _ = attrgetter("nothing")(models)


def test_the_advice_for_models_works(tmp_path):
    model = small()
    assert models.load_model is streamrnn.load_model
    model.save(tmp_path / "m.safetensors")
    x = np.ones((2, 3, 8), np.float32)
    np.testing.assert_array_equal(models.load_model(tmp_path / "m.safetensors")(x), model(x))
    config = json.loads(json.dumps({"config": model.get_config()}))["config"]
    assert type(model).from_config(config).get_config() == model.get_config()


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (partial(getattr, layers, "Lstm"), "streamrnn.layers has no 'Lstm'; did you mean 'LSTM'?"),
        (partial(getattr, layers, "Dropouts"), "layers has no 'Dropouts'; did you mean 'Dropout'?"),
        (lambda: layers.get("Gru"), "'Gru' is not supported; did you mean 'GRU'?"),
        (lambda: layers.Dense(1, activation="Tanh"), "supported; did you mean 'tanh'? Supported: "),
        (lambda: layers.GRU(1, activation="sigmoids"), "did you mean 'sigmoid'?"),
        (
            lambda: layers.Dense(1, kernel_initializer="glorot_normals"),
            "initializer 'glorot_normals' is not known; did you mean 'glorot_normal'? Known: ",
        ),
        (lambda: layers.LSTM(1, recurrent_initializer="orthogonals"), "did you mean 'orthogonal'?"),
        (lambda: layers.get("MaxPool1D"), "'MaxPool1D' is not supported; did you mean 'MaxPooling"),
    ],
)
def test_a_mistyped_name_gets_a_similar_one(call, near):
    with pytest.raises((AttributeError, UnsupportedError)) as caught:
        call()
    assert near in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        *(partial(layers.get, name) for name in ("EinsumDense", "Equalization")),
        *(partial(getattr, layers, name) for name in ("RandomErasing", "AveragePooling3D")),
        *(partial(layers.Operation, name) for name in ("sin", "einsum", "ravel", "lstsq", "sort")),
        partial(losses.loss_of, "categorical_focal_crossentropy"),
    ],
)
def test_a_name_that_means_something_else_gets_none(call):
    """Keras's Dot was taken for Dropout, and its sin for sign: letters alone made them near."""
    with pytest.raises((AttributeError, ArgumentError, UnsupportedError)) as caught:
        call()
    assert "did you mean" not in str(caught.value)


def test_nothing_is_proposed_for_a_name_like_no_other():
    with pytest.raises(AttributeError, match=r"^streamrnn\.layers has no 'Xyz'$"):
        attrgetter("Xyz")(layers)
    with pytest.raises(UnsupportedError, match=r"'xyz' is not supported; supported: celu, elu"):
        layers.Dense(1, activation="xyz")
