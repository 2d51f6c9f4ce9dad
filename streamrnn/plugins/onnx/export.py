"""Models as ONNX graphs whose recurrent states are inputs and outputs, for ONNX Runtime and others.

Each state of a recurrent layer, "gru/h", is an input (1, batch, units); its value after the window
is the output "gru/h_out". Zeros start a stream; the outputs of one window are the states of the
next one. Called in this way, a graph needs no mask, and `stateful` has no meaning. load_model, and
`[model] path` of a pipeline, read the written file, and find its states themselves.

Layers are written as operators by their exact class; a subclass is refused, as it may compute
anything. For recurrent operators, the order of their gates, and reading them back, see `recurrent`.

Values that other runtimes compute may differ in the last bits. For an id below zero, which is an
error here, Gather reads from the end of an Embedding's table.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import UnsupportedError
from streamrnn.nn import layers
from streamrnn.nn.formats.guard import checked_target, refuse_integers, write_atomically
from streamrnn.nn.layers import Layer, registry
from streamrnn.nn.layers.activations import LEAST_DEVIATION
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.models import Model
from streamrnn.nn.models.graph import Graph
from streamrnn.plugins.onnx.export_call import (
    GraphBuilder,
    LayerCall,
    activated,
    clipped_relu,
    node_activations,
)
from streamrnn.plugins.onnx.graph import GraphDef, Value
from streamrnn.plugins.onnx.load import encode
from streamrnn.plugins.onnx.model import OnnxModel
from streamrnn.plugins.onnx.recurrent import RECURRENT

OPSET = 17
"""The first opset with LayerNormalization."""
_CAST_TO_FLOAT = 1
_REASONS = {
    layers.Bidirectional: "its second direction reads each window from its end, so that no state "
    "can be carried to the next one",
    layers.StringLookup: "give the model the ids, as an Input of dtype int64",
    layers.IntegerLookup: "give the model the ids, as an Input of dtype int64",
}
_NODES = {cell: op for op, operator in RECURRENT.items() for cell in operator.cells}
_PEEPHOLES = ("input", "output", "forget")


def save_onnx(model: Model, path: str | Path) -> None:
    """Write a model as an .onnx file; after an error, an earlier file at `path` is unchanged.

    Raises UnsupportedError if a layer, which the error names, cannot be written as ONNX, or if the
    extra onnx is missing; SinkError where no file can be written, OSError if writing fails.
    """
    path = checked_target(path, ".onnx", "an ONNX graph")
    write_atomically({path: encode(graph_of(model), path)})


def state_names(model: Model) -> dict[str, str]:
    """Return the state inputs of a model's graph: name -> the output with its next value."""
    graph = graph_of(model)
    before = graph.inputs[len(model.graph.inputs) :]
    after = graph.outputs[len(model.graph.outputs) :]
    return {a.name: b.name for a, b in zip(before, after, strict=True)}


def graph_of(model: Model) -> GraphDef:
    """Return a model as a graph: its inputs, then the states; its outputs, then the next states.

    Raises UnsupportedError, which names what cannot be written as ONNX: a layer, input or model.
    """
    if isinstance(model, OnnxModel):
        raise UnsupportedError(f"{model} is already an ONNX graph: copy its file")
    refuse_integers(model, "an ONNX graph")
    builder = GraphBuilder()
    inputs = []
    for name, shape, dtype in model.input_specs:
        if dtype == "string":
            raise UnsupportedError(
                f"input {name!r} cannot be written as ONNX: it reads strings. Give the model the "
                "ids, as an Input of dtype int64"
            )
        inputs.append(Value(builder.fresh(name), dtype, (None, *shape)))
    builder.integers = {value.name for value in inputs if value.dtype != "float32"}
    ends = _calls(builder, model.graph, [value.name for value in inputs], "")
    # Outputs are named after their layers, with a number where a layer has several.
    names, outputs = [symbol.layer.name for symbol in model.graph.outputs], []
    for i, (symbol, source) in enumerate(zip(model.graph.outputs, ends, strict=True)):
        name = builder.fresh(f"{names[i]}_{i}" if names.count(names[i]) > 1 else names[i])
        builder.node("Identity", [source], [name], name)
        dtype = "int64" if source in builder.integers else "float32"
        outputs.append(Value(name, dtype, (None, *symbol.shape[1:])))
    return GraphDef(
        builder.fresh(model.name),
        OPSET,
        (*inputs, *(first for first, _ in builder.states)),
        (*outputs, *(last for _, last in builder.states)),
        tuple(builder.nodes),
        builder.constants,
    )


