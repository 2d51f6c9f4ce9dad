"""Operators give what ONNX Runtime computes, one node at a time and as quantized graphs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ort: Any = pytest.importorskip("onnxruntime", reason="needs the oracles extra")
onnx: Any = pytest.importorskip("onnx", reason="needs the onnx extra")

from onnx import TensorProto, helper  # noqa: E402
from plugins.onnx import onnx_graphs  # noqa: E402
from plugins.onnx.test_onnx_operators import OTHERWISE_TESTED  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn import layers  # noqa: E402
from streamrnn.models import Sequential, StepRunner  # noqa: E402
from streamrnn.nn.models.mixture import mixture_of  # noqa: E402
from streamrnn.plugins.onnx.export import save_onnx  # noqa: E402

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(0).normal(0, 2, (2, 4, 9)).astype(np.float32)
X[0, 0, :3] = 0
IDS = np.random.default_rng(1).integers(-5, 6, (2, 3))
MOST = np.iinfo(np.int64).max


def drawn(*shape: int) -> Any:
    return np.random.default_rng(7).normal(0, 1, shape).astype(np.float32)


def run_ort(made: Any, given: dict[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, given)[0]


def one(
    path: Path, op: str, given: dict[str, Any], constants: dict[str, Any], opset: int, **more: Any
) -> tuple[Any, Any]:
    """The output of one node of ours, and ONNX Runtime's. Arrays of `given` are inputs."""
    node = helper.make_node(op, [*given, *constants], ["y"], name="n", **more)
    inputs = {
        name: (helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in given.items()
    }
    made = onnx_graphs.model([node], inputs, ["y"], constants, opset)
    inferred = onnx.shape_inference.infer_shapes(
        onnx_graphs.model([node], inputs, [], constants, opset)
    )
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    made.graph.output[0].type.tensor_type.elem_type = kinds.get("y", FLOAT)
    path.write_bytes(made.SerializeToString())
    (ours,) = streamrnn.load_model(path)(given).values()
    return ours, run_ort(made, given)


W3, W4 = drawn(6, 4, 3), drawn(6, 2, 3, 3)
IMAGE = drawn(2, 4, 8, 7)
STATISTICS = {n: np.abs(drawn(4)) + i for i, n in enumerate("abcd")}
TYPES = {"float": 1, "int32": 6, "int64": 7, "bool": 9}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int, dict[str, Any]]] = {
    "Conv": ("Conv", {"x": X}, {"w": W3, "b": drawn(6)}, 17, {}),
    "Conv strides": ("Conv", {"x": X}, {"w": W3}, 17, {"strides": [2], "pads": [2, 1]}),
    "Conv dilations": ("Conv", {"x": X}, {"w": W3}, 11, {"dilations": [3]}),
    "Conv groups": ("Conv", {"x": X}, {"w": drawn(6, 2, 2), "b": drawn(6)}, 17, {"group": 2}),
    "Conv depthwise": ("Conv", {"x": X}, {"w": drawn(8, 1, 2)}, 17, {"group": 4}),
    "Conv same": ("Conv", {"x": X}, {"w": W3}, 17, {"auto_pad": "SAME_UPPER", "strides": [2]}),
    "Conv lower": ("Conv", {"x": X}, {"w": drawn(6, 4, 4)}, 17, {"auto_pad": "SAME_LOWER"}),
    "Conv images": (
        "Conv", {"x": IMAGE}, {"w": W4}, 17,
        {"group": 2, "strides": [2, 1], "pads": [1, 0, 0, 2], "dilations": [1, 2]},
    ),
    "MaxPool": ("MaxPool", {"x": X}, {}, 17, {"kernel_shape": [3], "strides": [2]}),
    "MaxPool ceil": (
        "MaxPool", {"x": X}, {}, 17,
        {"kernel_shape": [2], "strides": [2], "ceil_mode": 1, "pads": [1, 1], "dilations": [2]},
    ),
    "AveragePool": ("AveragePool", {"x": X}, {}, 17, {"kernel_shape": [3], "pads": [1, 2]}),
    "AveragePool padding": (
        "AveragePool", {"x": X}, {}, 19,
        {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1, "strides": [2]},
    ),
    "AveragePool ceil": (
        "AveragePool", {"x": X}, {}, 19, {"kernel_shape": [2], "strides": [2], "ceil_mode": 1},
    ),
    "GlobalAveragePool": ("GlobalAveragePool", {"x": X}, {}, 17, {}),
    "GlobalMaxPool": ("GlobalMaxPool", {"x": X}, {}, 17, {}),
    "BatchNormalization": ("BatchNormalization", {"x": X}, STATISTICS, 15, {"epsilon": 0.01}),
    "LayerNormalization": (
        "LayerNormalization", {"x": X}, {"s": drawn(4, 9), "b": drawn(4, 9)}, 17, {"axis": 1},
    ),
    "Softmax 2D": ("Softmax", {"x": X}, {}, 11, {"axis": 1}),
    "LogSoftmax": ("LogSoftmax", {"x": X}, {}, 17, {"axis": 1}),
    "MatMul": ("MatMul", {"x": X, "w": drawn(2, 9, 5)}, {}, 17, {}),
    "MatMul broadcast": ("MatMul", {"x": drawn(3, 1, 2, 4), "w": drawn(2, 4, 5)}, {}, 17, {}),
    "Gemm": ("Gemm", {"x": drawn(5, 3)}, {"w": drawn(4, 5), "b": drawn(3, 4)}, 17,
             {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    "Gemm rows": ("Gemm", {"x": drawn(3, 4)}, {"w": drawn(4, 3), "b": drawn(3, 1)}, 17, {}),
    "Div ids": ("Div", {"x": np.array([MOST, -7, 7])}, {"d": np.array([1, 2, -2])}, 17, {}),
    "Flatten nothing": ("Flatten", {"x": drawn(0, 3)}, {}, 17, {}),
    "Slice before all": (
        "Slice", {"x": X[0, 0]},
        {n: np.array([i]) for n, i in {"s": -12, "e": -99, "a": 0, "p": -1}.items()}, 17, {},
    ),
    "Range": (
        "Range", {n: np.array(i, np.float32) for n, i in {"a": 0, "b": 0.3, "c": 0.1}.items()}, {},
        17, {},
    ),
    "Transpose a number": ("Transpose", {"x": drawn()}, {}, 17, {}),
    "Expand a number": ("Expand", {"x": drawn()}, {"s": np.zeros(0, np.int64)}, 17, {}),
    "ReduceL2 ids": ("ReduceL2", {"x": IDS}, {"axes": np.array([1])}, 18, {}),
    "ReduceMean": ("ReduceMean", {"x": X}, {"axes": np.array([-1, 0])}, 18, {"keepdims": 0}),
    "ReduceMean 13": ("ReduceMean", {"x": X}, {}, 13, {"axes": [1]}),
    "ReduceL2": ("ReduceL2", {"x": X}, {"axes": np.array([2])}, 18, {}),
    "ArgMax": ("ArgMax", {"x": X}, {}, 17, {"axis": -1, "keepdims": 0}),
    "Log": ("Log", {"x": np.float32([0, 1e-42, 1e-38, 1, np.e, 1e38, np.inf, -1])}, {}, 17, {}),
    "Erf": ("Erf", {"x": X}, {}, 17, {}),
    "Exp": ("Exp", {"x": X}, {}, 17, {}),
    "Gelu": ("Gelu", {"x": X}, {}, 20, {}),
    "Gelu tanh": ("Gelu", {"x": X}, {}, 20, {"approximate": "tanh"}),
    "PRelu": ("PRelu", {"x": X}, {"s": drawn(4, 1)}, 17, {}),
    "ThresholdedRelu at alpha": ("ThresholdedRelu", {"x": X}, {}, 17, {"alpha": float(X[0, 1, 1])}),
    "Clip 10": ("Clip", {"x": X}, {}, 10, {"min": -0.5, "max": 1.5}),
    "Not": ("Not", {"x": X > 0}, {}, 17, {}),
    "CastLike": ("CastLike", {"x": X}, {"t": np.array(1, np.int64)}, 19, {}),
    "DequantizeLinear": ("DequantizeLinear", {}, {
        "w": np.arange(-6, 6, dtype=np.int8).reshape(3, 4), "s": np.abs(drawn(4)),
        "z": np.array([1, 0, -3, 2], np.int8)}, 13, {"axis": 1}),
    **{f"Cast {name}": ("Cast", {"x": X}, {}, 17, {"to": code}) for name, code in TYPES.items()},
    **{f"Cast ids {name}": ("Cast", {"x": IDS}, {}, 17, {"to": code})
       for name, code in TYPES.items()},
    **{f"Pow {e}": ("Pow", {"x": np.abs(X) + 0.1}, {"e": np.float32(e)}, 17, {})
       for e in (2, 3, 0.5, -0.5, -1, 1.5, 7, 0)},
    **{f"Pow ids {e}": ("Pow", {"x": np.abs(IDS)}, {"e": np.float32(e)}, 17, {}) for e in (0.5, 3)},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator(name: str, tmp_path: Path) -> None:
    op, given, constants, opset, more = CASES[name]
    ours, theirs = one(tmp_path / "m.onnx", op, given, constants, opset, **more)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


def test_what_onnx_does_not_test_is_tested_here() -> None:
    assert {op for op, *_ in CASES.values()} | {"QuantizeLinear"} >= OTHERWISE_TESTED


def quantized(kind: type[Any]) -> Any:
    """x -> Q, DQ -> LSTM of dequantized weights -> Q, DQ -> MatMul, as exporters write QDQ."""
    random = np.random.default_rng(3)
    constants: dict[str, Any] = {"zero": np.array(3, kind), "none": np.array(0, np.int8)}
    constants["one"] = np.array([1], np.int64)
    nodes = []

    def both(name: str, scale: float) -> str:
        constants[f"{name}_scale"] = np.array(scale, np.float32)
        pair = [f"{name}_scale", "zero"]
        nodes.append(helper.make_node("QuantizeLinear", [name, *pair], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *pair], [f"{name}_dq"]))
        return f"{name}_dq"

    def weight(name: str, *shape: int) -> str:
        constants[f"{name}_q"] = random.integers(-127, 128, shape).astype(np.int8)
        constants[f"{name}_scale"] = np.array(0.01, np.float32)
        stored = [f"{name}_q", f"{name}_scale", "none"]
        nodes.append(helper.make_node("DequantizeLinear", stored, [name]))
        return name

    names = [both("x", 0.05), weight("W", 1, 16, 3), weight("R", 1, 16, 4)]
    nodes.append(helper.make_node("LSTM", names, ["Y"], name="rnn", hidden_size=4))
    nodes.append(helper.make_node("Squeeze", ["Y", "one"], ["s"]))
    nodes.append(helper.make_node("MatMul", [both("s", 0.01), weight("K", 4, 2)], ["y"]))
    return onnx_graphs.model(nodes, {"x": (FLOAT, ["time", "batch", 3])}, ["y"], constants, 13)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_quantized_graph_rounds_where_the_file_does(kind: Any, tmp_path: Path) -> None:
    """Its weights are float32 in the model; a value near a tie may round to the other side."""
    path, made = tmp_path / "m.onnx", quantized(kind)
    path.write_bytes(made.SerializeToString())
    model = streamrnn.load_model(path)
    x = np.random.default_rng(4).normal(0, 1, (7, 2, 3)).astype(np.float32)
    ours, expected = next(iter(model(x).values())), run_ort(made, {"x": x})
    assert np.abs(ours - expected).max() < 0.02
    assert np.isclose(ours, expected, atol=1e-5).mean() > 0.9
    assert {"W", "R", "K"} <= set(model.get_layer("graph").named_weights())
    model.save(tmp_path / "m.safetensors")
    again = streamrnn.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(next(iter(again(x).values())), ours)
    stream = StepRunner(model)
    states, rows = stream.initial_state(2), x.transpose(1, 0, 2)
    parts = [stream.run([rows[:, a:b]], None, states)[0] for a, b in ((0, 3), (3, 7))]
    np.testing.assert_array_equal(np.concatenate(parts, 1), ours.transpose(1, 0, 2))


def test_a_model_of_several_seeds_is_the_same_after_export(tmp_path: Path) -> None:
    """Its file runs in a pipeline again, with the numbers of the model."""
    members = [
        Sequential([layers.Input((None, 3)), layers.GRU(4, name="gru"), layers.Dense(4, "gelu"),
                    layers.ReLU(max_value=1.0), layers.PReLU(shared_axes=[1]),
                    layers.Dense(2, "exponential")])
        for _ in range(3)
    ]  # fmt: skip
    model = mixture_of(members, [1, 2, 3], [0.25, 0.5])
    model.set_weights([drawn(*w.shape) / 4 for w in model.weights])
    save_onnx(model, tmp_path / "m.onnx")
    ours, theirs = StepRunner(streamrnn.load_model(tmp_path / "m.onnx")), StepRunner(model)
    assert ours.outputs == theirs.outputs
    x = drawn(2, 6, 3)
    states, again = ours.initial_state(2), theirs.initial_state(2)
    for a, b in ((0, 2), (2, 6)):
        window = [np.ascontiguousarray(x[:, a:b])]
        made = ours.run(window, None, states)
        for y, z in zip(made, theirs.run(window, None, again), strict=True):
            np.testing.assert_allclose(y, z, rtol=1e-6, atol=1e-6)
