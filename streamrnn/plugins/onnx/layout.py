"""The roles of a graph's inputs (data, states or lengths), and the axes of inputs and outputs.

Files define neither. The roles follow from what each value is computed from. For the axes, the
graph is run on zeros with numbers of rows and steps that occur nowhere else in it: a layout of the
inputs is valid if the graph runs, and the recurrent nodes receive this number of rows on the axis
of the batch; the axes of the outputs are identified by their sizes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError, ModelMismatchError, StreamRNNError
from streamrnn.plugins.onnx.evaluate import Evaluator
from streamrnn.plugins.onnx.graph import GraphDef, NodeDef, Value
from streamrnn.plugins.onnx.recurrent import RECURRENT

_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_MAX_TRIED = 64

Origins = frozenset[tuple[str, str]]
"""What a value is computed from: ("input", name), or (recurrent node's label, "y", "h" or "c")."""


@dataclass(frozen=True)
class Wiring:
    """The roles of a graph's inputs.

    data: inputs that receive features. lengths: inputs that are used as sequence_lens only.
    states: state input -> the output that is its next value, None if unknown.
    computed: recurrent nodes (labels) whose initial state is computed from data or from the values
    of another recurrent node.
    own: recurrent nodes of one direction whose initial state is constant or zero; it is carried
    outside the graph.
    """

    data: tuple[Value, ...]
    lengths: tuple[str, ...]
    states: Mapping[str, str | None]
    computed: tuple[str, ...]
    own: tuple[str, ...]


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
    reached |= {node.inputs[0] for node in graph.nodes if node.op in RECURRENT}
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
        own=tuple(
            label
            for label, recurrent in evaluator.recurrent.items()
            if label not in started and len(recurrent.directions) == 1
        ),
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

    If several are, only states of nodes and concatenations count; None unless exactly one is left.
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


@dataclass(frozen=True)
class Place:
    """Axes of an array: "B" batch, "T" time, "1" the one step, "F" features."""

    axes: str

    def to_graph(self, x: Array) -> Array:
        """Transpose (B, T, F), (B, T), (B, F) or (B,) to the graph's layout, with its axis "1"."""
        ours = [axis for axis in "BTF" if axis in self.axes]
        order = [ours.index(axis) for axis in self.axes if axis != "1"]
        x = np.transpose(x, order)
        position = self.axes.find("1")
        return np.ascontiguousarray(x if position < 0 else np.expand_dims(x, position))

    def from_graph(self, y: Array) -> Array:
        """Transpose the graph's layout to (B, T, values) or (B, values)."""
        front = [self.axes.index(axis) for axis in "BT" if axis in self.axes]
        rest = [i for i in range(y.ndim) if i not in front]
        moved = np.transpose(y, front + rest)
        return np.ascontiguousarray(moved.reshape(*moved.shape[: len(front)], -1))


@dataclass(frozen=True)
class GraphLayout:
    """The layouts of a graph's arrays. one_step: the graph processes one step per call.

    outputs: name -> (axes, units). states: input name -> (axes, shape of one stream's state).
    """

    inputs: Mapping[str, Place]
    outputs: Mapping[str, tuple[Place, int]]
    states: Mapping[str, tuple[Place, tuple[int, ...]]]
    one_step: bool

    @property
    def timeless(self) -> bool:
        """Whether an output lacks a time axis, so that each step needs its own run."""
        return any("T" not in place.axes for place, _ in self.outputs.values())


def find_layout(evaluator: Evaluator, wiring: Wiring) -> GraphLayout:
    """Find the layout.

    Raises ModelMismatchError if the output of a state is unknown, if the weights of a recurrent
    node are not constant, or if no layout works: then with the error of the last layout tried.
    """
    if unknown := [name for name, output in wiring.states.items() if output is None]:
        raise ModelMismatchError(
            f"[model] state: the graph's input {unknown[0]!r} is the initial state of a recurrent "
            "node; name the output with its next value: "
            f'state = {{ {unknown[0]} = "…" }}'
        )
    for label in evaluator.labels.values():
        if label not in evaluator.recurrent:
            raise ModelMismatchError(
                f"the weights of node {label!r} are not constant, so the graph can only be called "
                "from Python"
            )
    sizes = _sizes(evaluator)
    reason = "no layout fits"
    for places, states in islice(_combinations(wiring), _MAX_TRIED):
        try:
            return _layout(evaluator, wiring, places, states, *sizes)
        except StreamRNNError as error:
            reason = str(error)
    raise ModelMismatchError(
        "this graph cannot be run on streams, only called from Python: it fails for other numbers "
        f"of rows and steps than at its export ({reason}). Export it with dynamic axes for "
        "batch and time"
    )


def _layout(
    evaluator: Evaluator,
    wiring: Wiring,
    places: Sequence[Place],
    states: Sequence[Place],
    rows: int,
    steps: int,
) -> GraphLayout:
    """Return the layout with these places of data and states; raise an error if it is invalid."""
    by_name = {value.name: value for value in evaluator.graph.inputs}
    inputs = [*wiring.data, *(by_name[name] for name in wiring.states)]
    one_step = not any("T" in place.axes for place in places)

    def feeds(steps: int) -> dict[str, Array]:
        arrays = {
            v.name: np.zeros(shape_in_graph(v, place, rows, steps), v.dtype)
            for v, place in zip(inputs, [*places, *states], strict=True)
        }
        lengths = np.full(rows, 1 if one_step else steps, np.int32)
        return arrays | dict.fromkeys(wiring.lengths, lengths)

    first = feeds(steps)
    values = evaluator.run(first)
    _check_recurrent(evaluator, values, rows, one_step=one_step)
    shapes = {}
    for name, place in zip(wiring.states, states, strict=True):
        before, after = first[name].shape, values[str(wiring.states[name])].shape
        if len(place.axes) != len(before) or after != before:
            raise ModelMismatchError(
                f"state {name!r} has shape {before} and {wiring.states[name]!r} has {after}: "
                "expected equal shapes of two or three axes"
            )
        batch = place.axes.index("B")
        shapes[name] = place, before[:batch] + before[batch + 1 :]
    outputs = _outputs(evaluator, wiring, values, rows, 0 if one_step else steps)
    if not one_step:
        more = 2 * steps
        twice = _outputs(evaluator, wiring, evaluator.run(feeds(more)), rows, more)
        if changed := [name for name in outputs if twice[name] != outputs[name]]:
            raise ModelMismatchError(
                f"output {changed[0]!r} has another number of steps than the inputs: "
                f"{outputs[changed[0]][1]} values for {steps} steps, {twice[changed[0]][1]} for "
                f"{more}"
            )
    by_input = {v.name: place for v, place in zip(wiring.data, places, strict=True)}
    return GraphLayout(by_input, outputs, shapes, one_step)


def _sizes(evaluator: Evaluator) -> tuple[int, int]:
    """Return two numbers that occur neither as a size nor as a constant in the graph."""
    graph = evaluator.graph
    used: set[int] = set()
    for value in (*graph.inputs, *graph.outputs):
        used |= {n for n in value.dims if n}
    for array in graph.constants.values():
        used |= set(array.shape)
        if array.dtype.kind == "i" and array.size < 1000:
            used |= set(array.reshape(-1).tolist())
    free = [n for n in _PRIMES if n not in used]
    if len(free) < 2:
        raise ModelMismatchError(
            "the graph has almost all small primes as sizes or constants; two that it does not "
            "have are needed to identify batch and time"
        )
    return free[0], free[1]


def _combinations(wiring: Wiring) -> Iterator[tuple[list[Place], list[Place]]]:
    """Yield places of the data and of the states; all states have the same layout."""
    data = [_data_places(v) for v in wiring.data]
    in_time = (places for places in product(*data) if any("T" in p.axes for p in places))
    one_step = product(*([p for p in places if "T" not in p.axes] for places in data))
    for places in chain(in_time, one_step):
        for axes in ("FBF", "BFF", "BF", "FB") if wiring.states else ("",):
            yield list(places), [Place(axes)] * len(wiring.states)


def _data_places(value: Value) -> list[Place]:
    rank = len(value.dims)
    if value.dtype == "float32":
        layouts: dict[int, tuple[str, ...]] = {3: ("BTF", "TBF", "B1F", "1BF", "BFT"), 2: ("BF",)}
    else:
        layouts = {2: ("BT", "TB", "B1", "1B"), 1: ("B",)}
    places = [Place(axes) for axes in layouts.get(rank, ()) if _fits(value, axes)]
    if not places:
        raise ModelMismatchError(
            f"input {value.name!r} ({value.dtype}, {list(value.dims)}): expected features (batch, "
            "time, number of features) or integers (batch, time), in this order or time first"
        )
    return places


def _fits(value: Value, axes: str) -> bool:
    for axis, n in zip(axes, value.dims, strict=True):
        if axis == "F" and n is None:
            return False
        if (axis == "1" and n not in (None, 1)) or (axis == "T" and n == 1):
            return False
    return True


def shape_in_graph(value: Value, place: Place, rows: int, steps: int) -> tuple[int, ...]:
    """Return the shape of an input with these axes; sizes 1 if it has another number of axes."""
    if len(place.axes) != len(value.dims):
        return (1,) * len(value.dims)
    sizes = {"B": rows, "T": steps, "1": 1}
    return tuple(sizes.get(axis, n or 1) for axis, n in zip(place.axes, value.dims, strict=True))


def _check_recurrent(
    evaluator: Evaluator, values: Mapping[str, Array], rows: int, *, one_step: bool
) -> None:
    """Raise ModelMismatchError if a node reads another number of rows than the inputs have.

    The number of steps may differ, as a convolution can change it, unless the inputs have only one.
    """
    for recurrent in evaluator.recurrent.values():
        shape = values[recurrent.node.inputs[0]].shape
        batch = 0 if recurrent.batch_first else 1
        if shape[batch] != rows or (one_step and shape[1 - batch] != 1):
            raise ModelMismatchError(
                f"{recurrent.node}: expected X with the batch size of the inputs, and with one "
                f"step if they have only one, received shape {shape}"
            )


def _outputs(
    evaluator: Evaluator, wiring: Wiring, values: Mapping[str, Array], rows: int, steps: int
) -> dict[str, tuple[Place, int]]:
    carriers = set(wiring.states.values())
    outputs = {}
    for value in evaluator.graph.outputs:
        if value.name in carriers:
            continue
        shape = values[value.name].shape
        axes = "".join("B" if n == rows else "T" if n == steps else "F" for n in shape)
        if axes.count("B") != 1 or axes.count("T") > 1:
            raise ModelMismatchError(
                f"output {value.name!r} has shape {shape} for {rows} rows and {steps} steps: "
                "expected one entry per row"
            )
        units = [n for n, axis in zip(shape, axes, strict=True) if axis == "F"]
        outputs[value.name] = (Place(axes), int(np.prod(units, dtype=np.int64)))
    if not outputs:
        raise ModelMismatchError("the graph has no outputs except its states")
    return outputs