def _calls(builder: GraphBuilder, graph: Graph, inputs: Sequence[str], prefix: str) -> list[str]:
    """Append the nodes of all calls of a graph, and return the names of its outputs."""
    values: list[Any] = [None] * len(graph.slots)
    for symbol, name in zip(graph.inputs, inputs, strict=True):
        values[graph.slots[id(symbol)]] = name
    for step in graph.steps:
        layer, node = step.node.layer, step.node
        owner = f"{prefix}{layer.name.replace('/', '%2F')}"
        call = LayerCall(builder, layer, f"{prefix}{step.path}", owner, ())
        if "initial_state" in node.kwargs:
            raise call.refused(
                "the model computes its initial_state, but in the graph its state is "
                "an input; start it from zeros"
            )
        if "mask" in node.kwargs:
            raise call.refused(
                "it is called with a mask, which recurrent nodes of ONNX do not have"
            )
        if node.kwargs.get("training"):
            raise call.refused("it is called with training=True: a graph draws no random numbers")
        names = list(leaves(step.inputs(values)))
        if not all(isinstance(name, str) for name in names):
            raise call.refused("one of its inputs is a constant")
        if isinstance(layer, Model) and not isinstance(layer, OnnxModel):
            outputs = _calls(builder, layer.graph, names, f"{call.path}/")
        else:
            if layer.input_dtype == "float32":
                names = [
                    call.add("Cast", name, to=_CAST_TO_FLOAT) if name in builder.integers else name
                    for name in names
                ]
            outputs = _exported(replace(call, inputs=tuple(names)))
        for slot, name in zip(step.outputs, outputs, strict=True):
            values[slot] = name
    return [values[graph.slots[id(symbol)]] for symbol in graph.outputs]


def _exported(call: LayerCall) -> list[str]:
    """Append the nodes of a call, and return the names of its outputs. Raises UnsupportedError."""
    layer = call.layer
    if layer.makes_mask:
        raise call.refused(
            "it masks steps, and recurrent nodes of ONNX have no masks; remove the masked steps "
            "before the model reads them"
        )
    if getattr(layer, "axes", (-1,)) != (-1,):
        raise call.refused("it works on axes other than the last; use axis = -1")
    if type(layer) in _RECURRENT:
        return _recurrent_node(call)
    if type(layer) in _WRITERS:
        return [_WRITERS[type(layer)](call)]
    listed = ", ".join(sorted(kind.__name__ for kind in (*_WRITERS, *_RECURRENT)))
    raise call.refused(
        _REASONS.get(type(layer))
        or f"the layers that can be written are {listed}. Leave this layer out, or write the "
        "model as .safetensors, which can hold every layer"
    )


def _dense(call: LayerCall) -> str:
    w = call.layer.named_weights()
    y = call.add("MatMul", call.inputs[0], call.constant("kernel", w["kernel"]))
    if "bias" in w:
        y = call.add("Add", y, call.constant("bias", w["bias"]))
    return activated(call, call.layer.activation, y)


def _relu(call: LayerCall) -> str:
    layer, (x,) = call.layer, call.inputs
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        raise call.refused("expected threshold=0, and at most one of negative_slope and max_value")
    if layer.max_value is not None:
        return clipped_relu(call, x, layer.max_value)
    if layer.negative_slope:
        return call.add("LeakyRelu", x, alpha=layer.negative_slope)
    return call.add("Relu", x)


def _normalization(call: LayerCall) -> str:
    layer, (x,) = call.layer, call.inputs
    mean = layer.named_weights()["mean"] if layer.mean is None else layer.mean.reshape(-1)
    center, scale = call.constant("mean", mean), call.constant("deviation", layer.deviation())
    if layer.invert:
        return call.add("Add", call.add("Mul", x, scale), center)
    return call.add("Div", call.add("Sub", x, center), scale)


