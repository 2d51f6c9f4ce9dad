"""Small ONNX graphs, made by hand. Needs onnx."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model(
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: list[str],
    constants: dict[str, Any],
    opset: int = 17,
) -> Any:
    """A model. inputs: name -> (type, dims)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, kind, dims) for n, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def weights(op: str, directions: int, features: int, units: int, seed: int = 0) -> dict[str, Any]:
    """W, R and B of a recurrent node."""
    random = np.random.default_rng(seed)
    rows = GATES[op] * units
    shapes = {
        "W": (directions, rows, features),
        "R": (directions, rows, units),
        "B": (directions, 2 * rows),
    }
    return {n: random.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}


def recurrent(
    op: str,
    *,
    direction: str = "forward",
    layout: int = 0,
    lengths: bool = False,
    initial: bool = False,
    bias: bool = True,
    peepholes: bool = False,
    features: int = 3,
    units: int = 4,
    **attributes: Any,
) -> Any:
    """One recurrent node with all its outputs."""
    directions = 2 if direction == "bidirectional" else 1
    constants = weights(op, directions, features, units)
    if not bias:
        del constants["B"]
    states = ["h", "c"] if op == "LSTM" else ["h"]
    names = ["X", "W", "R", "B" if bias else "", "lens" if lengths else ""]
    inputs: dict[str, Any] = {"X": (TensorProto.FLOAT, ["a", "b", features])}
    if lengths:
        inputs["lens"] = (TensorProto.INT32, ["batch"])
    if initial:
        names += states
        shape = ["batch", directions, units] if layout else [directions, "batch", units]
        inputs |= dict.fromkeys(states, (TensorProto.FLOAT, shape))
    if peepholes:
        names += [""] * (7 - len(names)) + ["P"]
        drawn = np.random.default_rng(9).normal(0, 1, (directions, 3 * units))
        constants["P"] = drawn.astype(np.float32)
    node = helper.make_node(
        op,
        names,
        ["Y", *(f"Y_{s}" for s in states)],
        name="rnn",
        hidden_size=units,
        direction=direction,
        layout=layout,
        **attributes,
    )
    return model([node], inputs, ["Y", *(f"Y_{s}" for s in states)], constants)


def as_tf2onnx_writes_it(op: str = "LSTM", *, sequences: bool = True) -> Any:
    """Batch first outside, time first inside, the direction squeezed away, Dense in two nodes."""
    constants = weights(op, 1, 3, 4)
    constants |= {
        "kernel": np.random.default_rng(1).normal(0, 1, (4, 2)).astype(np.float32),
        "bias": np.array([0.5, -1], np.float32),
        "axis": np.array([1 if sequences else 0], np.int64),
    }
    states = ["", "Y_h"]
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node(op, ["xt", "W", "R", "B"], ["Y"] if sequences else states, name="rnn",
                         hidden_size=4),
        helper.make_node("Squeeze", ["Y" if sequences else "Y_h", "axis"], ["ys"]),
    ]  # fmt: skip
    last = "ys"
    if sequences:
        nodes.append(helper.make_node("Transpose", ["ys"], ["yt"], perm=[1, 0, 2]))
        last = "yt"
    nodes += [
        helper.make_node("MatMul", [last, "kernel"], ["mm"]),
        helper.make_node("Add", ["mm", "bias"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["out"], axis=-1),
    ]
    inputs = {"x": (TensorProto.FLOAT, ["batch", "time", 3])}
    return model(nodes, inputs, ["out"], constants)


def one_step() -> Any:
    """A graph that takes one step: x (batch, 3), states as inputs and outputs."""
    constants = weights("LSTM", 1, 3, 4) | {"zero": np.array([0], np.int64)}
    nodes = [
        helper.make_node("Unsqueeze", ["x", "zero"], ["xt"]),
        helper.make_node(
            "LSTM", ["xt", "W", "R", "B", "", "h", "c"], ["", "hn", "cn"], name="rnn", hidden_size=4
        ),
        helper.make_node("Squeeze", ["hn", "zero"], ["y"]),
    ]
    state = (TensorProto.FLOAT, [1, "batch", 4])
    inputs = {"x": (TensorProto.FLOAT, ["batch", 3]), "h": state, "c": state}
    return model(nodes, inputs, ["y", "hn", "cn"], constants)


def ids_and_scores() -> Any:
    """Token ids -> embedding -> GRU from a constant state -> LayerNormalization -> Gemm."""
    random = np.random.default_rng(3)
    constants = weights("GRU", 1, 5, 4) | {
        "table": random.normal(0, 1, (7, 5)).astype(np.float32),
        "scale": random.normal(1, 0.1, 4).astype(np.float32),
        "shift": random.normal(0, 0.1, 4).astype(np.float32),
        "h0": random.normal(0, 1, (1, 1, 4)).astype(np.float32),
        "w": random.normal(0, 1, (2, 4)).astype(np.float32),
        "b": random.normal(0, 1, 2).astype(np.float32),
        "one": np.array([1], np.int64),
        "zero": np.array([0], np.int64),
        "four": np.array([4], np.int64),
        "rows": np.array([-1, 4], np.int64),
        "two": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], axis=0),
        helper.make_node("Transpose", ["e"], ["et"], perm=[1, 0, 2]),
        helper.make_node("Shape", ["ids"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["batch"]),
        helper.make_node("Concat", ["one", "batch", "four"], ["states"], axis=0),
        helper.make_node("Expand", ["h0", "states"], ["h"]),
        helper.make_node("GRU", ["et", "W", "R", "B", "", "h"], ["Y"], name="rnn", hidden_size=4,
                         linear_before_reset=1),
        helper.make_node("Squeeze", ["Y", "one"], ["ys"]),
        helper.make_node("LayerNormalization", ["ys", "scale", "shift"], ["n"], epsilon=1e-3),
        helper.make_node("Transpose", ["n"], ["nt"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["nt", "rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["g"], transB=1, alpha=0.5),
        helper.make_node("Shape", ["ids"], ["again"]),
        helper.make_node("Concat", ["again", "two"], ["back"], axis=0),
        helper.make_node("Reshape", ["g", "back"], ["r"]),
        helper.make_node("LeakyRelu", ["r"], ["out"], alpha=0.1),
    ]  # fmt: skip
    return model(nodes, {"ids": (TensorProto.INT64, ["batch", "time"])}, ["out"], constants)


def ids_beside_features() -> Any:
    """Token ids, embedded, and features, joined for one LSTM: two inputs with a time axis."""
    constants = weights("LSTM", 1, 5, 4) | {
        "table": np.random.default_rng(4).normal(0, 1, (6, 2)).astype(np.float32),
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], axis=0),
        helper.make_node("Concat", ["x", "e"], ["joined"], axis=2),
        helper.make_node("LSTM", ["joined", "W", "R", "B"], ["Y"], name="rnn", hidden_size=4),
        helper.make_node("Squeeze", ["Y", "one"], ["out"]),
    ]
    inputs = {
        "x": (TensorProto.FLOAT, ["time", "batch", 3]),
        "ids": (TensorProto.INT64, ["time", "batch"]),
    }
    return model(nodes, inputs, ["out"], constants)
