"""The native format: round trips, the form of the file, damage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same
from safetensors import safe_open
from safetensors.numpy import save_file

import streamrnn
from streamrnn import Input, Model, Sequential, initializers, layers, register_layer
from streamrnn.errors import MissingFileError, ModelFileError, UnsupportedError

RNG = np.random.default_rng(8)
X = RNG.normal(size=(2, 4, 3)).astype(np.float32)


def everything() -> Model:
    """A graph with most layers, two inputs, a shared layer, nested models and passed states."""
    x, ids = Input((None, 3), name="x"), Input((None,), name="ids")
    y = layers.Normalization(mean=[0, 1, 2], variance=[1, 2, 3])(layers.Masking()(x))
    y = layers.Conv1D(4, 2, padding="causal")(layers.Rescaling(2.0)(y))
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(y)
    y = layers.BatchNormalization()(layers.LayerNormalization()(y))
    y = layers.PReLU(shared_axes=[1])(layers.Dropout(0.5)(y))
    y = layers.RNN([layers.GRUCell(4), layers.LSTMCell(2)], return_sequences=True)(y)
    inner = Sequential([Input((None, 2)), layers.TimeDistributed(layers.Dense(3))], name="a/b")
    y = inner(y)
    embedded = layers.Embedding(5, 3, mask_zero=True)(ids)
    gru = layers.GRU(3, return_state=True, name="shared")
    z, h = gru(embedded)
    w, _ = gru(y, initial_state=[h])
    return Model([x, ids], [layers.Concatenate()([z, w]), layers.Softmax()(layers.ReLU()(w))])


IDS = RNG.integers(0, 5, (2, 6))


def test_a_model_comes_back_the_same(tmp_path: Path) -> None:
    """Outputs bit for bit, config, names and fingerprint."""
    model, path = everything(), tmp_path / "model.safetensors"
    model.save(path)
    again = streamrnn.load_model(path)
    assert_same(again([X, IDS]), model([X, IDS]))
    assert again.fingerprint() == model.fingerprint()
    assert again.get_config() == model.get_config()
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_sequential_comes_back_as_one(tmp_path: Path) -> None:
    """Also one that was built by its first call; stateful stays as it was."""
    model = Sequential([layers.LSTM(3, stateful=True), layers.Dense(1)], name="mine")
    model(X)
    model.save(tmp_path / "m.safetensors")
    again = streamrnn.load_model(str(tmp_path / "m.safetensors"))
    assert isinstance(again, Sequential)
    assert again.name == "mine"
    model.reset_state()
    assert_same([again(X), again(X)], [model(X), model(X)])


class Bare(Model):
    """A graph whose constructor makes its layers, without names, and does not take its config."""

    def __init__(self, units: int = 3, **kwargs: Any) -> None:
        x = Input((None, 3))
        super().__init__(x, layers.Dense(1)(layers.GRU(units, return_sequences=True)(x)), **kwargs)
        self.units = units


class Forecast(Bare):
    """It has a config of its own."""

    def get_config(self) -> dict[str, object]:
        return {"units": self.units, "name": self.name}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)


class Stack(Sequential):
    """Its constructor adds layers, and from_config adds them again."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add(layers.GRU(2))


class Gain(layers.Layer):
    """It forgets a part of its config."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.add_weight("gain", (self.units,), "ones")

    def call(self, inputs: Any) -> Any:
        return inputs * self.weights[0]

    def get_config(self) -> dict[str, object]:
        return {"name": self.name}


class Halves(initializers.Initializer):
    """One of a user."""

    def draw(self, shape: tuple[int, ...]) -> Any:
        return np.full(shape, 0.5)


class Offset(layers.Layer):
    """It keeps an initializer that is no argument."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = Halves()

    def build(self, input_shape: Any) -> None:
        self.add_weight("offset", (3,), self.first)

    def call(self, inputs: Any) -> Any:
        return inputs + self.weights[0]


@pytest.fixture
def registered() -> None:
    for cls in (Forecast, Bare, Stack, Gain, Offset):
        register_layer(cls.__name__, cls)


@pytest.mark.usefixtures("registered")
def test_a_model_of_a_users_class_comes_back_as_one(tmp_path: Path) -> None:
    """Whatever names its layers have by then, also within another model."""
    layers.GRU(1)
    for model in (
        Forecast(4),
        Sequential([Input((None, 3)), Forecast(2, name="inner")]),
        Sequential([Input((None, 3)), Offset()]),
    ):
        model.save(tmp_path / "m.safetensors")
        again = streamrnn.load_model(tmp_path / "m.safetensors")
        assert type(again) is type(model)
        assert_same(again(X), model(X))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Bare, "'Bare' cannot be made from its config: .*get_config"),
        (lambda: Sequential([Input((3,)), Gain(3)]), "'Gain' cannot be made from its config"),
        (Stack, "an Input must be the first layer"),
        (
            lambda: Sequential([Input((3,)), layers.Dense(2, kernel_initializer=Halves())]),
            "the class of its kernel_initializer is not of this package",
        ),
    ],
)
def test_what_would_not_be_read_back_is_not_written(
    make: Any, message: str, tmp_path: Path
) -> None:
    """The file was refused in the process that read it. Each piece of advice works."""
    model = make()
    rows = X[:, 0] if model.built and len(model.input_shape) == 2 else X
    y, path = model(rows), tmp_path / "m.safetensors"
    with pytest.raises(UnsupportedError, match=f"a file could not be read back: .*{message}"):
        model.save(path)
    assert not path.exists()
    if isinstance(model, Bare | Stack):
        Model(model.inputs, model.outputs).save(path)
    elif "initializer" in message:
        model.layers[0].kernel_initializer = initializers.Zeros()
        model.save(path)
    else:
        return
    assert_same(streamrnn.load_model(path)(rows), y)


