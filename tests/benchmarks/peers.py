"""LSTM and GRU in ONNX Runtime, PyTorch and OpenVINO, each as its users would run it.

Each function takes Keras weights and gives a call of one chunk (B, T, F) that carries its state to
the next call, with the layout that the library likes best, so no side pays for a transposition.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Weights = tuple[np.ndarray, np.ndarray, np.ndarray]
Chunk = Callable[[], tuple[np.ndarray, list[np.ndarray]]]
"""Runs a chunk; gives outputs (T, B, U) and the states."""


def gates(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Gates in another order, transposed to rows."""
    parts = np.split(array, len(order), axis=-1)
    return np.concatenate([parts[i] for i in order], axis=-1).T.copy()


def onnx_model(kind: str, weights: Weights) -> bytes:
    """A model of one node: X (T, B, F), h0[, c0] -> Y, h[, c]."""
    from onnx import TensorProto, helper, numpy_helper

    kernel, recurrent, bias = weights
    order = (0, 3, 1, 2) if kind == "lstm" else (0, 1, 2)
    biases = [bias, np.zeros_like(bias)] if kind == "lstm" else list(bias)
    constants = {
        "W": gates(kernel, order)[None],
        "R": gates(recurrent, order)[None],
        "B": np.concatenate([gates(b, order) for b in biases])[None],
    }
    states = ["h", "c"] if kind == "lstm" else ["h"]
    options: dict[str, Any] = {"hidden_size": len(recurrent)}
    if kind == "gru":
        options["linear_before_reset"] = 1
    node = helper.make_node(
        kind.upper(),
        ["X", "W", "R", "B", "", *(f"{s}0" for s in states)],
        ["Y", *(f"{s}1" for s in states)],
        **options,
    )
    size, width = len(recurrent), len(kernel)

    def value(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        kind,
        [value("X", ["T", "B", width]), *(value(f"{s}0", [1, "B", size]) for s in states)],
        [value("Y", ["T", 1, "B", size]), *(value(f"{s}1", [1, "B", size]) for s in states)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())


def onnxruntime(kind: str, weights: Weights, x_BTF: np.ndarray, threads: int) -> Chunk:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(
        onnx_model(kind, weights), options, providers=["CPUExecutionProvider"]
    )
    x, states = _time_first(kind, weights, x_BTF)

    def chunk() -> tuple[np.ndarray, list[np.ndarray]]:
        feed = {"X": x, **{f"{s}0": a for s, a in zip("hc", states, strict=False)}}
        y, *states[:] = session.run(None, feed)
        return y[:, 0], [state[0] for state in states]

    return chunk


def openvino(
    kind: str, weights: Weights, x_BTF: np.ndarray, threads: int, precision: str = "f32"
) -> Chunk:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(onnx_model(kind, weights))
    x, states = _time_first(kind, weights, x_BTF)
    model.reshape(
        {"X": list(x.shape), **{f"{s}0": list(a.shape) for s, a in zip("hc", states, strict=False)}}
    )
    compiled = core.compile_model(
        model,
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1},
    )
    request = compiled.create_infer_request()

    def chunk() -> tuple[np.ndarray, list[np.ndarray]]:
        request.infer([x, *states], share_inputs=True)
        y, *after = (request.get_output_tensor(i).data for i in range(1 + len(states)))
        for state, new in zip(states, after, strict=True):
            state[:] = new
        return y[:, 0], [state[0] for state in states]

    return chunk


def torch_layer(kind: str, weights: Weights) -> Any:
    """A layer of PyTorch with these weights."""
    import torch as t

    kernel, recurrent, bias = weights
    order = (0, 1, 2, 3) if kind == "lstm" else (1, 0, 2)
    biases = [bias, np.zeros_like(bias)] if kind == "lstm" else list(bias)
    layer = (t.nn.LSTM if kind == "lstm" else t.nn.GRU)(len(kernel), len(recurrent))
    with t.no_grad():
        layer.weight_ih_l0.copy_(t.from_numpy(gates(kernel, order)))
        layer.weight_hh_l0.copy_(t.from_numpy(gates(recurrent, order)))
        layer.bias_ih_l0.copy_(t.from_numpy(gates(biases[0], order)))
        layer.bias_hh_l0.copy_(t.from_numpy(gates(biases[1], order)))
    return layer


def torch(kind: str, weights: Weights, x_BTF: np.ndarray, threads: int) -> Chunk:
    import torch as t

    t.set_num_threads(threads)
    layer = torch_layer(kind, weights)
    x, arrays = _time_first(kind, weights, x_BTF)
    inputs = t.from_numpy(x)
    states = [t.from_numpy(array) for array in arrays]

    def chunk() -> tuple[np.ndarray, list[np.ndarray]]:
        with t.inference_mode():
            y, after = layer(inputs, tuple(states) if kind == "lstm" else states[0])
            states[:] = after if kind == "lstm" else [after]
        return y.numpy(), [state[0].numpy() for state in states]

    return chunk


def _time_first(
    kind: str, weights: Weights, x_BTF: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    x = np.ascontiguousarray(x_BTF.transpose(1, 0, 2))
    shape = (1, len(x_BTF), len(weights[1]))
    return x, [np.zeros(shape, np.float32) for _ in range(2 if kind == "lstm" else 1)]


PEERS = {"onnxruntime": onnxruntime, "torch": torch, "openvino": openvino}
