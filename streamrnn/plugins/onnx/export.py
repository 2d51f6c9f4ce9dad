"""Models as ONNX graphs whose recurrent states are inputs and outputs, for ONNX Runtime and others.

Each state of a recurrent layer, "gru/h", is an input (1, batch, units); its value after the window
is the output "gru/h_out". Zeros start a stream; the outputs of one window are the states of the
next one. Called in this way, a graph needs no mask, and `stateful` has no meaning. load_model, and
`[model] path` of a pipeline, read such a file, and find its states themselves.

The values that runtimes compute differ in the last bits. For an id below zero, which is an error
here, Gather reads from the end of an Embedding's table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.writing import checked_target, refuse_integers, write_atomically
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.models import Model
from streamrnn.nn.models.graph import Graph
from streamrnn.plugins.onnx.export_call import GraphBuilder, LayerCall
from streamrnn.plugins.onnx.export_layers import exported
from streamrnn.plugins.onnx.files import encode
from streamrnn.plugins.onnx.graph import GraphDef, Value
from streamrnn.plugins.onnx.model import OnnxModel

OPSET = 17
"""The first opset with LayerNormalization."""
_CAST_TO_FLOAT = 1


def save_onnx(model: Model, path: str | Path) -> None:
    """Write a model as an .onnx file, which is complete or does not exist.

    Raises UnsupportedError that names a layer which ONNX does not have, or if the extra onnx is
    missing; SinkError if the file cannot be written.
    """
    path = checked_target(path, ".onnx", "a graph")
    write_atomically(path, encode(graph_of(model), path))


def state_names(model: Model) -> dict[str, str]:
    """Return the state inputs of a model's graph: name -> the output with its next value."""
    graph = graph_of(model)
    before = graph.inputs[len(model.graph.inputs) :]
    after = graph.outputs[len(model.graph.outputs) :]
    return {a.name: b.name for a, b in zip(before, after, strict=True)}


def graph_of(model: Model) -> GraphDef:
    """Return a model as a graph: its inputs, then the states; its outputs, then the next states.

    Raises UnsupportedError that names the layer which ONNX does not have.
    """
    if isinstance(model, OnnxModel):
        raise UnsupportedError(f"{model} is a graph of ONNX already: copy its file")
    refuse_integers(model, "a graph of ONNX")
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
            outputs = exported(LayerCall(builder, layer, call.path, owner, tuple(names)))
        for slot, name in zip(step.outputs, outputs, strict=True):
            values[slot] = name
    return [values[graph.slots[id(symbol)]] for symbol in graph.outputs]
