"""Running a graph's nodes one after the other, and what is known before there is data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from streamrnn.errors import ShapeError, StreamRNNError, UnsupportedError
from streamrnn.formats.onnx.graph import Arrays, GraphDef, NodeDef
from streamrnn.formats.onnx.operators import ALLOWED, MAX_VALUES, OPERATORS
from streamrnn.formats.onnx.recurrent import GATES, Recurrent, check, prepare, weight_names

_NUMPY_RAISES = (ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError)
_MAX_FOLDED = 1 << 22
_MAX_GROWTH = 1 << 14
"""How many values all nodes together may make out of each value that is fed."""


def fold(graph: GraphDef) -> GraphDef:
    """The graph with everything computed that depends on constants only, and no others kept."""
    constants = dict(graph.constants)
    kept = []
    for node in graph.nodes:
        ready = all(name in constants for name in node.inputs if name)
        if node.op in OPERATORS and ready and not set(node.attributes) - ALLOWED[node.op]:
            made = _apply(node, constants, graph.opset)
            if sum(array.size for array in made) <= _MAX_FOLDED:
                constants |= {n: a for n, a in zip(node.outputs, made, strict=False) if n}
                continue
        kept.append(node)
    used = {name for node in kept for name in node.inputs} | {v.name for v in graph.outputs}
    constants = {name: array for name, array in constants.items() if name in used}
    return replace(graph, nodes=tuple(kept), constants=constants)


def unused(graph: GraphDef) -> list[str]:
    """The stored constants that no node reads."""
    used = {name for node in graph.nodes for name in node.inputs}
    used |= {v.name for v in graph.outputs} | {o for n in graph.nodes for o in n.outputs}
    return [name for name in graph.constants if name not in used and name]


def require_supported(graph: GraphDef) -> None:
    """Raise UnsupportedError naming the first node that cannot be run, or its attribute."""
    for node in graph.nodes:
        if node.op in GATES:
            check(node)
            continue
        if node.op not in OPERATORS:
            known = ", ".join(sorted([*OPERATORS, *GATES]))
            raise UnsupportedError(
                f"{node}: the operator is not supported; supported are {known}. One recurrent node "
                "can be taken out of a graph: load_model(path, node=…), or convert --node NAME"
            )
        if unknown := sorted(set(node.attributes) - ALLOWED[node.op]):
            raise UnsupportedError(f"{node}: attribute {unknown[0]!r} is not supported")


def labels(nodes: Sequence[NodeDef]) -> dict[str, str]:
    """A short name, made once, of each recurrent node; by the node's first output."""
    made: dict[str, str] = {}
    for node in nodes:
        if node.op in GATES:
            base = node.name.strip("/").replace("/", ".") or node.op.lower()
            number = sum(label == base or label.startswith(f"{base}#") for label in made.values())
            made[_key(node)] = f"{base}#{number + 1}" if number else base
    return made


def _key(node: NodeDef) -> str:
    return next((name for name in node.outputs if name), node.name)


class Evaluator:
    """A graph whose recurrent nodes are packed. Threads may share it: running changes nothing."""

    def __init__(self, graph: GraphDef) -> None:
        self.graph = graph
        self.labels = labels(graph.nodes)
        self.recurrent: dict[str, Recurrent] = {
            self.labels[_key(node)]: prepare(node, graph.constants)
            for node in graph.nodes
            if node.op in GATES and all(n in graph.constants for n in weight_names(node))
        }
        """Those whose weights are constant; the weights of others come with each call."""

    def label(self, node: NodeDef) -> str:
        """The short name of a recurrent node."""
        return self.labels[_key(node)]

    def run(
        self,
        feeds: Mapping[str, Any],
        *,
        lengths: Any = None,
        carried: Mapping[str, Sequence[Any]] | None = None,
    ) -> Arrays:
        """All values of the graph, by name.

        feeds: every input, in the graph's own layout. lengths: int64 (B,), used by all recurrent
        nodes instead of their sequence_lens. carried: states (B, U) of recurrent nodes, by label,
        used instead of their initial states and overwritten with the final ones.
        """
        values: Arrays = {**self.graph.constants, **feeds}
        room = MAX_VALUES + _MAX_GROWTH * sum(np.size(x) for x in feeds.values())
        for node in self.graph.nodes:
            if node.op in GATES:
                made = self._recurrent(node, values, lengths, carried or {})
            else:
                made = _apply(node, values, self.graph.opset)
            room -= sum(array.size for array in made)
            if room < 0:
                raise ShapeError(f"{node}: the graph makes too many values out of its inputs")
            values |= {n: a for n, a in zip(node.outputs, made, strict=False) if n}
        return values

    def _recurrent(
        self, node: NodeDef, values: Arrays, lengths: Any, carried: Mapping[str, Sequence[Any]]
    ) -> list[Any]:
        label = self.label(node)
        found = self.recurrent.get(label) or prepare(node, values)
        inputs = [values.get(name) if name else None for name in node.inputs]
        inputs += [None] * (7 - len(inputs))
        if lengths is None and inputs[4] is not None:
            lengths = np.asarray(inputs[4]).astype(np.int64)
        states = carried.get(label)
        if states is None:
            y, finals = found.run(inputs[0], lengths, inputs[5 : 5 + len(found.states)])
            return [y, *finals]
        axis = 1 if found.batch_first else 0
        begun = [np.expand_dims(state, axis) for state in states]
        y, finals = found.run(inputs[0], lengths, begun)
        for state, final in zip(states, finals, strict=True):
            state[...] = final.reshape(state.shape)
        return [y, *finals]


def _apply(node: NodeDef, values: Mapping[str, Any], opset: int) -> list[Any]:
    inputs = [values[name] if name else None for name in node.inputs]
    try:
        with np.errstate(all="ignore"):
            made = OPERATORS[node.op](node, inputs, opset)
    except StreamRNNError:
        raise
    except _NUMPY_RAISES as error:
        shapes = ", ".join("-" if x is None else str(np.shape(x)) for x in inputs)
        raise ShapeError(f"{node} cannot take inputs of shapes {shapes}: {error!s:.160}") from None
    return [np.asarray(y) for y in (made if isinstance(made, list) else [made])]


def origins(graph: GraphDef, label: Mapping[str, str]) -> dict[str, frozenset[tuple[str, str]]]:
    """What each value is computed from: ("input", name) or (label of a recurrent node, y, h or c).

    Constants, and the sizes of things, come from nothing.
    """
    found: dict[str, frozenset[tuple[str, str]]] = {
        v.name: frozenset({("input", v.name)}) for v in graph.inputs
    }
    nothing: frozenset[tuple[str, str]] = frozenset()
    for node in graph.nodes:
        if node.op in GATES:
            for output, kind in zip(node.outputs, ("y", "h", "c"), strict=False):
                found[output] = frozenset({(label[_key(node)], kind)})
            continue
        parts = [found.get(name, nothing) for name in node.inputs if name]
        merged = nothing if node.op == "Shape" else nothing.union(*parts)
        found |= dict.fromkeys(node.outputs, merged)
    return found


def first_states(graph: GraphDef) -> Iterator[tuple[NodeDef, str, str]]:
    """(node, "h" or "c", name of the value it begins with) where one is given."""
    for node in graph.nodes:
        if node.op in GATES:
            for place, kind in ((5, "h"), (6, "c")):
                if len(node.inputs) > place and node.inputs[place]:
                    yield node, kind, node.inputs[place]
