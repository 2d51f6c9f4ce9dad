"""PyTorch computes what a written module and its state_dict say; this package reads them back."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="needs the oracles extra")

from contracts.models import with_weights  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn import Input, Model, Sequential, layers  # noqa: E402
from streamrnn.errors import ConfigError, UnsupportedError  # noqa: E402
from streamrnn.nn.formats.convert import convert  # noqa: E402

ROOT = Path(__file__).parents[3]


def chain(*parts: layers.Layer, features: int = 3) -> Model:
    return with_weights(Sequential([Input((None, features)), *parts]))


def both(layer: layers.Layer, **options: Any) -> layers.Layer:
    return layers.Bidirectional(layer, **options)


MODELS = {
    "LSTM": lambda: [layers.LSTM(4, return_sequences=True), layers.LSTM(3)],
    "LSTM/no_bias": lambda: [layers.LSTM(4, use_bias=False, dropout=0.2)],
    "GRU": lambda: [layers.GRU(4, return_sequences=True), layers.GRU(3)],
    "GRU/no_bias": lambda: [layers.GRU(4, use_bias=False)],
    "SimpleRNN": lambda: [layers.SimpleRNN(4, return_sequences=True), layers.SimpleRNN(3, "relu")],
    "Bidirectional": lambda: [
        both(layers.LSTM(4, return_sequences=True)),
        both(layers.GRU(3, return_sequences=True)),
        both(layers.SimpleRNN(2)),
    ],
    "Dense": lambda: [layers.Dense(4, "elu"), layers.Dense(2, "softmax", use_bias=False)],
    "Gaussian": lambda: [layers.GRU(4, return_sequences=True), layers.Dense(6), layers.Gaussian()],
    "Gaussian/rescaled": lambda: [  # as a fit writes it
        layers.Dense(2),
        layers.Gaussian(),
        layers.Rescaling([40.0, 40.0], offset=[500.0, 0.0]),
    ],
    "LayerNormalization": lambda: [layers.LayerNormalization(epsilon=0.1)],
    "BatchNormalization": lambda: [
        layers.BatchNormalization(),
        layers.LSTM(4),
        layers.BatchNormalization(center=False, scale=False),
    ],
    "scales": lambda: [
        layers.Normalization(mean=[1, 2, 3], variance=[2, 0, 0.5]),
        layers.Normalization(),
        layers.Normalization(invert=True),
        layers.Dense(2),
        layers.Rescaling([0.1, 3], offset=7),
    ],
    "activations": lambda: [
        layers.LeakyReLU(0.1),
        layers.ELU(0.5),
        layers.ReLU(),
        layers.ReLU(max_value=6),
        layers.ReLU(max_value=0.5),
        *(layers.Dense(3, name) for name in ("gelu", "mish", "selu", "silu", "softplus", "relu6")),
        *(layers.Dense(3, name) for name in ("leaky_relu", "hard_sigmoid", "hard_silu")),
        *(layers.Activation(name) for name in ("softsign", "exponential", "tanh", "sigmoid")),
        *(layers.Dense(3, name) for name in ("celu", "hard_tanh", "log_sigmoid", "tanh_shrink")),
        *(layers.Dense(3, name) for name in ("hard_shrink", "soft_shrink")),
        layers.Dropout(0.5),
        layers.Softmax(),
        layers.Dense(4, "log_softmax"),
    ],
}


def module_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Model()


def assert_written(source: Path, x: np.ndarray, folder: Path) -> None:
    """The module gives what the model gives; read again, weights and outputs have the same bits."""
    target = folder / "m.torch.safetensors"
    convert(source, target, module=folder / "m.py")
    model, again = streamrnn.load_model(source), streamrnn.load_model(target, strict=True)
    read = again.named_weights()
    for name, weight in model.named_weights().items():
        if not name.endswith(("/count", "/mean", "/variance")):  # arguments, once read
            assert read.pop(name).tobytes() == weight.tobytes()
    assert not read
    wanted = model(x)
    assert again(x).tobytes() == wanted.tobytes()
    with torch.no_grad():
        made = module_of(folder / "m.py")(torch.tensor(x)).numpy()
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_that_is_written(name: str, tmp_path: Path) -> None:
    chain(*MODELS[name]()).save(tmp_path / "m.safetensors")
    x = np.random.default_rng(1).normal(size=(5, 6, 3)).astype(np.float32)
    assert_written(tmp_path / "m.safetensors", x, tmp_path)


def test_ids_into_an_embedding(tmp_path: Path) -> None:
    model = Sequential([Input((None,), dtype="int64"), layers.Embedding(9, 4), layers.GRU(3)])
    with_weights(model).save(tmp_path / "m.safetensors")
    ids = np.random.default_rng(1).integers(0, 9, (2, 5))
    assert_written(tmp_path / "m.safetensors", ids, tmp_path)


def test_the_trained_model_of_the_weather(tmp_path: Path) -> None:
    source = ROOT / "pipelines" / "weather" / "model.safetensors"
    features = streamrnn.load_model(source).input_specs[0][1][-1]
    x = np.random.default_rng(2).normal(size=(2, 9, features)).astype(np.float32)
    assert_written(source, x, tmp_path)


def test_a_bias_of_minus_zero_keeps_its_sign(tmp_path: Path) -> None:
    model = chain(layers.LSTM(4))
    model.set_weights([-w * 0 for w in model.get_weights()])
    model.save(tmp_path / "m.safetensors")
    assert_written(tmp_path / "m.safetensors", np.ones((1, 2, 3), np.float32), tmp_path)


REFUSED = {
    "PyTorch's GRU has reset_after=True": lambda: [layers.GRU(4, reset_after=False)],
    "have tanh and sigmoid": lambda: [layers.LSTM(4, "relu")],
    "only the second direction .* goes backwards": lambda: [layers.GRU(4, go_backwards=True)],
    "merge_mode='concat'": lambda: [both(layers.GRU(4), merge_mode="sum")],
    "scale and center must be both": lambda: [layers.LayerNormalization(center=False)],
    "it has no array": lambda: [layers.LayerNormalization(center=False, scale=False)],
    "the activation 'squareplus'": lambda: [layers.Dense(2, "squareplus")],
    "the activation .*relu.*2.0": lambda: [layers.ReLU(threshold=2.0)],
    "the activation .*gelu.*cannot be written": lambda: [layers.Dense(2, ("gelu", 1.0))],
    "a layer of this type": lambda: [layers.Conv1D(2, 3, padding="causal")],
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_pytorch_does_not_have_is_refused_by_name(why: str, tmp_path: Path) -> None:
    chain(*REFUSED[why]()).save(tmp_path / "m.safetensors")
    with pytest.raises(UnsupportedError, match=rf"layer '\w+' \(\w+\): .*{why}"):
        convert(tmp_path / "m.safetensors", tmp_path / "m.torch.safetensors")
    assert not (tmp_path / "m.torch.safetensors").exists()


def test_only_a_chain_of_layers_is_written(tmp_path: Path) -> None:
    x = Input((None, 3))
    y = layers.Dense(3)(x)
    for name, model in (("branch", Model(x, layers.Add()([x, y]))), ("two", Model(x, [x, y]))):
        model.save(tmp_path / f"{name}.safetensors")
        with pytest.raises(
            (UnsupportedError, ConfigError), match=r"the layer before it|one output"
        ):
            convert(tmp_path / f"{name}.safetensors", tmp_path / "m.torch.safetensors")


def test_a_module_is_of_a_state_dict(tmp_path: Path) -> None:
    source = ROOT / "pipelines" / "weather" / "model.safetensors"
    with pytest.raises(ConfigError, match=r"ends in \.torch\.safetensors"):
        convert(source, tmp_path / "m.keras", module=tmp_path / "m.py")
    assert not list(tmp_path.iterdir())
