"""A keyed state goes on in Keras, PyTorch and ONNX Runtime, and comes back, bit for bit."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
keras: Any = pytest.importorskip("keras", reason="needs the oracles extra")
torch: Any = pytest.importorskip("torch", reason="needs the oracles extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the oracles extra")
pytest.importorskip("onnx", reason="needs the oracles extra")

from plugins.onnx import onnx_graphs  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn import Pipeline  # noqa: E402
from streamrnn.states import from_layer, to_layer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ["d", "a", "c", "b"]
STEPS = 6
Advance = Callable[[Any, np.ndarray], tuple[np.ndarray, Any]]
"""What a framework does with states and (B, T, F): outputs (B, T, U), and the states after."""


def of_keras(kind: str, tmp_path: Path) -> tuple[dict[str, Any], str, Advance]:
    if kind == "stack":
        cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(4)]
        layer = keras.layers.RNN(cells, return_sequences=True, return_state=True, name="rnn")
    else:
        layer = getattr(keras.layers, kind)(4, return_sequences=True, return_state=True, name="rnn")
    x = keras.Input((None, 2))
    y, *_ = layer(x)
    keras.Model(x, y).save(tmp_path / "m.keras")

    def advance(states: Any, x: np.ndarray) -> tuple[np.ndarray, Any]:
        y, *after = layer(x, initial_state=states)
        return np.asarray(y), after

    return {"path": str(tmp_path / "m.keras")}, "rnn", advance


def of_torch(kind: str, tmp_path: Path) -> tuple[dict[str, Any], Any, Advance]:
    cell, _, levels = kind.partition("*")
    module = getattr(torch.nn, cell)(2, 4, num_layers=int(levels or 1), batch_first=True)
    save_file(torch.nn.ModuleDict({"rnn": module}).state_dict(), tmp_path / "m.safetensors")
    model = {"path": str(tmp_path / "m.safetensors"), "layers": [{"type": cell, "weights": "rnn"}]}

    def advance(states: Any, x: np.ndarray) -> tuple[np.ndarray, Any]:
        several = isinstance(states, tuple)
        given = tuple(map(torch.from_numpy, states)) if several else torch.from_numpy(states)
        with torch.no_grad():
            y, after = module(torch.from_numpy(x), given)
        return y.numpy(), after

    return model, ["rnn_l0", "rnn_l1"] if levels else "rnn", advance


def of_onnx(kind: str, tmp_path: Path) -> tuple[dict[str, Any], str, Advance]:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_graphs.recurrent(kind, features=2).SerializeToString())
    session = onnxruntime.InferenceSession(
        onnx_graphs.recurrent(kind, features=2, initial=True).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )

    def advance(states: Any, x: np.ndarray) -> tuple[np.ndarray, Any]:
        feed = {name.removeprefix("initial_"): array for name, array in states.items()}
        y, *after = session.run(None, {"X": np.ascontiguousarray(x.swapaxes(0, 1)), **feed})
        return y[:, 0].swapaxes(0, 1), dict(zip(states, after, strict=True))

    return {"path": str(path)}, "graph/rnn", advance


CASES: dict[str, tuple[str, Callable[..., Any]]] = {
    **{f"keras {kind}": (kind, of_keras) for kind in ("LSTM", "GRU", "SimpleRNN", "stack")},
    **{f"torch {kind}": (kind, of_torch) for kind in ("LSTM", "GRU", "RNN", "LSTM*2", "GRU*2")},
    **{f"onnx {kind}": (kind, of_onnx) for kind in ("LSTM", "GRU", "RNN")},
}


def raw(states: Any) -> list[bytes]:
    """The bytes of all arrays, in order."""
    if isinstance(states, dict):
        states = list(states.values())
    if isinstance(states, list | tuple):
        return [found for each in states for found in raw(each)]
    return [np.ascontiguousarray(states).tobytes()]


def rows(x: np.ndarray) -> pa.Table:
    """(B, T, F) as a log of the streams, interleaved."""
    steps = x.shape[1]
    columns = {f"f{i}": x[:, :, i].T.ravel() for i in range(x.shape[2])}
    return pa.table({"id": pa.array(NAMES * steps), **columns})


def scored(pipeline: Pipeline, x: np.ndarray, units: int) -> np.ndarray:
    """The first outputs of the model, as (B, T, U)."""
    table = pipeline.process(rows(x))
    columns = [table.column(name).to_numpy() for name in table.column_names[1 : 1 + units]]
    return np.stack(columns, axis=-1).reshape(-1, len(NAMES), units).swapaxes(0, 1)


@pytest.mark.parametrize("case", CASES)
def test_a_layer_goes_on_where_the_pipeline_stopped_and_back(case: str, tmp_path: Path) -> None:
    """Outputs to 1e-5, as kernels differ; what travels between them to the bit."""
    torch.manual_seed(3)
    keras.utils.set_random_seed(3)
    framework = case.partition(" ")[0]
    kind, make = CASES[case]
    model, layer, advance = make(kind, tmp_path)
    config = {"source": {"key": "id", "features": ["f0", "f1"]}, "model": model}
    x = np.random.default_rng(5).normal(size=(4, 3 * STEPS, 2)).astype(np.float32)
    first, second, third = np.split(x, 3, axis=1)
    pipeline = Pipeline.from_dict(config)
    scored(pipeline, first, 4)
    start = pipeline.state.to_arrow()

    given = to_layer(start, layer, NAMES, framework=framework)
    assert from_layer(start, layer, NAMES, given, framework=framework) == start
    outputs, after = advance(given, second)
    expected = scored(pipeline, second, 4)
    assert np.abs(outputs - expected).max() < 1e-5
    cold = to_layer(start.slice(0, 0), layer, NAMES, framework=framework, missing="zeros")
    assert np.abs(advance(cold, second)[0] - expected).max() > 1e-2

    table = from_layer(start, layer, NAMES, after, framework=framework)
    back = to_layer(table, layer, NAMES, framework=framework)
    assert raw(back) == raw(after)
    outputs, _ = advance(back, third)
    resumed = Pipeline.from_dict(config, state=table)
    assert np.abs(scored(resumed, third, 4) - outputs).max() < 1e-5


def test_a_stateful_keras_layer_is_assigned_a_state_and_gives_it_back(tmp_path: Path) -> None:
    """Bits in, the same bits out; other streams keep theirs."""
    keras.utils.set_random_seed(3)
    layer = keras.layers.LSTM(4, stateful=True, name="rnn")
    model = streamrnn.Sequential([streamrnn.Input((None, 2)), streamrnn.layers.LSTM(4, name="rnn")])
    model.save(tmp_path / "m.safetensors")
    config = {
        "source": {"key": "id", "features": ["f0", "f1"]},
        "model": {"path": str(tmp_path / "m.safetensors")},
    }
    pipeline = Pipeline.from_dict(config)
    x = np.random.default_rng(5).normal(size=(4, STEPS, 2)).astype(np.float32)
    pipeline.process(rows(x))
    layer(np.zeros((2, 1, 2), np.float32))
    states = to_layer(pipeline.state, "rnn", ["c", "a"])
    for variable, state in zip(layer.states, states, strict=True):
        variable.assign(state)
    final = [np.asarray(variable) for variable in layer.states]
    assert raw(final) == raw(states)
    swapped = from_layer(pipeline.state, "rnn", ["a", "c"], final).to_pylist()
    before = {row["id"]: row for row in pipeline.state.to_arrow().to_pylist()}
    for row in swapped:
        other = {"a": "c", "c": "a"}.get(row["id"], row["id"])
        assert (row["rnn/h"], row["rnn/c"]) == (before[other]["rnn/h"], before[other]["rnn/c"])
