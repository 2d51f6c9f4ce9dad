"""The roles of a graph's inputs (data, states or lengths) and the outputs with the next states."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from streamrnn.errors import ConfigError, ModelMismatchError
from streamrnn.plugins.onnx.evaluate import Evaluator
from streamrnn.plugins.onnx.graph import GraphDef, NodeDef, Value
from streamrnn.plugins.onnx.recurrent import RECURRENT

Origins = frozenset[tuple[str, str]]
"""What a value is computed from: ("input", name), or (recurrent node's label, "y", "h" or "c")."""


@dataclass(frozen=True)
class Wiring:
    """The roles of a graph's inputs.

    data: inputs that receive features. lengths: inputs that are used as sequence_lens only.
    states: state input -> the output that is its next value, None if unknown.
    computed: recurrent nodes (labels) whose initial state is computed from data.
    own: recurrent nodes whose initial state is constant or zero; it is carried outside the graph.
    """

    data: tuple[Value, ...]
    lengths: tuple[str, ...]
    states: Mapping[str, str | None]
    computed: tuple[str, ...]
    own: tuple[str, ...]

    def require_states(self) -> None:
        """Raise ModelMismatchError if the output of a state is unknown."""
        unknown = [name for name, output in self.states.items() if output is None]
        if unknown:
            raise ModelMismatchError(
                f"[model] state: the graph's input {unknown[0]!r} is the initial state of a "
                "recurrent node; name the output with its next value: "
                f'state = {{ {unknown[0]} = "…" }}'
            )


def wire(evaluator: Evaluator, state: Mapping[str, str]) -> Wiring:
    """Determine the roles. state: input name -> output name, which overrides the analysis."""
    graph = evaluator.graph
    _check_names(graph, state)
    origins_of = _origins(evaluator)
    initial: dict[str, set[tuple[str, str]]] = {name: set() for name in state}
    computed, started = set(), set()
    for node, kind, name in first_states(graph):
        label = evaluator.label(node)
        sources = origins_of.get(name, frozenset())
        if sources:
            started.add(label)
        if any(origin != "input" for origin, _ in sources):
            computed.add(label)
        for origin, source in sources:
            if origin == "input":
                initial.setdefault(source, set()).add((label, kind))
    # Inputs that reach an output or a recurrent node's X are data, even if they are states, too.
    reached = {v.name for v in graph.outputs}
    reached |= {n.inputs[0] for n in graph.nodes if evaluator.labels.get(n.outputs[0])}
    data = {source for name in reached for source in origins_of.get(name, frozenset())}
    for name in [n for n in initial if ("input", n) in data and n not in state]:
        computed |= {label for label, _ in initial.pop(name)}
    lengths = tuple(
        v.name for v in graph.inputs if v.name not in initial and _only_lengths(graph, v.name)
    )
    states = {
        name: state.get(name) or _carrier(graph, origins_of, nodes)
        for name, nodes in initial.items()
    }
    return Wiring(
        data=tuple(v for v in graph.inputs if v.name not in initial and v.name not in lengths),
        lengths=lengths,
        states=states,
        computed=tuple(sorted(computed)),
        own=tuple(label for label in evaluator.recurrent if label not in started),
    )


def _check_names(graph: GraphDef, state: Mapping[str, str]) -> None:
    inputs = [v.name for v in graph.inputs]
    outputs = [v.name for v in graph.outputs]
    for name, output in state.items():
        if name not in inputs:
            raise ConfigError(
                f"[model] state: {name!r} is not an input of the graph; it has {', '.join(inputs)}"
            )
        if output not in outputs:
            raise ConfigError(
                f"[model] state.{name}: {output!r} is not an output of the graph; it has "
                f"{', '.join(outputs)}"
            )


def _only_lengths(graph: GraphDef, name: str) -> bool:
    uses = [(node.op, i) for node in graph.nodes for i, n in enumerate(node.inputs) if n == name]
    return bool(uses) and all(op in RECURRENT and i == 4 for op, i in uses)


def _carrier(
    graph: GraphDef, origins_of: Mapping[str, Origins], nodes: set[tuple[str, str]]
) -> str | None:
    """Return the output that is computed from exactly these final states, or None.

    Among several outputs, prefer a node's state itself, or a concatenation of states.
    """
    matching = [v.name for v in graph.outputs if origins_of.get(v.name) == frozenset(nodes)]
    if len(matching) > 1:
        makers = {name: node.op for node in graph.nodes for name in node.outputs}
        matching = [name for name in matching if makers.get(name) in (*RECURRENT, "Concat")]
    return matching[0] if len(matching) == 1 else None


def _origins(evaluator: Evaluator) -> dict[str, Origins]:
    """Return the origins of each value. Constants and shapes have none."""
    graph, none = evaluator.graph, frozenset[tuple[str, str]]()
    by_value = {v.name: frozenset({("input", v.name)}) for v in graph.inputs}
    for node in graph.nodes:
        if node.op in RECURRENT:
            for output, kind in zip(node.outputs, ("y", "h", "c"), strict=False):
                by_value[output] = frozenset({(evaluator.label(node), kind)})
            continue
        parts = [by_value.get(name, none) for name in node.inputs if name]
        merged = none if node.op == "Shape" else none.union(*parts)
        by_value |= dict.fromkeys(node.outputs, merged)
    return by_value


def first_states(graph: GraphDef) -> Iterator[tuple[NodeDef, str, str]]:
    """Yield (node, "h" or "c", name of the value) for each initial state."""
    for node in graph.nodes:
        if node.op in RECURRENT:
            for position, kind in ((5, "h"), (6, "c")):
                if node.input(position):
                    yield node, kind, node.input(position)