def test_the_form_of_the_file(tmp_path: Path) -> None:
    """A plain safetensors file: float32 weights by name, the config as JSON."""
    model = Sequential([Input((None, 3)), layers.GRU(2, name="gru")], name="m")
    model.save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        metadata = file.metadata()
        names = set(file.keys())
        kernel = file.get_tensor("gru/cell/kernel")
    assert names == {"gru/cell/kernel", "gru/cell/recurrent_kernel", "gru/cell/bias"}
    assert (metadata["format"], metadata["version"]) == ("streamrnn", "1")
    assert json.loads(metadata["config"])["class_name"] == "Sequential"
    assert json.loads(metadata["order"])[0] == "gru/cell/kernel"
    assert_same(kernel, model.weights[0])


def test_a_native_file_has_no_name_of_another_format(tmp_path: Path) -> None:
    model = Sequential([Input((None, 2)), layers.Dense(1)])
    with pytest.raises(UnsupportedError, match="the ending of a PyTorch state_dict"):
        model.save(tmp_path / "m.torch.safetensors")
    assert not [*tmp_path.iterdir()]


def test_load_weights(tmp_path: Path) -> None:
    """Into a model of the same layers, by name, or in order where names differ."""

    def make(name: str) -> Sequential:
        return Sequential([Input((None, 3)), layers.LSTM(2, name=name), layers.Dense(1)])

    model = make("one")
    model.save(tmp_path / "m.safetensors")
    for other in (make("one"), make("other")):
        other.load_weights(tmp_path / "m.safetensors")
        assert_same(other(X), model(X))
    with pytest.raises(ModelFileError, match="weights missing from the file: gru/cell/kernel"):
        Sequential([Input((None, 3)), layers.GRU(2, name="gru")]).load_weights(
            tmp_path / "m.safetensors"
        )


def rewritten(path: Path, weights: Any = None, **metadata: str) -> Path:
    """The same file with other weights or metadata."""
    with safe_open(path, framework="numpy") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kept = {**file.metadata(), **metadata}
    save_file(weights(old) if weights else old, path, {k: v for k, v in kept.items() if v})
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    Sequential([Input((None, 3)), layers.GRU(2, name="gru")], name="m").save(path)
    return path


def with_nan(old: dict[str, Any]) -> dict[str, Any]:
    old["gru/cell/bias"][0, 1] = np.nan
    return old


@pytest.mark.parametrize(
    ("weights", "metadata", "message"),
    [
        (with_nan, {}, "gru/cell/bias contains NaN or infinity"),
        (lambda old: {**old, "more": old["gru/cell/bias"]}, {}, "no layer uses: more"),
        (
            lambda old: {"gru/cell/kernel": old["gru/cell/kernel"]},
            {},
            r"missing from the file: gru/cell/recurrent_kernel \(2, 6\), gru/cell/bias",
        ),
        (
            lambda old: {**old, "gru/cell/kernel": old["gru/cell/kernel"][:2].copy()},
            {},
            r"gru/cell/kernel has shape \(2, 6\), .* \(3, 6\)",
        ),
        (None, {"format": ""}, "is not a streamrnn model"),
        (None, {"version": "9"}, "version '9' of the native format"),
        (None, {"config": "{"}, "config is not valid JSON"),
        (None, {"config": "[]"}, r"config is not a JSON object: \[\]"),
        (None, {"config": '{"class_name": "Sequential", "config": {"layers": 3}}'}, "damaged"),
        (
            None,
            {"config": '{"class_name": "Dense", "config": {"units": 1}}'},
            "config does not describe a model",
        ),
        (None, {"config": '{"class_name": "Lambda", "config": {}}'}, "'Lambda' is not supported"),
    ],
)
def test_damage_is_named(saved: Path, weights: Any, metadata: dict[str, str], message: str) -> None:
    """One error with the file's path, whatever is wrong in it."""
    rewritten(saved, weights, **metadata)
    with pytest.raises((ModelFileError, UnsupportedError), match=message) as caught:
        streamrnn.load_model(saved)
    assert str(saved) in str(caught.value)


def test_truncated_and_foreign_files(saved: Path, tmp_path: Path) -> None:
    """Not there, cut short, not a model, a pickle."""
    data = saved.read_bytes()
    for size in (0, 5, 100, len(data) - 1):
        saved.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match="damaged"):
            streamrnn.load_model(saved)
    with pytest.raises(MissingFileError, match="no such"):
        streamrnn.load_model(tmp_path / "nothing.safetensors")
    with pytest.raises(UnsupportedError, match=r"the suffix \.safetensors \(.*streamrnn convert"):
        Sequential([Input((3,)), layers.Dense(1)]).save(tmp_path / "m.h5")


def test_a_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced whole or not at all, and no temporary is left."""
    before = saved.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streamrnn.nn.formats.guard.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        streamrnn.load_model(saved).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
