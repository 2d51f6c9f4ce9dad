"""Reading .onnx files: whole graphs, or one recurrent node of them as a layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamrnn.errors import ConfigError, UnsupportedError
from streamrnn.formats.onnx.evaluate import fold, unused
from streamrnn.formats.onnx.graph import Graph, Node
from streamrnn.formats.onnx.model import OnnxModel
from streamrnn.formats.onnx.parse import parse
from streamrnn.formats.onnx.recurrent import GATES, Direction, Recurrent, check, prepare
from streamrnn.formats.placing import Loaded, Placed, place, require_finite
from streamrnn.layers import Input, registry
from streamrnn.layers.naming import snake_case
from streamrnn.models import Sequential

_LAYERS = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "SimpleRNN"}


def load(
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
    placed = [Placed(name, f"graph/{name}", w) for name, w in folded.weights().items()]
    return Loaded(model, placed, left)


def _one_node(graph: Graph, folded: Graph, name: str) -> Loaded:
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
            Placed(found.inputs[1], f"{label}/{side}/kernel", direction.kernel),
            Placed(found.inputs[2], f"{label}/{side}/recurrent_kernel", direction.recurrent),
            Placed(bias, f"{label}/{side}/bias", direction.bias),
        ]
    used = set(found.inputs)
    left = [n for n in graph.weights() if n not in used]
    return Loaded(model, place(model, placed), left)


def _find(graph: Graph, name: str) -> Node:
    recurrent = [node for node in graph.nodes if node.op in GATES]
    for node in recurrent:
        if name in (node.name, *node.outputs):
            return node
    listed = ", ".join(repr(node.name) for node in recurrent) or "none"
    raise ConfigError(f"node: the graph has no recurrent node {name!r}; it has {listed}")


def _config(found: Recurrent, name: str) -> dict[str, Any]:
    kind = _LAYERS[found.node.op]
    first = found.directions[0]
    config = {
        "units": found.units,
        "return_sequences": True,
        **_activations(found, first),
    }
    if found.node.op == "GRU":
        config["reset_after"] = found.reset_after
    if len(found.directions) == 1:
        backwards = {"go_backwards": True} if first.backwards else {}
        return {"class_name": kind, "config": {**config, **backwards, "name": name}}
    back = {**config, **_activations(found, found.directions[1])}
    return {
        "class_name": "Bidirectional",
        "config": {
            "name": name,
            "layer": {"class_name": kind, "config": {**config, "name": "forward"}},
            "backward_layer": {
                "class_name": kind,
                "config": {**back, "go_backwards": True, "name": "backward"},
            },
        },
    }


def _activations(found: Recurrent, direction: Direction) -> dict[str, Any]:
    for spec in (direction.gate, direction.state):
        if not isinstance(spec, str):
            raise UnsupportedError(
                f"{found.node}: activation {spec[0]!r} with {spec[1:]} has no layer; load the "
                "whole graph"
            )
    if found.node.op == "RNN":
        return {"activation": direction.state}
    return {"activation": direction.state, "recurrent_activation": direction.gate}
