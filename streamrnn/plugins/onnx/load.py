"""Readers of .onnx files: complete graphs, or one recurrent node as a layer."""

from collections.abc import Mapping
from pathlib import Path

from streamrnn.errors import ConfigError, UnsupportedError
from streamrnn.nn.formats.assignment import Assignment, Loaded, assign_weights, require_finite
from streamrnn.nn.kernels.packing import dequantized
from streamrnn.nn.layers import Input, PeepholeLSTMCell, registry
from streamrnn.nn.layers.registry import snake_case
from streamrnn.nn.models import Sequential
from streamrnn.plugins.onnx.evaluate import fold, unused
from streamrnn.plugins.onnx.files import parse_graph
from streamrnn.plugins.onnx.graph import GraphDef
from streamrnn.plugins.onnx.model import OnnxModel
from streamrnn.plugins.onnx.recurrent import RECURRENT, Direction, Recurrent, check, prepare


def load_onnx(
    path: str | Path, *, node: str | None = None, state: Mapping[str, str] | None = None
) -> Loaded:
    """Read the graph of a file as a model, or one of its recurrent nodes as a Sequential."""
    path = Path(path)
    graph = parse_graph(path.read_bytes(), path)
    left = unused(graph)
    folded = fold(graph)
    require_finite(folded.weights())
    if node is not None:
        return _one_node(graph, folded, node)
    model = OnnxModel(folded, state, name=snake_case(path.stem).replace("/", "_") or "graph")
    model.check_weights()
    assignments = [Assignment(name, f"graph/{name}", w) for name, w in folded.weights().items()]
    return Loaded(model, assignments, left)


def _one_node(graph: GraphDef, folded: GraphDef, name: str) -> Loaded:
    nodes = [node for node in folded.nodes if node.op in RECURRENT]
    node = next((node for node in nodes if name in (node.name, *node.outputs)), None)
    if node is None:
        listed = ", ".join(repr(node.name) for node in nodes) or "none"
        raise ConfigError(f"node: the graph has no recurrent node {name!r}; it has {listed}")
    check(node)
    recurrent = prepare(node, folded.constants)
    states = [i for i in node.inputs[5:7] if i in folded.constants]
    if any(folded.constants[i].any() for i in states):
        raise UnsupportedError(
            f"{node} has a constant initial state ({states[0]!r}), which a layer cannot store; "
            "load the whole graph, or pass the state as initial_state"
        )
    label = name.strip("/").replace("/", ".")
    both = len(recurrent.directions) > 1
    names = ("forward", "backward") if both else (label,)
    config, *back = (
        _one_direction(recurrent, direction, name)
        for direction, name in zip(recurrent.directions, names, strict=True)
    )
    if back:
        two_sides = {"name": label, "layer": config, "backward_layer": back[0]}
        config = {"class_name": "Bidirectional", "config": two_sides}
    model = Sequential([Input((None, recurrent.features)), registry.deserialize(config)])
    sides = ("forward_layer/cell", "backward_layer/cell") if both else ("cell",)
    assignments = []
    for side, direction in zip(sides, recurrent.directions, strict=True):
        bias = node.input(3) or "(no bias)"
        assignments += [
            Assignment(node.inputs[1], f"{label}/{side}/kernel", dequantized(direction.kernel)),
            Assignment(
                node.inputs[2], f"{label}/{side}/recurrent_kernel", dequantized(direction.recurrent)
            ),
            Assignment(bias, f"{label}/{side}/bias", direction.bias),
        ]
        if direction.peepholes is not None:
            assignments += [
                Assignment(node.inputs[7], f"{label}/{side}/{gate}_gate_peephole_weights", weights)
                for gate, weights in zip(PeepholeLSTMCell.GATES, direction.peepholes, strict=True)
            ]
    used = set(node.inputs)
    left = [n for n in graph.weights() if n not in used]
    return Loaded(model, assign_weights(model, assignments), left)


def _one_direction(recurrent: Recurrent, direction: Direction, name: str) -> dict[str, object]:
    cell = {"units": recurrent.units, **_activations(recurrent, direction)}
    if option := RECURRENT[recurrent.node.op].before_reset:
        cell[option] = recurrent.reset_after
    options: dict[str, object] = {"return_sequences": True, "name": name}
    if direction.backwards:
        options["go_backwards"] = True
    if direction.peepholes is None:
        return {
            "class_name": recurrent.cell_class.removesuffix("Cell"),
            "config": {**cell, **options},
        }
    peephole = {"class_name": "PeepholeLSTMCell", "config": {**cell, "name": "cell"}}
    return {"class_name": "RNN", "config": {"cell": peephole, **options}}


def _activations(recurrent: Recurrent, direction: Direction) -> dict[str, object]:
    if direction.coupled:
        raise UnsupportedError(
            f"{recurrent.node}: no layer has input_forget=1; load the whole graph"
        )
    for spec in direction.activations:
        if not isinstance(spec, str):
            raise UnsupportedError(
                f"{recurrent.node}: no layer has activation {spec[0]!r} with {spec[1:]}; load the "
                "whole graph"
            )
    *gate, state = direction.activations
    if gate[1:] and gate[1] != state:
        raise UnsupportedError(
            f"{recurrent.node}: activations g and h differ ({gate[1]}, {state}), which no layer "
            "supports; load the whole graph"
        )
    return {"activation": state, **({"recurrent_activation": gate[0]} if gate else {})}