def _layer_normalization(call: LayerCall) -> str:
    layer = call.layer
    w, ones = layer.named_weights(), np.ones(layer.features, np.float32)
    scale = call.constant("gamma", w.get("gamma", ones))
    shift = [call.constant("beta", w["beta"])] if layer.center else []
    return call.add(
        "LayerNormalization", *call.inputs, scale, *shift, axis=-1, epsilon=float(layer.epsilon)
    )


def _batch_normalization(call: LayerCall) -> str:
    layer = call.layer
    w = layer.named_weights()
    factor = layer.factor(w["moving_variance"])
    shift = -w["moving_mean"] * factor
    if layer.center:
        shift = shift + w["beta"]
    y = call.add("Mul", *call.inputs, call.constant("factor", factor))
    return call.add("Add", y, call.constant("shift", shift))


def _gaussian(call: LayerCall) -> str:
    halves = [call.builder.fresh(f"{call.path}/{name}") for name in ("mean", "above")]
    call.builder.node("Split", call.inputs, halves, halves[0], axis=-1)
    least = call.constant("least", LEAST_DEVIATION)
    deviation = call.add("Add", call.add("Softplus", halves[1]), least)
    return call.add("Concat", halves[0], deviation, axis=-1)


def _embedding(call: LayerCall) -> str:
    (ids,) = call.inputs
    if ids not in call.builder.integers:
        raise call.refused("its ids are computed; they must be an input of the model")
    table = call.constant("embeddings", call.layer.get_weights()[0])
    return call.add("Gather", table, ids, axis=0)


def _of_many(call: LayerCall, op: str, values: Iterable[str]) -> str:
    return reduce(lambda a, b: call.add(op, a, b), values)


def _mean(call: LayerCall, values: Sequence[str]) -> str:
    total = _of_many(call, "Add", values)
    return call.add("Div", total, call.constant("number", len(values)))


def _spread(call: LayerCall) -> str:
    mean = _mean(call, call.inputs)
    errors = [call.add("Sub", x, mean) for x in call.inputs]
    part = _mean(call, [call.add("Mul", error, error) for error in errors])
    variance = call.constant("variance", call.layer.variance)
    return call.add("Sqrt", call.add("Add", part, variance))


def _reshape(call: LayerCall) -> str:
    # A size of 0 copies the number of rows.
    sizes = np.array([0, *call.layer.target_shape], np.int64)
    return call.add("Reshape", *call.inputs, call.builder.constant(f"{call.owner}/shape", sizes))


def _time_distributed(call: LayerCall) -> str:
    inner: Layer = call.layer.layer
    if type(inner) not in _ON_FEATURES:
        listed = ", ".join(sorted(kind.__name__ for kind in _ON_FEATURES))
        raise call.refused(f"the layer inside is {inner}; supported: {listed}")
    path, owner = f"{call.path}/layer", f"{call.owner}/layer"
    return _exported(replace(call, layer=inner, path=path, owner=owner))[0]


def _recurrent_node(call: LayerCall) -> list[str]:
    """Append the node of a layer; return its output, and with return_state its final states."""
    layer, cell = call.layer, call.layer.cell
    op = _NODES.get(type(cell))
    if op is None:
        supported = ", ".join(kind.__name__ for kind in _NODES)
        raise call.refused(f"ONNX has no node for {cell}; it has nodes for {supported}")
    if layer.go_backwards:
        raise call.refused(
            "with go_backwards=True it reads each window from its end, so that no state can be "
            "carried to the next one"
        )
    specs = cell.activations()
    if op == "LSTM":
        specs = (cell.recurrent_activation, cell.activation, cell.activation)
    attributes: dict[str, object] = {"hidden_size": cell.units, **node_activations(call, specs)}
    if option := RECURRENT[op].before_reset:
        attributes["linear_before_reset"] = int(getattr(cell, option))
    before, after = _states(call, cell)
    inputs = [call.add("Transpose", call.inputs[0], perm=[1, 0, 2]), *_weights(call, cell, op)]
    inputs += ["", *before]  # no sequence_lens
    if type(cell) is layers.PeepholeLSTMCell:
        own = cell.named_weights()
        weights = [own[f"{gate}_gate_peephole_weights"] for gate in _PEEPHOLES]
        inputs.append(call.constant("P", np.concatenate(weights)[None]))
    y = call.builder.fresh(f"{call.path}/y") if layer.return_sequences else ""
    name = call.builder.fresh(f"{call.path}/{op}")
    call.builder.node(op, inputs, [y, *after], name, **attributes)
    if layer.return_sequences:
        steps = call.add("Squeeze", y, call.builder.axis(1))
        outputs = [call.add("Transpose", steps, perm=[1, 0, 2])]
    else:
        outputs = [call.add("Squeeze", after[0], call.builder.axis(0))]
    if layer.return_state:
        outputs += [call.add("Squeeze", state, call.builder.axis(0)) for state in after]
    return outputs


