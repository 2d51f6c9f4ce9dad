"""What `convert` writes as ONNX gives our outputs in ONNX Runtime, from window to window."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

ort = pytest.importorskip("onnxruntime", reason="needs the oracles extra")
onnx = pytest.importorskip("onnx", reason="needs the onnx extra")

import streamrnn  # noqa: E402
from streamrnn import activations, layers  # noqa: E402
from streamrnn.models import Model, Sequential  # noqa: E402
from streamrnn.nn.models.mixture import mixture_of  # noqa: E402
from streamrnn.plugins.onnx import export_call  # noqa: E402
from streamrnn.plugins.onnx.export import save_onnx, state_names  # noqa: E402

ROOT = Path(__file__).parents[3]
ROWS, STEPS, FEATURES = 3, 5, 4
Outputs = list[npt.NDArray[Any]]


def session_of(model: Model, path: Path) -> Any:
    """A session of the exported model, which onnx's checker finds valid."""
    save_onnx(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def windows(model: Model, session: Any, x: Outputs) -> list[Outputs]:
    """The outputs of two windows in ONNX Runtime, the state of the first fed to the second."""
    names, next_of = [o.name for o in session.get_outputs()], state_names(model)
    data = [i for i in session.get_inputs() if i.name not in next_of]
    states = {
        i.name: np.zeros((1, ROWS, i.shape[2]), np.float32)
        for i in session.get_inputs()
        if i.name in next_of
    }
    found = []
    for window in (slice(0, STEPS), slice(STEPS, None)):
        fed = {i.name: array[:, window] for i, array in zip(data, x, strict=True)}
        made = dict(zip(names, session.run(None, {**fed, **states}), strict=True))
        states = {name: made.pop(after) for name, after in next_of.items()}
        found.append(list(made.values()))
    return found


def assert_same(model: Model, path: Path) -> None:
    """Two windows with the state fed on are the model's outputs up to the end of each."""
    random = np.random.default_rng(3)
    names = model.named_weights()
    model.set_weights(
        [
            np.abs(w) + 0.5 if name.endswith("variance") else w
            for name, w in ((n, random.normal(0, 0.5, w.shape)) for n, w in names.items())
        ]
    )
    x = [
        random.integers(0, 7, (ROWS, 2 * STEPS, *shape[1:]))
        if dtype == "int64"
        else random.normal(0, 1, (ROWS, 2 * STEPS, *shape[1:])).astype(np.float32)
        for _, shape, dtype in model.input_specs
    ]
    session = session_of(model, path)
    for end, theirs in zip((STEPS, 2 * STEPS), windows(model, session, x), strict=True):
        ours = model([array[:, :end] for array in x])
        ours = ours if isinstance(ours, list) else [ours]
        for our, their in zip(ours, theirs, strict=True):
            expected = our[:, -STEPS:] if our.ndim == 3 else our
            assert expected.shape == their.shape
            np.testing.assert_allclose(their, expected, rtol=1e-5, atol=1e-5)


def chain(*parts: layers.Layer) -> Sequential:
    return Sequential([layers.Input((None, FEATURES)), *parts])


RECURRENT: dict[str, Callable[[], layers.Layer]] = {
    "LSTM": lambda: layers.LSTM(6, return_sequences=True),
    "LSTM-last": lambda: layers.LSTM(6),
    "LSTM-no-bias": lambda: layers.LSTM(6, use_bias=False),
    "LSTM-activations": lambda: layers.LSTM(6, "softsign", "hard_sigmoid"),
    "GRU-after": lambda: layers.GRU(6, return_sequences=True),
    "GRU-before": lambda: layers.GRU(6, return_sequences=True, reset_after=False),
    "GRU-last": lambda: layers.GRU(6, reset_after=False),
    "GRU-relu": lambda: layers.GRU(6, "relu"),
    "GRU-no-bias": lambda: layers.GRU(6, use_bias=False),
    "GRU-activations": lambda: layers.GRU(6, layers.LeakyReLU(0.3), "hard_sigmoid_02"),
    "SimpleRNN": lambda: layers.SimpleRNN(6, return_sequences=True),
    "SimpleRNN-elu": lambda: layers.SimpleRNN(6, layers.ELU(0.7)),
    "SimpleRNN-linear": lambda: layers.SimpleRNN(6, None),
    "RNN-of-LSTMCell": lambda: layers.RNN(layers.LSTMCell(6), return_sequences=True),
    "RNN-of-PeepholeLSTMCell": lambda: layers.RNN(layers.PeepholeLSTMCell(6)),
    "dropout": lambda: layers.GRU(6, dropout=0.5, recurrent_dropout=0.5),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_carries_its_state(name: str, tmp_path: Path) -> None:
    assert_same(chain(RECURRENT[name]()), tmp_path / "m.onnx")


ON_STEPS: dict[str, Callable[[], list[layers.Layer]]] = {
    "Dense": lambda: [layers.Dense(3, "softmax"), layers.Dense(2, use_bias=False)],
    "TimeDistributed": lambda: [layers.TimeDistributed(layers.Dense(3, "tanh"))],
    "Normalization": lambda: [
        layers.Normalization(),
        layers.Normalization(axis=None),
        layers.Normalization(mean=[1, 2, 3, 4], variance=[2, 2, 1, 0.5], invert=True),
    ],
    "Rescaling": lambda: [layers.Rescaling(0.5), layers.Rescaling([1, 2, 3, 4], [4, 3, 2, 1])],
    "LayerNormalization": lambda: [
        layers.LayerNormalization(),
        layers.LayerNormalization(center=False, scale=False, epsilon=0.1),
    ],
    "BatchNormalization": lambda: [
        layers.BatchNormalization(),
        layers.BatchNormalization(center=False, scale=False),
    ],
    "Gaussian": lambda: [layers.Gaussian()],
    "nothing": lambda: [
        layers.Dropout(0.5),
        layers.SpatialDropout1D(0.5),
        layers.GaussianNoise(1.0),
        layers.ActivityRegularization(),
        layers.Identity(),
    ],
    "activation layers": lambda: [
        layers.LeakyReLU(0.1),
        layers.ELU(0.7),
        layers.PReLU(shared_axes=[1]),
        layers.ReLU(negative_slope=0.5),
        layers.ReLU(max_value=1.0),
        layers.ReLU(),
        layers.Softmax(),
    ],
}


@pytest.mark.parametrize("name", ON_STEPS)
def test_a_layer_on_each_step(name: str, tmp_path: Path) -> None:
    assert_same(chain(*ON_STEPS[name]()), tmp_path / "m.onnx")


ACTIVATIONS = sorted(set(activations.__all__) & export_call.WRITTEN)


def test_every_activation(tmp_path: Path) -> None:
    x = layers.Input((None, FEATURES))
    made = [layers.Activation(name, name=f"a_{name}")(x) for name in ACTIVATIONS]
    assert_same(Model(x, made), tmp_path / "m.onnx")


def test_layers_with_several_inputs(tmp_path: Path) -> None:
    """Among them one that is called twice, each call with its own state."""
    x, ids = layers.Input((None, FEATURES)), layers.Input((None,), dtype="int64")
    gru = layers.GRU(FEATURES, return_sequences=True, name="shared")
    a, b = gru(x), gru(layers.Embedding(7, FEATURES)(ids))
    kinds = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Spread)
    made = [kind()([a, b]) for kind in (*kinds, layers.Maximum, layers.Minimum)]
    model = Model([x, ids], layers.Concatenate()([*made, x]))
    assert_same(model, tmp_path / "m.onnx")
    assert state_names(model) == {"shared/h": "shared/h_out", "shared@1/h": "shared@1/h_out"}
    kernels = [n for n in onnx.load(tmp_path / "m.onnx").graph.initializer if n.name[-2:] == "/W"]
    assert [n.name for n in kernels] == ["shared/W"]


def test_integers_read_as_floats(tmp_path: Path) -> None:
    ids = layers.Input((None, 2), dtype="int64")
    assert_same(Model(ids, layers.Dense(3)(ids)), tmp_path / "m.onnx")


def test_states_as_outputs_of_the_model(tmp_path: Path) -> None:
    x = layers.Input((None, FEATURES))
    y, h, c = layers.LSTM(6, return_sequences=True, return_state=True, name="lstm")(x)
    assert_same(Model(x, [y, h, c]), tmp_path / "m.onnx")


def test_models_within_a_model(tmp_path: Path) -> None:
    """Several seeds as one model, their mean and spread; states are named by the path."""
    members = [chain(layers.GRU(6, name="gru"), layers.Dense(2)) for _ in range(2)]
    model = mixture_of(members, [1, 2], [0.25, 0.5])
    assert_same(model, tmp_path / "m.onnx")
    assert [*state_names(model)] == ["seed_1/gru/h", "seed_2/gru/h"]


def test_flatten_and_reshape(tmp_path: Path) -> None:
    x = layers.Input((STEPS, FEATURES), name="x")
    made = [layers.Flatten()(x), layers.Reshape((-1, 2))(x), layers.Reshape((20,))(x)]
    model = Model(x, made)
    data = np.random.default_rng(0).normal(0, 1, (ROWS, STEPS, FEATURES)).astype(np.float32)
    session = session_of(model, tmp_path / "m.onnx")
    for ours, theirs in zip(model(data), session.run(None, {"x": data}), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_stateful_model_is_the_same_graph(tmp_path: Path) -> None:
    """Its state from call to call is what the caller feeds on."""
    x = np.random.default_rng(1).normal(0, 1, (ROWS, 2 * STEPS, FEATURES)).astype(np.float32)
    model = Sequential(
        [
            layers.Input(batch_shape=(ROWS, None, FEATURES)),
            layers.LSTM(6, return_sequences=True, stateful=True),
        ]
    )
    session = session_of(model, tmp_path / "m.onnx")
    for window, (theirs,) in enumerate(windows(model, session, [x])):
        ours = model(x[:, window * STEPS :][:, :STEPS])
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)


def test_the_weather_model(tmp_path: Path) -> None:
    """Degrees Fahrenheit: 1e-5 of their size."""
    model = streamrnn.load_model(ROOT / "pipelines" / "weather" / "model.safetensors")
    x = np.load(ROOT / "pipelines" / "origins" / "check.npz")["x"][:, : 2 * STEPS]
    x = np.repeat(x, 2, axis=0)[:ROWS]
    found = windows(model, session_of(model, tmp_path / "m.onnx"), [x])
    np.testing.assert_allclose(np.concatenate([y for (y,) in found], 1), model(x), rtol=1e-5)
