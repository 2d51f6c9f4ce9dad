"""Graphs in lower precision: their recurrent nodes. They need onnx, no runtime.

Slow: other nodes and int8, each compiled for itself.
"""

from pathlib import Path
from typing import Any

import naive_integers
import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("onnx", reason="needs the onnx extra")

from contracts import models
from nn.kernels.test_integers import of_list
from onnx import TensorProto, helper
from plugins.onnx import onnx_graphs
from selection import first_quick

from streamrnn import Pipeline, load_model
from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.convert import convert
from streamrnn.nn.layers.precision import packed_weights

PRECISIONS = first_quick(["int16", "int8"])
OPS = first_quick(["LSTM", "GRU"])


def saved(made: Any, tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def x(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("op", "options"),
    first_quick([("LSTM", {}), ("GRU", {"linear_before_reset": 1}), ("GRU", {}), ("RNN", {})]),
)
def test_a_node_has_the_bits_of_its_layer(
    op: str, options: dict[str, Any], precision: str, tmp_path: Path
) -> None:
    path = saved(onnx_graphs.recurrent(op, **options), tmp_path)
    layer = load_model(path, node="rnn", precision=precision)
    graph = load_model(path, precision=precision)
    assert graph.precision == precision
    inputs = x(2, 5, 3)
    y = graph(inputs.transpose(1, 0, 2))["Y"]
    np.testing.assert_array_equal(y[:, 0].transpose(1, 0, 2), layer(inputs))
    assert np.abs(y - load_model(path)(inputs.transpose(1, 0, 2))["Y"]).max() > 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_bit_of_both_directions_is_that_of_exact_integers(
    precision: str, tmp_path: Path
) -> None:
    made = onnx_graphs.recurrent("GRU", direction="bidirectional", linear_before_reset=1)
    graph = load_model(saved(made, tmp_path), precision=precision)
    inputs = x(1, 6, 3)
    y = graph(inputs.transpose(1, 0, 2))["Y"]
    integers, biases = packed_weights(graph), onnx_graphs.weights("GRU", 2, 3, 4)["B"]
    for direction in range(2):
        operands = []
        for name in ("graph/W", "graph/R"):
            found = integers[name]
            scales = found.scales.reshape(2, -1)[direction].tolist()
            values = found.values[direction].T.tolist()
            operands.append(
                naive_integers.Weights(values, scales, found.factors().tolist(), found.top)
            )
        bias = biases[direction].reshape(2, -1).tolist()
        step = naive_integers.gru(
            operands[0], operands[1], bias, of_list("sigmoid"), of_list("tanh")
        )
        rows = inputs[0].tolist()[:: -1 if direction else 1]
        wanted, _ = naive_integers.sequence(step, rows, [[0.0] * 4])
        wanted = wanted[:: -1 if direction else 1]
        np.testing.assert_array_equal(y[:, direction, 0], np.array(wanted, np.float32))


@pytest.mark.parametrize("op", OPS)
def test_it_is_saved_converted_and_rounded_again(op: str, tmp_path: Path) -> None:
    path = saved(onnx_graphs.as_tf2onnx_writes_it(op), tmp_path)
    rounded = load_model(path, precision="int16")
    models.assert_saved(rounded, [x(3, 5, 3)], tmp_path)
    convert(path, tmp_path / "converted.safetensors", precision="int16")
    again = load_model(tmp_path / "converted.safetensors", precision="int16")
    np.testing.assert_array_equal(again(x(3, 5, 3))["out"], rounded(x(3, 5, 3))["out"])
    exact = load_model(path)
    assert again.fingerprint() == rounded.fingerprint() != exact.fingerprint()
    rounded.set_weights(exact.get_weights())
    np.testing.assert_array_equal(rounded(x(3, 5, 3))["out"], again(x(3, 5, 3))["out"])


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_on_streams_it_is_cut_free(precision: str, op: str, tmp_path: Path) -> None:
    graph = load_model(saved(onnx_graphs.as_tf2onnx_writes_it(op), tmp_path), precision=precision)
    inputs = [x(models.ROWS, models.STEPS, 3)]
    models.assert_cut_free(graph, inputs)
    models.assert_streams_apart(graph, inputs)
    models.assert_rows_apart(graph, inputs)


def test_a_pipeline_rounds_it(tmp_path: Path) -> None:
    path = saved(onnx_graphs.one_step(), tmp_path)
    config = {
        "source": {"key": "k", "features": ["a", "b", "c"]},
        "model": {"path": str(path), "state": {"h": "hn", "c": "cn"}, "precision": "int16"},
    }
    rows = x(5, 3)
    table = pa.table({"k": ["p"] * 5, **dict(zip("abc", rows.T, strict=True))})
    made = pa.table(Pipeline.from_dict(config).process(table))
    scores = np.stack([made[f"y_{u}"].to_numpy() for u in range(4)], axis=1)
    graph, states = load_model(path, precision="int16"), [np.zeros((1, 1, 4), np.float32)] * 2
    for row, score in zip(rows, scores, strict=True):
        y, *states = graph(row[None], *states).values()
        np.testing.assert_array_equal(score, y.reshape(-1))


def test_the_summary_names_the_nodes(tmp_path: Path) -> None:
    lines: list[str] = []
    graph = load_model(saved(onnx_graphs.as_tf2onnx_writes_it(), tmp_path), precision="int16")
    graph.summary(print_fn=lines.append)
    assert "Precision: int16 in rnn; else float32" in lines


@pytest.mark.parametrize(
    "options",
    [{"peepholes": True}, {"input_forget": 1}, {"activations": ["Sigmoid", "Tanh", "Relu"]}],
)
def test_other_nodes_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    path = saved(onnx_graphs.recurrent("LSTM", **options), tmp_path)
    with pytest.raises(UnsupportedError, match=r"also as nodes of an ONNX graph, but not with pee"):
        load_model(path, precision="int16")


def test_weights_that_are_read_elsewhere_too_stay_float32(tmp_path: Path) -> None:
    constants = onnx_graphs.weights("GRU", 1, 3, 4)
    nodes = [helper.make_node("GRU", ["X", "W", "R", "B"], ["Y"], name="rnn", hidden_size=4)]
    inputs = {"X": (TensorProto.FLOAT, ["time", "batch", 3])}
    path = saved(onnx_graphs.model(nodes, inputs, ["Y", "W"], constants), tmp_path)
    with pytest.raises(UnsupportedError, match="no layer that computes in int16"):
        load_model(path, precision="int16")