def _states(call: LayerCall, cell: GatedCell) -> tuple[list[str], list[str]]:
    """Return the names of the initial and the final states, which become inputs and outputs."""
    before, after = [], []
    for kind in cell.kind.states:
        names = [call.builder.fresh(f"{call.path}/{kind}{suffix}") for suffix in ("", "_out")]
        first, last = (Value(name, "float32", (1, None, cell.units)) for name in names)
        call.builder.states.append((first, last))
        before.append(first.name)
        after.append(last.name)
    return before, after


def _weights(call: LayerCall, cell: GatedCell, op: str) -> list[str]:
    """Return the names of W (1, G U, F), R (1, G U, U) and B (1, 2 G U), "" without biases."""
    blocks = cell.kind.columns(RECURRENT[op].gates)

    def ordered(columns: Array) -> Array:
        parts = np.split(columns, len(blocks), axis=-1)
        return np.concatenate([parts[i] for i in blocks], axis=-1)

    w = cell.named_weights()
    names = [
        call.constant("W", ordered(w["kernel"]).T[None]),
        call.constant("R", ordered(w["recurrent_kernel"]).T[None]),
    ]
    if "bias" not in w:
        return [*names, ""]
    bias = w["bias"]
    both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
    return [*names, call.constant("B", ordered(both).reshape(1, -1))]


_RECURRENT = registry.own_classes(layers.RNN)
_ON_FEATURES: dict[type[Any], Callable[[LayerCall], str]] = {
    **dict.fromkeys(
        (
            layers.ActivityRegularization,
            layers.AlphaDropout,
            layers.Dropout,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.Identity,
            layers.SpatialDropout1D,
        ),
        lambda call: call.inputs[0],
    ),
    layers.Activation: lambda call: activated(call, call.layer.activation, call.inputs[0]),
    layers.BatchNormalization: _batch_normalization,
    layers.Dense: _dense,
    layers.ELU: lambda call: call.add("Elu", *call.inputs, alpha=float(call.layer.alpha)),
    layers.Embedding: _embedding,
    layers.Gaussian: _gaussian,
    layers.LayerNormalization: _layer_normalization,
    layers.LeakyReLU: lambda call: call.add(
        "LeakyRelu", *call.inputs, alpha=float(call.layer.negative_slope)
    ),
    layers.Normalization: _normalization,
    layers.PReLU: lambda call: call.add(
        "PRelu", *call.inputs, call.constant("alpha", call.layer.get_weights()[0])
    ),
    layers.ReLU: _relu,
    layers.Rescaling: lambda call: call.add(
        "Add",
        call.add("Mul", *call.inputs, call.constant("scale", call.layer.scale)),
        call.constant("offset", call.layer.offset),
    ),
    layers.Softmax: lambda call: call.add("Softmax", *call.inputs, axis=-1),
}
"""Layers that compute all steps alike, regardless of the axes before the last."""
_WRITERS: dict[type[Any], Callable[[LayerCall], str]] = {
    **_ON_FEATURES,
    layers.Add: lambda call: _of_many(call, "Add", call.inputs),
    layers.Average: lambda call: _mean(call, call.inputs),
    layers.Concatenate: lambda call: call.add("Concat", *call.inputs, axis=call.layer.from_end),
    layers.Flatten: lambda call: call.add("Flatten", *call.inputs, axis=1),
    layers.Maximum: lambda call: call.add("Max", *call.inputs),
    layers.Minimum: lambda call: call.add("Min", *call.inputs),
    layers.Multiply: lambda call: _of_many(call, "Mul", call.inputs),
    layers.Reshape: _reshape,
    layers.Spread: _spread,
    layers.Subtract: lambda call: _of_many(call, "Sub", call.inputs),
    layers.TimeDistributed: _time_distributed,
}
