"""Check with random numbers that a graph can run step by step, as rows of a log arrive.

A window of random steps is run at once, cut in two, for one of its rows alone, and with rows of
different lengths: every bit must be equal. Otherwise the reason names nodes that may cause the
difference.
"""

from typing import TYPE_CHECKING

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import StreamRNNError
from streamrnn.plugins.onnx.layout import first_states, shape_in_graph
from streamrnn.plugins.onnx.recurrent import RECURRENT

if TYPE_CHECKING:
    from streamrnn.plugins.onnx.model import OnnxGraph

_ROWS, _STEPS, _CUT = 3, 5, 2

OnnxStates = dict[str, Floats]
"""States of streams by name: (B, …)."""


def why_not_stepwise(layer: "OnnxGraph") -> str | None:
    """Return why the graph cannot compute each row's output from past rows; None if it can."""
    for recurrent in layer.evaluator.recurrent.values():
        if any(direction.backwards for direction in recurrent.directions):
            return f"{recurrent.node} reads the sequence backwards"
    if layer.wiring.computed:
        return f"the initial state of node {layer.wiring.computed[0]!r} is computed from the input"
    for node in layer.evaluator.graph.nodes:
        lengths = node.input(4) if node.op in RECURRENT else ""
        if lengths and lengths not in layer.wiring.lengths:
            return f"{node} has sequence_lens that are not an input of the graph"
    try:
        return _compare(layer)
    except StreamRNNError as error:
        return f"a part of a sequence cannot be run separately ({error})"


def _compare(layer: "OnnxGraph") -> str | None:
    inputs = _random_inputs(layer)
    by_step = layer.layout.timeless
    whole, end = _run(layer, inputs, by_step)
    head, states = _run(layer, [x[:, :_CUT] for x in inputs], by_step)
    tail, cut_end = _run(layer, [x[:, _CUT:] for x in inputs], by_step, states)
    joined = [np.concatenate(parts, axis=1) for parts in zip(head, tail, strict=True)]
    if not _same([*whole, *end.values()], [*joined, *cut_end.values()]):
        return _reason(layer, "the result depends on how the sequence is cut")
    if by_step and not layer.layout.one_step:
        at_end = layer.advance(inputs, None, layer.stream_initial(_ROWS), by_step=False)
        last = [y[:, -1] for y in whole]
        if not _same([y if y.ndim == 2 else y[:, -1] for y in at_end], last):
            return _reason(layer, "the final value differs from the last step's value")
    alone, _ = _run(layer, [x[1:2] for x in inputs], by_step)
    if not _same([y[1:2] for y in whole], alone):
        return _reason(layer, "a row depends on the other rows")
    return _compare_lengths(layer, inputs, by_step)


def _compare_lengths(layer: "OnnxGraph", inputs: list[Array], by_step: bool) -> str | None:
    lengths = np.array([_STEPS, 0, _CUT], np.int64)
    random = np.random.default_rng(1)
    before = {
        name: random.normal(0, 1, (_ROWS, *shape)).astype(np.float32)
        for name, shape in layer.stream_states().items()
    }
    states = {name: state.copy() for name, state in before.items()}
    layer.advance(inputs, lengths, states, by_step=by_step)
    short = {name: state.copy() for name, state in before.items()}
    layer.advance([x[:, :_CUT] for x in inputs], None, short, by_step=by_step)
    for name, state in states.items():
        if not _same([state[1], state[2]], [before[name][1], short[name][2]]):
            return f"state {name!r} is advanced past the end of a row"
    return None


def _run(
    layer: "OnnxGraph", inputs: list[Array], by_step: bool, states: OnnxStates | None = None
) -> tuple[list[Floats], OnnxStates]:
    states = layer.stream_initial(len(inputs[0])) if states is None else states
    return layer.advance(inputs, None, states, by_step=by_step), states


def _same(some: list[Floats], others: list[Floats]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def _reason(layer: "OnnxGraph", difference: str) -> str:
    names = ", ".join(layer.layout.outputs)
    suspects = [str(node) for node in layer.evaluator.graph.nodes if node.op in _MIXING]
    check = f"; check {', '.join(suspects[:3])}" if suspects else ""
    return f"outputs ({names}): {difference}{check}"


_MIXING = {
    "AveragePool", "Conv", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool",
    "LayerNormalization", "LogSoftmax", "MatMul", "MaxPool", "Pad", "ReduceMax", "ReduceMean",
    "ReduceSum", "Slice", "Softmax", "Split",
}  # fmt: skip
"""Operators that can combine steps."""


def _random_inputs(layer: "OnnxGraph") -> list[Array]:
    random = np.random.default_rng(0)
    arrays: list[Array] = []
    for value in layer.wiring.data:
        place = layer.layout.inputs[value.name]
        if value.dtype == "float32":
            features = value.dims[place.axes.index("F")] or 1
            arrays.append(random.normal(0, 1, (_ROWS, _STEPS, features)).astype(np.float32))
        else:
            arrays.append(random.integers(0, 2, (_ROWS, _STEPS)))
    return arrays


def constant_states(layer: "OnnxGraph", n: int) -> OnnxStates:
    """Return the initial states that are constants in the graph: label/kind -> (n, U)."""
    evaluator, wires, plan = layer.evaluator, layer.wiring, layer.layout
    constant = [
        (evaluator.label(node), kind, name)
        for node, kind, name in first_states(evaluator.graph)
        if evaluator.label(node) in wires.own
    ]
    if not constant:
        return {}
    feeds: dict[str, Array] = {
        v.name: np.zeros(shape_in_graph(v, plan.inputs[v.name], n, 1), v.dtype) for v in wires.data
    }
    for name, (place, shape) in plan.states.items():
        feeds[name] = np.moveaxis(np.zeros((n, *shape), np.float32), 0, place.axes.index("B"))
    feeds |= {name: np.ones(n, np.int32) for name in wires.lengths}
    values = evaluator.run(feeds)
    initial = {}
    for label, kind, name in constant:
        units = evaluator.recurrent[label].units
        rows = np.broadcast_to(values[name].reshape(-1, units), (n, units))
        initial[f"{label}/{kind}"] = np.array(rows)
    return initial
