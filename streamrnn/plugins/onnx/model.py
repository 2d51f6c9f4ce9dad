"""An ONNX graph as a model: called in its own layout, or run on streams by a pipeline.

Whether a graph can run step by step, as rows of a log arrive, is checked with random numbers. A
window of random steps is run at once, cut in two, for one of its rows alone, and with rows of
different lengths: every bit must be equal. Otherwise the reason names nodes that may cause the
difference.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import DTypeError, ShapeError, StreamRNNError
from streamrnn.nn.layers import Identity, Input, Layer
from streamrnn.nn.layers.arguments import cast_floats, cast_ids
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.initializers import Constant
from streamrnn.nn.layers.precision import Packable
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.symbol import symbols_in
from streamrnn.nn.models import Model
from streamrnn.nn.models.graph import Graph, one_fixed
from streamrnn.plugins.onnx import graph as graphs
from streamrnn.plugins.onnx.evaluate import Evaluator, require_supported
from streamrnn.plugins.onnx.layout import (
    GraphLayout,
    Place,
    Wiring,
    find_layout,
    first_states,
    shape_in_graph,
    wire,
)
from streamrnn.plugins.onnx.recurrent import RECURRENT, packable_weights

OnnxStates = dict[str, Floats]
"""States of streams by name: (B, …)."""
GraphConfig = graphs.GraphDef | Mapping[str, Any]
"""A graph, or the config that it was saved as."""


@builtin_layer
class OnnxGraph(Packable):
    """A graph as one layer of a model: (B, T, F) or (B, T) in, (B, T, U) or (B, U) out.

    Weights: the graph's float32 constants, by name. The pipeline carries inputs whose next value is
    an output (`state`, input name -> output name), and the states of recurrent nodes of one
    direction whose initial state is constant or zero.
    """

    ragged = False
    takes_state = False
    inputs_last = True

    def __init__(
        self, graph: GraphConfig, state: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        shapes: dict[str, tuple[int, ...]] = {}
        if not isinstance(graph, graphs.GraphDef):
            graph, shapes = graphs.from_config(graph)
        self.state = dict(state or {})
        self._graph: graphs.GraphDef = graph
        for name, shape in shapes.items():
            self.add_weight(name, shape, "zeros")
        for name, array in graph.weights().items():
            self.add_weight(name, array.shape, Constant(array))
        self.built = True

    @cached_property
    def evaluator(self) -> Evaluator:
        """The packed graph. If two threads make it at once, either result is valid."""
        return Evaluator(self._graph.with_constants(dict(self._weights)), self.integers)

    @cached_property
    def wiring(self) -> Wiring:
        """The roles of the inputs: data, states, lengths."""
        return wire(self.evaluator, self.state)

    @cached_property
    def layout(self) -> GraphLayout:
        """The roles of the axes. Raises ModelMismatchError if they cannot be determined."""
        return find_layout(self.evaluator, self.wiring)

    @cached_property
    def _why_not(self) -> str | None:
        for recurrent in self.evaluator.recurrent.values():
            if any(direction.backwards for direction in recurrent.directions):
                return f"{recurrent.node} reads the sequence backwards"
        if computed := self.wiring.computed:
            return f"the initial state of node {computed[0]!r} is computed from the input"
        for node in self.evaluator.graph.nodes:
            lengths = node.input(4) if node.op in RECURRENT else ""
            if lengths and lengths not in self.wiring.lengths:
                return f"{node} has sequence_lens that are not an input of the graph"
        try:
            return _compare(self)
        except StreamRNNError as error:
            return f"a part of a sequence cannot be run separately ({error})"

    def check(self) -> None:
        """Raise ModelFileError, UnsupportedError or ConfigError if the graph cannot be run."""
        graph = self._graph.with_constants(dict(self._weights))
        graphs.require_sound(graph)
        require_supported(graph)
        self.wiring  # noqa: B018 (prepares every recurrent node, checks the names in `state`)

    def packable(self) -> dict[str, bool]:
        nodes = self.evaluator.recurrent.values()
        return packable_weights(self.evaluator.graph, nodes)

    def packed_parts(self) -> list[str]:
        recurrent = self.evaluator.recurrent
        return [label for label, r in recurrent.items() if r.packed[0].word > 1]

    def unpack(self) -> None:
        for name in ("evaluator", "wiring", "layout", "_why_not"):
            self.__dict__.pop(name, None)

    # ---- as a layer

    def compute_output_shape(self, input_shape: Any) -> Shape | list[Shape]:
        first = input_shape[0] if isinstance(input_shape, list) else input_shape
        batch = first[0]
        shapes: list[Shape] = [
            (batch, None, units) if self._has_time(place) else (batch, units)
            for place, units in self.layout.outputs.values()
        ]
        return shapes if len(shapes) > 1 else shapes[0]

    def _has_time(self, place: Place) -> bool:
        return "T" in place.axes or self.layout.one_step

    def compute_mask(self, inputs: object, mask: object = None) -> None:
        """Return None: a graph has no masks."""

    def why_not_stepwise(self, input_shape: object) -> str | None:
        return self._why_not

    def stream_states(self) -> dict[str, tuple[int, ...]]:
        states = {name: shape for name, (_, shape) in self.layout.states.items()}
        for label in self.wiring.own:
            node = self.evaluator.recurrent[label]
            states |= {f"{label}/{kind}": (node.units,) for kind in node.states}
        return states

    def stream_classes(self) -> dict[str, str]:
        """Return the cell class of each state of a node; states that are inputs have none."""
        nodes = ((label, self.evaluator.recurrent[label]) for label in self.wiring.own)
        return {f"{label}/{kind}": node.cell_class for label, node in nodes for kind in node.states}

    def stream_initial(self, n: int) -> OnnxStates:
        evaluator, plan = self.evaluator, self.layout
        initial = {
            name: np.zeros((n, *shape), np.float32) for name, shape in self.stream_states().items()
        }
        constant = {
            f"{label}/{kind}": name
            for node, kind, name in first_states(evaluator.graph)
            if (label := evaluator.label(node)) in self.wiring.own
        }
        if not constant:
            return initial
        feeds: dict[str, Array] = {
            v.name: np.zeros(shape_in_graph(v, plan.inputs[v.name], n, 1), v.dtype)
            for v in self.wiring.data
        }
        for name, (place, _) in plan.states.items():
            feeds[name] = np.moveaxis(initial[name], 0, place.axes.index("B"))
        values = evaluator.run(feeds | dict.fromkeys(self.wiring.lengths, np.ones(n, np.int32)))
        for state, name in constant.items():
            initial[state][...] = values[name].reshape(-1, initial[state].shape[1])
        return initial

    def apply(self, inputs: Any, context: CallContext) -> Any:
        arrays = inputs if isinstance(inputs, list) else [inputs]
        places = self.layout.inputs.values()
        arrays = [
            x[..., 0] if x.ndim == 3 and "F" not in place.axes else x  # from OnnxIds
            for x, place in zip(arrays, places, strict=True)
        ]
        if context.kind == "stream":
            shapes = self.stream_states()
            stored = {name: context.state(name, shape) for name, shape in shapes.items()}
            states = {name: state for name, state in stored.items() if state is not None}
            outputs = self.advance(arrays, context.lengths, states, by_step=self.layout.timeless)
        else:
            states = self.stream_initial(len(arrays[0]))
            outputs = self.advance(arrays, None, states, by_step=False)
        return outputs if len(outputs) > 1 else outputs[0]

    def advance(
        self, inputs: Sequence[Array], lengths: Ints | None, states: OnnxStates, *, by_step: bool
    ) -> list[Floats]:
        """Return the outputs of a window; advance `states` (name -> (B, …)) to its end.

        by_step: run each step separately, so that outputs have a time axis. lengths: int64 (B,).
        """
        rows, steps = inputs[0].shape[:2]
        shapes = [
            (rows, steps, units) if by_step or self._has_time(place) else (rows, units)
            for place, units in self.layout.outputs.values()
        ]
        if not rows or (not steps and all(len(shape) == 3 for shape in shapes)):
            # The graph is not run, as its nodes may reject empty arrays.
            return [np.zeros(shape, np.float32) for shape in shapes]
        if not (by_step or self.layout.one_step):
            return self._run(inputs, lengths, states)
        parts = []
        for t in range(steps):
            within = np.ones(rows, np.int64) if lengths is None else (lengths > t).astype(np.int64)
            step = [x[:, t] if self.layout.one_step else x[:, t : t + 1] for x in inputs]
            parts.append([y.reshape(rows, -1) for y in self._run(step, within, states)])
        return [np.stack(outputs, axis=1) for outputs in zip(*parts, strict=True)]

    def _run(
        self, inputs: Sequence[Array], lengths: Ints | None, states: OnnxStates
    ) -> list[Floats]:
        plan, wires = self.layout, self.wiring
        rows = len(inputs[0])
        feeds = {
            value.name: plan.inputs[value.name].to_graph(x.astype(value.dtype, copy=False))
            for value, x in zip(wires.data, inputs, strict=True)
        }
        steps = 1 if plan.one_step else inputs[0].shape[1]
        full = np.full(rows, steps, np.int64) if lengths is None else lengths
        feeds |= dict.fromkeys(wires.lengths, full)
        for name, (place, _) in plan.states.items():
            feeds[name] = np.ascontiguousarray(np.moveaxis(states[name], 0, place.axes.index("B")))
        carried = {
            label: [states[f"{label}/{k}"] for k in self.evaluator.recurrent[label].states]
            for label in wires.own
        }
        values = self.evaluator.run(feeds, lengths=lengths, carried=carried)
        for name, (place, _) in plan.states.items():
            after = values[str(wires.states[name])]
            states[name][...] = np.moveaxis(after, place.axes.index("B"), 0)
        return [
            place.from_graph(values[name].astype(np.float32, copy=False))
            for name, (place, _) in plan.outputs.items()
        ]

    def get_config(self) -> dict[str, Any]:
        graph = self._graph.with_constants(dict(self._weights))
        return {**super().get_config(), "graph": graph.to_config(), "state": self.state}


@builtin_layer
class OnnxIds(BuiltIn):
    """Reshape integers (B, T) to (B, T, 1): each of several inputs needs three axes."""

    stepwise = True
    input_dtype = "int64"

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, 1)

    def apply(self, inputs: Any, context: CallContext) -> Any:
        return inputs[..., None]


@builtin_layer
class OnnxModel(Model):
    """A graph, called with its inputs by name or in order, in its own layout.

    A call returns a dictionary of the outputs, in the graph's order. In a pipeline, and in predict,
    it is a model whose inputs receive features; `state` maps each state input to the output with
    its next value. It can leave out an input if exactly one output is computed from the final
    values of this state alone.
    """

    def __init__(
        self, graph: GraphConfig, state: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        Layer.__init__(self, **kwargs)
        self.layer = OnnxGraph(graph, state, name="graph")
        self._graph: Graph | None = None
        self.built = True

    @property
    def graph(self) -> Graph:
        """The graph between the inputs that are data and the outputs that are not states."""
        if self._graph is not None:
            return self._graph
        inner = self.layer
        plan = inner.layout
        symbols = []
        for value in inner.wiring.data:
            axes = plan.inputs[value.name].axes
            shape = (None, value.dims[axes.index("F")]) if "F" in axes else (None,)
            dtype = "float32" if value.dtype == "float32" else "int64"
            symbols.append(Input(shape, dtype=dtype, name=value.name))
        inner.input_dtype = symbols[0].dtype if len(symbols) == 1 else "float32"
        reads = [
            OnnxIds(name=f"{s.layer.name}/ids")(s) if len(symbols) > 1 and len(s.shape) == 2 else s
            for s in symbols
        ]
        outputs = symbols_in([inner(reads if len(reads) > 1 else reads[0])])
        ends = [Identity(name=n)(s) for n, s in zip(plan.outputs, outputs, strict=True)]
        self._input_structure = symbols if len(symbols) > 1 else symbols[0]
        self._output_structure = ends if len(ends) > 1 else ends[0]
        self._graph = Graph(symbols, ends)
        return self._graph

    @property
    def input_steps(self) -> dict[str, int | None]:
        inner = self.layer
        axes = {v.name: (v.dims, inner.layout.inputs[v.name].axes) for v in inner.wiring.data}
        fixed = {n: one_fixed([d[of.index("T")]]) for n, (d, of) in axes.items() if "T" in of}
        return {name: fixed.get(name) for name in axes}

    @property
    def declared_steps(self) -> int | None:
        """The number of steps that a graph without states declares, if it is above 1, else None."""
        return None if self.layer.wiring.states else one_fixed(self.input_steps.values())

    def children(self) -> dict[str, Layer]:
        return {"graph": self.layer}

    def check_weights(self) -> None:
        self.layer.check()

    @property
    def call_names(self) -> list[str]:
        """The inputs of a call, in order, including states and lengths."""
        return [value.name for value in self.layer.evaluator.graph.inputs]

    def __call__(self, *inputs: Any, **options: Any) -> dict[str, Array]:
        """Return the outputs by name, for a dictionary of inputs or one array per input, in order.

        Raises ShapeError, DTypeError or DataError that names the input or the node.
        """
        values = self.layer.evaluator.graph.inputs
        names = self.call_names
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            by_name = dict(inputs[0])
        else:
            arrays = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], list) else inputs
            by_name = dict(zip(names, arrays, strict=False))
            if len(arrays) != len(names):
                raise ShapeError(
                    f"{self}: the number of inputs must be {len(names)} ({', '.join(names)}), "
                    f"received {len(arrays)}"
                )
        if set(by_name) != set(names) or options:
            raise ShapeError(
                f"{self}: expected the inputs {', '.join(names)}, received "
                f"{', '.join(map(str, [*by_name, *options]))}"
            )
        feeds = {value.name: _checked(value, by_name[value.name]) for value in values}
        computed = self.layer.evaluator.run(feeds)
        return {value.name: computed[value.name] for value in self.layer.evaluator.graph.outputs}

    def get_config(self) -> dict[str, Any]:
        inner = self.layer.get_config()
        return {"name": self.name, "graph": inner["graph"], "state": inner["state"]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)


def _checked(value: graphs.Value, x: object) -> Array:
    array: Array
    owner = f"input {value.name!r}"
    if value.dtype == "float32":
        array = cast_floats(owner, x)
    elif value.dtype == "bool":
        array = np.asarray(x)
        if array.dtype != np.bool_:
            raise DTypeError(f"{owner}: expected booleans, received {array.dtype}")
    else:
        array = cast_ids(owner, x).astype(value.dtype)
    array = array.reshape(np.asarray(x).shape)  # a scalar became an array of one value
    if array.ndim != len(value.dims):
        raise ShapeError(
            f"{owner}: the number of axes must be {len(value.dims)}, as in {list(value.dims)}, "
            f"received shape {array.shape}"
        )
    return array


_ROWS, _STEPS, _CUT = 3, 5, 2
_MIXING = {
    "AveragePool", "Conv", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool",
    "LayerNormalization", "LogSoftmax", "MatMul", "MaxPool", "Pad", "ReduceMax", "ReduceMean",
    "ReduceSum", "Slice", "Softmax", "Split",
}  # fmt: skip
"""Operators that can combine steps."""


def _compare(layer: OnnxGraph) -> str | None:
    """Return the first difference between runs of one window, and its suspects; None if equal."""
    random = np.random.default_rng(0)
    inputs: list[Array] = []
    for value in layer.wiring.data:
        if value.dtype == "float32":
            features = value.dims[layer.layout.inputs[value.name].axes.index("F")] or 1
            inputs.append(random.normal(0, 1, (_ROWS, _STEPS, features)).astype(np.float32))
        else:
            inputs.append(random.integers(0, 2, (_ROWS, _STEPS)))
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


def _compare_lengths(layer: OnnxGraph, inputs: list[Array], by_step: bool) -> str | None:
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
    layer: OnnxGraph, inputs: list[Array], by_step: bool, states: OnnxStates | None = None
) -> tuple[list[Floats], OnnxStates]:
    states = layer.stream_initial(len(inputs[0])) if states is None else states
    return layer.advance(inputs, None, states, by_step=by_step), states


def _same(some: list[Floats], others: list[Floats]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def _reason(layer: OnnxGraph, difference: str) -> str:
    names = ", ".join(layer.layout.outputs)
    suspects = [str(node) for node in layer.evaluator.graph.nodes if node.op in _MIXING]
    check = f"; check {', '.join(suspects[:3])}" if suspects else ""
    return f"outputs ({names}): {difference}{check}"
