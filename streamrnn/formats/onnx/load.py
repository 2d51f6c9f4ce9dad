"""Reading .onnx files: whole graphs, or one recurrent node of them as a layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamrnn.errors import ConfigError, UnsupportedError
from streamrnn.formats.assignment import Assignment, Loaded, assign_weights, require_finite
from streamrnn.formats.onnx.evaluate import fold, unused
from streamrnn.formats.onnx.graph import GraphDef, NodeDef
from streamrnn.formats.onnx.model import OnnxModel
from streamrnn.formats.onnx.parse import parse
from streamrnn.formats.onnx.recurrent import GATES, Direction, Recurrent, check, prepare
from streamrnn.layers import Input, PeepholeLSTMCell, registry
from streamrnn.layers.naming import snake_case
from streamrnn.models import Sequential

_LAYERS = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "SimpleRNN"}


def load_onnx(
    path: str | Path, *, node: str | None = None, state: Mapping[str, str] | None = None
) -> Loaded:
    """The graph of a file as a model, or one of its recurrent nodes as a Sequential."""
    path = Path(path)
    graph = parse(path.read_bytes(), path)
    left = unused(graph)
    folded = fold(graph)
    require_finite(folded.weights())
    if node is not None:
        return _one_node(graph, folded, node)
    model = OnnxModel(folded, state, name=snake_case(path.stem).replace("/", "_") or "graph")
    model.layer.check()
    placed = [Assignment(name, f"graph/{name}", w) for name, w in folded.weights().items()]
    return Loaded(model, placed, left)


def _one_node(graph: GraphDef, folded: GraphDef, name: str) -> Loaded:
    found = _find(folded, name)
    check(found)
    recurrent = prepare(found, folded.constants)
    given = [i for i in found.inputs[5:7] if i in folded.constants]
    if any(folded.constants[i].any() for i in given):
        raise UnsupportedError(
            f"{found} begins from a constant state ({given[0]!r}), which a layer cannot keep; load "
            "the whole graph, or give the state as initial_state"
        )
    label = name.strip("/").replace("/", ".")
    layer = registry.deserialize(_config(recurrent, label))
    model = Sequential([Input((None, recurrent.features)), layer])
    sides = ("forward_layer/cell", "backward_layer/cell")
    if len(recurrent.directions) == 1:
        sides = ("cell", "cell")
    placed = []
    for side, direction in zip(sides, recurrent.directions, strict=False):
        bias = found.inputs[3] if len(found.inputs) > 3 and found.inputs[3] else "(no bias)"
        placed += [
            Assignment(found.inputs[1], f"{label}/{side}/kernel", direction.kernel),
            Assignment(found.inputs[2], f"{label}/{side}/recurrent_kernel", direction.recurrent),
            Assignment(bias, f"{label}/{side}/bias", direction.bias),
        ]
        if direction.peepholes is not None:
            placed += [
                Assignment(found.inputs[7], f"{label}/{side}/{gate}_gate_peephole_weights", weights)
                for gate, weights in zip(PeepholeLSTMCell.GATES, direction.peepholes, strict=True)
            ]
    used = set(found.inputs)
    left = [n for n in graph.weights() if n not in used]
    return Loaded(model, assign_weights(model, placed), left)


def _find(graph: GraphDef, name: str) -> NodeDef:
    recurrent = [node for node in graph.nodes if node.op in GATES]
    for node in recurrent:
        if name in (node.name, *node.outputs):
            return node
    listed = ", ".join(repr(node.name) for node in recurrent) or "none"
    raise ConfigError(f"node: the graph has no recurrent node {name!r}; it has {listed}")


def _config(found: Recurrent, name: str) -> dict[str, Any]:
    first = found.directions[0]
    if len(found.directions) == 1:
        return _one_way(found, first, name)
    return {
        "class_name": "Bidirectional",
        "config": {
            "name": name,
            "layer": _one_way(found, first, "forward"),
            "backward_layer": _one_way(found, found.directions[1], "backward"),
        },
    }


def _one_way(found: Recurrent, direction: Direction, name: str) -> dict[str, Any]:
    cell = {"units": found.units, **_activations(found, direction)}
    if found.node.op == "GRU":
        cell["reset_after"] = found.reset_after
    around = {"return_sequences": True, "name": name}
    if direction.backwards:
        around["go_backwards"] = True
    if direction.peepholes is None:
        return {"class_name": _LAYERS[found.node.op], "config": {**cell, **around}}
    peephole = {"class_name": "PeepholeLSTMCell", "config": {**cell, "name": "cell"}}
    return {"class_name": "RNN", "config": {"cell": peephole, **around}}


def _activations(found: Recurrent, direction: Direction) -> dict[str, Any]:
    if direction.coupled:
        raise UnsupportedError(f"{found.node}: input_forget=1 has no layer; load the whole graph")
    for spec in direction.activations:
        if not isinstance(spec, str):
            raise UnsupportedError(
                f"{found.node}: activation {spec[0]!r} with {spec[1:]} has no layer; load the "
                "whole graph"
            )
    *gate, state = direction.activations
    if gate[1:] and gate[1] != state:
        raise UnsupportedError(
            f"{found.node}: activations g and h differ ({gate[1]}, {state}), which no layer has; "
            "load the whole graph"
        )
    return {"activation": state, **({"recurrent_activation": gate[0]} if gate else {})}
