"""Other operators in ONNX Runtime and PyTorch, each in the layout that the library likes best.

Each function gives calls that return outputs (B, T, U), from a state of zeros.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from peers import gates

NAMES = ["onnxruntime", "torch"]
Side = Callable[[], np.ndarray]
Array = np.ndarray


def session(
    nodes: list[Any], constants: dict[str, Array], feed: dict[str, Array], threads: int
) -> Callable[[], Array]:
    """A call of a graph with the output `y`."""
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    def value(name: str, array: Array | None) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(
            np.dtype(np.float32) if array is None else array.dtype
        )
        return helper.make_tensor_value_info(name, kind, None if array is None else array.shape)

    graph = helper.make_graph(
        nodes,
        "operator",
        [value(*item) for item in feed.items()],
        [value("y", None)],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    run = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run
    return lambda: run(["y"], feed)[0]


def _recurrent(
    kind: str, weights: list[Array], order: tuple[int, ...], x_BTF: Array, threads: int, **more: Any
) -> Side:
    from onnx import helper

    kernel, recurrent, bias = weights
    constants = {
        "W": gates(kernel, order)[None],
        "R": gates(recurrent, order)[None],
        "B": np.concatenate([gates(bias, order), np.zeros_like(bias)])[None],
    }
    names = ["x", "W", "R", "B"]
    if (lengths := more.pop("lengths", None)) is not None:
        constants["lengths"] = lengths.astype(np.int32)
        names.append("lengths")
    node = helper.make_node(kind, names, ["y"], hidden_size=len(recurrent), **more)
    feed = {"x": np.ascontiguousarray(x_BTF.transpose(1, 0, 2))}
    run = session([node], constants, feed, threads)
    return lambda: run()[:, 0].transpose(1, 0, 2)


def _torch_recurrent(
    kind: str, weights: list[Array], x_BTF: Array, threads: int, lengths: Array | None = None
) -> Side:
    import torch as t

    t.set_num_threads(threads)
    kernel, recurrent, bias = weights
    layer = getattr(t.nn, kind)(len(kernel), len(recurrent))
    layer.load_state_dict(
        {
            name: t.from_numpy(np.ascontiguousarray(array))
            for name, array in {
                "weight_ih_l0": kernel.T,
                "weight_hh_l0": recurrent.T,
                "bias_ih_l0": bias,
                "bias_hh_l0": np.zeros_like(bias),
            }.items()
        }
    )
    x = t.from_numpy(np.ascontiguousarray(x_BTF.transpose(1, 0, 2)))
    each = None if lengths is None else t.from_numpy(lengths)

    def run() -> Array:
        with t.inference_mode():
            if each is None:
                return layer(x)[0].numpy().transpose(1, 0, 2)
            packed = t.nn.utils.rnn.pack_padded_sequence(x, each)
            y, _ = t.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], total_length=len(x))
            return y.numpy().transpose(1, 0, 2)

    return run


def lstm(
    weights: list[Array], x_BTF: Array, threads: int, lengths: Array | None = None
) -> dict[str, Side]:
    order = (0, 3, 1, 2)
    return {
        "onnxruntime": _recurrent("LSTM", weights, order, x_BTF, threads, lengths=lengths),
        "torch": _torch_recurrent("LSTM", weights, x_BTF, threads, lengths),
    }


def gru_before(weights: list[Array], x_BTF: Array, threads: int) -> dict[str, Side]:
    """PyTorch has no such GRU."""
    return {"onnxruntime": _recurrent("GRU", weights, (0, 1, 2), x_BTF, threads)}


def simple_rnn(weights: list[Array], x_BTF: Array, threads: int) -> dict[str, Side]:
    return {
        "onnxruntime": _recurrent("RNN", weights, (0,), x_BTF, threads),
        "torch": _torch_recurrent("RNN", weights, x_BTF, threads),
    }


def dense(kernel: Array, bias: Array, x_NF: Array, lanes: int, threads: int) -> dict[str, Side]:
    import torch as t
    from onnx import helper

    t.set_num_threads(threads)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    run = session([node], {"w": kernel, "b": bias}, {"x": x_NF}, threads)
    x, w, b = (t.from_numpy(np.ascontiguousarray(a)) for a in (x_NF, kernel.T, bias))

    def linear() -> Array:
        with t.inference_mode():
            return t.nn.functional.linear(x, w, b).numpy().reshape(lanes, -1, len(bias))

    return {"onnxruntime": lambda: run().reshape(lanes, -1, len(bias)), "torch": linear}


def conv1d(kernel_KFU: Array, bias: Array, x_BTF: Array, threads: int) -> dict[str, Side]:
    """Both take (B, F, T)."""
    import torch as t
    from onnx import helper

    t.set_num_threads(threads)
    before = len(kernel_KFU) - 1
    x_BFT = np.ascontiguousarray(x_BTF.transpose(0, 2, 1))
    w = np.ascontiguousarray(kernel_KFU.transpose(2, 1, 0))
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[before, 0])
    run = session([node], {"w": w, "b": bias}, {"x": x_BFT}, threads)
    x, weight, offset = (t.from_numpy(a) for a in (x_BFT, w, bias))

    def convolve() -> Array:
        with t.inference_mode():
            padded = t.nn.functional.pad(x, (before, 0))
            return t.nn.functional.conv1d(padded, weight, offset).numpy().transpose(0, 2, 1)

    return {"onnxruntime": lambda: run().transpose(0, 2, 1), "torch": convolve}


def embedding(table_VE: Array, ids_BT: Array, threads: int) -> dict[str, Side]:
    import torch as t
    from onnx import helper

    t.set_num_threads(threads)
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    run = session([node], {"table": table_VE}, {"ids": ids_BT}, threads)
    table, ids = t.from_numpy(table_VE), t.from_numpy(ids_BT)

    def embed() -> Array:
        with t.inference_mode():
            return t.nn.functional.embedding(ids, table).numpy()

    return {"onnxruntime": run, "torch": embed}
