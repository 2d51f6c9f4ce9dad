"""Evaluation of a graph's nodes in order, and its analysis before data is available."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from streamrnn.base.arrays import Array, Ints
from streamrnn.errors import ShapeError, StreamRNNError, UnsupportedError
from streamrnn.nn.kernels.integers import Integers
from streamrnn.plugins.onnx import (  # noqa: F401 - they fill the table of operators
    array_operators,
    layer_operators,
)
from streamrnn.plugins.onnx.graph import MAX_VALUES, OPERATORS, GraphDef, NamedArrays, NodeDef
from streamrnn.plugins.onnx.recurrent import NO_INTEGERS, RECURRENT, Recurrent, check, prepare

_NUMPY_RAISES = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError)
_MAX_FOLDED = 1 << 22
_MAX_GROWTH = 1 << 14
"""Number of values that all nodes together may make per value of the inputs, besides MAX_VALUES."""


def fold(graph: GraphDef) -> GraphDef:
    """Compute nodes that depend on constants only, and drop unused constants.

    Recurrent and unsupported nodes, and nodes whose results are too large, stay as they are.
    """
    constants = dict(graph.constants)
    kept = []
    for node in graph.nodes:
        ready = all(name in constants for name in node.inputs if name)
        try:
            if ready:
                _check(node, constants)
        except UnsupportedError:
            ready = False
        if ready:
            outputs = _apply(node, constants, graph.opset)
            inputs = sum(constants[name].size for name in node.inputs if name)
            if sum(array.size for array in outputs) <= max(_MAX_FOLDED, inputs):
                constants |= {n: a for n, a in zip(node.outputs, outputs, strict=False) if n}
                continue
        kept.append(node)
    used = {name for node in kept for name in node.inputs} | {v.name for v in graph.outputs}
    constants = {name: array for name, array in constants.items() if name in used}
    return replace(graph, nodes=tuple(kept), constants=constants)


def unused(graph: GraphDef) -> list[str]:
    """Return the stored constants that no node reads and that are not outputs."""
    used = {name for node in graph.nodes for name in node.inputs}
    used |= {v.name for v in graph.outputs} | {o for n in graph.nodes for o in n.outputs}
    return [name for name in graph.constants if name not in used and name]


def require_supported(graph: GraphDef) -> None:
    """Raise UnsupportedError that names the first unsupported node, and its attribute."""
    for node in graph.nodes:
        if node.op in RECURRENT:
            check(node)
        else:
            _check(node, graph.constants)


def _check(node: NodeDef, constants: Mapping[str, Array]) -> None:
    operator = OPERATORS.get(node.op)
    if operator is None:
        supported = ", ".join(sorted([*OPERATORS, *RECURRENT]))
        raise UnsupportedError(
            f"{node}: the operator is not supported; supported: {supported}. To load one "
            "recurrent node of a graph, use load_model(path, node=…), or convert --node NAME"
        )
    if unknown := sorted(set(node.attributes) - operator.attributes):
        raise UnsupportedError(f"{node}: attribute {unknown[0]!r} is not supported")
    if operator.check:
        try:
            operator.check(node, constants)
        except UnsupportedError as error:
            raise UnsupportedError(f"{node}: {error}") from None


def _key(node: NodeDef) -> str:
    return next((name for name in node.outputs if name), node.name)


class Evaluator:
    """A graph with packed recurrent nodes. Threads may share it: a run changes nothing in it."""

    def __init__(self, graph: GraphDef, integers: Mapping[str, Integers] = NO_INTEGERS) -> None:
        self.graph = graph
        self.labels: dict[str, str] = {}
        """A unique short name of each recurrent node, by the node's first output."""
        self.recurrent: dict[str, Recurrent] = {}
        """The nodes with constant weights, by label; others are packed in each run."""
        for node in graph.nodes:
            if node.op in RECURRENT:
                base = node.name.strip("/").replace("/", ".") or node.op.lower()
                label, number = base, 1
                while label in self.labels.values():
                    number += 1
                    label = f"{base}#{number}"
                self.labels[_key(node)] = label
                weights = (*node.inputs[1:4], *node.inputs[7:8])  # W, R, B and P
                if all(name in graph.constants for name in weights if name):
                    self.recurrent[label] = prepare(node, graph.constants, integers)

    def label(self, node: NodeDef) -> str:
        """Return the short name of a recurrent node."""
        return self.labels[_key(node)]

    def run(
        self,
        feeds: Mapping[str, Array],
        *,
        lengths: Ints | None = None,
        carried: Mapping[str, Sequence[Array]] | None = None,
    ) -> NamedArrays:
        """Return all values of the graph, by name.

        feeds: every input, in the graph's own layout. lengths: int64 (B,), used by all recurrent
        nodes instead of their sequence_lens. carried: states (B, U) of recurrent nodes, by label,
        used instead of their initial states and overwritten with the final ones.
        """
        values: NamedArrays = {**self.graph.constants, **feeds}
        budget = MAX_VALUES + _MAX_GROWTH * sum(np.size(x) for x in feeds.values())
        for node in self.graph.nodes:
            if node.op in RECURRENT:
                outputs = self._recurrent(node, values, lengths, carried or {})
            else:
                outputs = _apply(node, values, self.graph.opset)
            budget -= sum(array.size for array in outputs)
            if budget < 0:
                raise ShapeError(
                    f"{node}: the graph makes too many values from its inputs; pass fewer rows or "
                    "steps at once"
                )
            values |= {n: a for n, a in zip(node.outputs, outputs, strict=False) if n}
        return values

    def _recurrent(
        self,
        node: NodeDef,
        values: NamedArrays,
        lengths: Ints | None,
        carried: Mapping[str, Sequence[Array]],
    ) -> list[Array]:
        label = self.label(node)
        recurrent = self.recurrent.get(label) or prepare(node, values)
        x = values[node.inputs[0]]
        stored, *starts = (values.get(node.input(position)) for position in (4, 5, 6))
        if lengths is None and stored is not None:
            lengths = np.asarray(stored).astype(np.int64)
        states = carried.get(label)
        if states is None:
            y, finals = recurrent.run(x, lengths, starts[: len(recurrent.states)])
            return [y, *finals]
        axis = 1 if recurrent.batch_first else 0
        initial = [np.expand_dims(state, axis) for state in states]
        y, finals = recurrent.run(x, lengths, initial)
        for state, final in zip(states, finals, strict=True):
            state[...] = final.reshape(state.shape)
        return [y, *finals]


def _apply(node: NodeDef, values: Mapping[str, Array], opset: int) -> list[Array]:
    inputs = [values[name] if name else None for name in node.inputs]
    try:
        with np.errstate(all="ignore"):
            outputs = OPERATORS[node.op].run(node, inputs, opset)
    except StreamRNNError as error:
        error.args = (f"{node}: {error}",)
        raise
    except _NUMPY_RAISES as error:
        shapes = ", ".join("-" if x is None else str(np.shape(x)) for x in inputs)
        raise ShapeError(f"{node} cannot take inputs of shapes {shapes}: {error!s:.160}") from None
    return [np.asarray(y) for y in (outputs if isinstance(outputs, list) else [outputs])]
