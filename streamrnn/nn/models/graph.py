"""A graph of layer calls, sorted once and then run on arrays."""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError, ShapeError
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.operation import InputLayer
from streamrnn.nn.layers.structure import Shape, leaves, map_structure
from streamrnn.nn.layers.symbol import Node, Symbol, symbols_in

NestedShapes = Shape | list["NestedShapes"] | dict[str, "NestedShapes"]
"""The shapes of a structure of arrays."""

Getter = Callable[[Any], Any]
"""Picks an argument of a call from values by slot."""


class Step(NamedTuple):
    """One node: getters of its arguments, and the slots of its outputs."""

    node: Node
    path: str
    inputs: Getter
    initial_state: Getter | None
    mask: Getter | None
    training: bool | None
    options: dict[str, Getter]
    outputs: list[int]

    def read(
        self, values: Sequence[Any], masks: Sequence[Any] | None, context: CallContext
    ) -> tuple[Any, CallContext]:
        """Return the inputs and the context of the call, from values and masks by slot.

        masks: None if no value has a mask.
        """
        layer, inputs = self.node.layer, self.inputs(values)
        of_floats = layer.input_dtype == "float32" and type(inputs) is np.ndarray
        if of_floats and inputs.dtype.kind in "iu":  # the input may also feed an Embedding
            inputs = inputs.astype(np.float32)
        mask: Any = None
        if self.mask is not None:
            mask = map_structure(
                lambda of: None if of is None else np.asarray(of, np.bool_), self.mask(values)
            )
            mask = layer.make_mask(map_structure(np.shape, inputs), mask, None)
        elif masks is not None:
            mask = self.inputs(masks)
        if isinstance(mask, list) and all(item is None for item in mask):
            mask = None
        state = None if self.initial_state is None else self.initial_state(values)
        options = {key: value(values) for key, value in self.options.items()}
        return inputs, context.of_layer(self.path, mask, state, self.training, options)


class Graph:
    """The nodes between `inputs` and `outputs`.

    nodes: in topological order. layers: in Keras's order, the deepest first, and at equal depth in
    the order of a walk from the outputs. Raises ConfigError if an output depends on anything but
    the inputs.
    """

    def __init__(self, inputs: Sequence[Symbol], outputs: Sequence[Symbol]) -> None:
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.nodes, visited = _sorted_nodes(self.inputs, self.outputs)
        self.depths, of_layers = _depths(self.nodes)
        layers = {id(node.layer): node.layer for node in visited}
        self.layers = sorted(layers.values(), key=lambda layer: -of_layers[id(layer)])
        self.slots = {
            id(symbol): i for i, symbol in enumerate(s for node in self.nodes for s in node.outputs)
        }
        self.steps = self._steps()
        self.trusted = all(map(is_all_built_in, self.layers))
        self._input_slots = [self.slots[id(symbol)] for symbol in self.inputs]
        self._output_slots = [self.slots[id(symbol)] for symbol in self.outputs]
        self.specs: list[tuple[str, Shape, str]] | None = None

    def __reduce__(self) -> tuple[type["Graph"], tuple[list[Symbol], list[Symbol]]]:
        # Slots are looked up by the identity of symbols, which differs in a copy.
        return Graph, (self.inputs, self.outputs)

    def _steps(self) -> list[Step]:
        counts: dict[int, int] = {}
        steps = []
        input_ids = {id(symbol) for symbol in self.inputs}
        called = [n for n in self.nodes if not any(id(symbol) in input_ids for symbol in n.outputs)]
        # Inputs that replace outputs of a call have to replace all that are used.
        available = input_ids.union(id(symbol) for node in called for symbol in node.outputs)
        for symbol in [*self.outputs, *(symbol for node in called for symbol in node.symbols)]:
            if id(symbol) not in available:
                raise ConfigError(
                    f"Model: output {symbol.index} of layer {symbol.layer.name!r} is needed, but "
                    "another output of the same call is among the inputs; pass all outputs of the "
                    "call as inputs, or the inputs of the layer instead"
                )
        for node in called:
            count = counts[id(node.layer)] = counts.get(id(node.layer), -1) + 1
            name = node.layer.name.replace("/", "%2F")
            training = node.kwargs.get("training")
            arguments = {key: of for key, of in node.kwargs.items() if key != "training"}
            getters = {key: self._getter(of) for key, of in arguments.items() if of is not None}
            steps.append(
                Step(
                    node,
                    name if count == 0 else f"{name}@{count}",
                    self._getter(node.inputs),
                    getters.pop("initial_state", None),
                    getters.pop("mask", None),
                    None if training is None else bool(training),
                    getters,
                    [self.slots[id(symbol)] for symbol in node.outputs],
                )
            )
        return steps

    def _getter(self, tree: object) -> Getter:
        if isinstance(tree, Symbol):
            return itemgetter(self.slots[id(tree)])
        if isinstance(tree, list | tuple):
            getters = [self._getter(item) for item in tree]
            return lambda values: [get(values) for get in getters]
        return lambda values: tree

    def run(
        self, arrays: Sequence[Array], masks: Sequence[Array | None], context: CallContext
    ) -> tuple[list[Array], list[Array | None]]:
        """Return the outputs and their masks, for one array (and mask or None) per input."""
        values: list[Any] = [None] * len(self.slots)
        slot_masks: list[Array | None] = [None] * len(self.slots)
        masked = False
        for slot, array, input_mask in zip(self._input_slots, arrays, masks, strict=True):
            values[slot] = array
            slot_masks[slot] = input_mask
            masked = masked or input_mask is not None
        for step in self.steps:
            inputs, inner = step.read(values, slot_masks if masked else None, context)
            outputs, output_masks = step.node.layer.forward(inputs, inner)
            if not self.trusted:
                outputs = settled(step, outputs)
            if type(outputs) is np.ndarray and not isinstance(output_masks, list | dict):
                values[step.outputs[0]] = outputs
                if output_masks is not None:
                    slot_masks[step.outputs[0]], masked = output_masks, True
                continue
            flat = list(leaves(outputs))
            nested = isinstance(output_masks, list | dict)
            flat_masks = list(leaves(output_masks)) if nested else [output_masks] * len(flat)
            masked = True
            for slot, value, output_mask in zip(step.outputs, flat, flat_masks, strict=False):
                values[slot] = value
                slot_masks[slot] = output_mask
        slots = self._output_slots
        return [values[slot] for slot in slots], [slot_masks[slot] for slot in slots]

    def run_in_batches(
        self, arrays: Sequence[Array], masks: Sequence[Array | None], size: int, training: bool
    ) -> list[Array]:
        """Return the outputs of a call from Python, computed for `size` rows at a time."""
        context, parts = CallContext(training=training), []
        with context:
            for start in range(0, max(len(arrays[0]), 1), size):
                cut = slice(start, start + size)
                batch_masks = [None if mask is None else mask[cut] for mask in masks]
                parts.append(self.run([array[cut] for array in arrays], batch_masks, context)[0])
        return [np.concatenate(output) for output in zip(*parts, strict=True)]

    def bind(
        self, arrays: Sequence[Array], context: CallContext
    ) -> tuple[list[Array], list[Callable[[], object]]]:
        """Return arrays for the outputs, and calls that fill these from the values in `arrays`.

        The calls read the values that `arrays` have at that time. No step may have arguments
        besides its inputs; see `Layer.bind`.
        """
        values: list[Any] = [None] * len(self.slots)
        calls = []
        for slot, array in zip(self._input_slots, arrays, strict=True):
            values[slot] = array
        for step in self.steps:
            inner = context.of_layer(step.path, None, None, None, {})
            output, call = step.node.layer.bind(step.inputs(values), inner)
            values[step.outputs[0]] = output
            calls.append(call)
        return [values[slot] for slot in self._output_slots], calls

    def infer(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Return the outputs' shapes for inputs of these shapes."""
        by_slot = self.shapes(shapes)
        return [by_slot[self.slots[id(symbol)]] for symbol in self.outputs]

    def shapes(self, shapes: Sequence[Shape]) -> dict[int, Shape]:
        """Return the shape of each slot for inputs of these shapes."""
        by_slot: dict[int, Shape] = {}
        for symbol, shape in zip(self.inputs, shapes, strict=True):
            by_slot[self.slots[id(symbol)]] = shape
        for step in self.steps:
            output_shape = step.node.layer.compute_output_shape(step.inputs(by_slot))
            by_slot |= dict(zip(step.outputs, flat_shapes(output_shape), strict=True))
        return by_slot

    def consumers(self, symbol: Symbol) -> list[Node]:
        """Return the nodes that read this symbol as an input."""
        return [node for node in self.nodes if any(s is symbol for s in leaves(node.inputs))]


def positions_of(symbol: Symbol, node: Node) -> list[int]:
    """Return the indices of a symbol among the inputs of a node, which may repeat the symbol."""
    return [i for i, read in enumerate(symbols_in(node.inputs)) if read is symbol]


def one_fixed(steps: Iterable[int | None]) -> int | None:
    """Return the only number of steps that inputs declare, if it is above 1, else None."""
    fixed = {number for number in steps if number is not None}
    return fixed.pop() if len(fixed) == 1 and max(fixed) > 1 else None


def flat_shapes(shapes: NestedShapes) -> list[Shape]:
    """Return the shapes in nested lists and dictionaries."""
    if isinstance(shapes, list | dict):
        items = shapes.values() if isinstance(shapes, dict) else shapes
        return [flat for item in items for flat in flat_shapes(item)]
    return [shapes]


def is_all_built_in(layer: Layer) -> bool:
    """Return whether a layer, with all layers inside it, is a class of the package."""
    return layer.is_built_in() and all(map(is_all_built_in, layer.children().values()))


def settled(step: Step, outputs: Any) -> Any:
    """Return the outputs of a custom layer as kernels read them: contiguous, floats in float32.

    Raises ShapeError if the last axis does not have the size that later layers were built for, as
    compute_output_shape may be wrong: a kernel would read past the end of rows.
    """
    outputs = map_structure(
        lambda y: np.asarray(y, np.float32 if y.dtype.kind == "f" else None, order="C"), outputs
    )
    for symbol, value in zip(step.node.outputs, leaves(outputs), strict=False):
        size = symbol.shape[-1] if len(symbol.shape) > 1 else None
        if size is not None and value.shape[-1:] != (size,):
            raise ShapeError(
                f"{step.node.layer}: expected {size} as the last size of its output, received "
                f"shape {value.shape}. Let compute_output_shape of this layer, or of a custom "
                "layer before it, return the shape that its call returns, with None for a size "
                "that may differ"
            )
    return outputs


def _sorted_nodes(inputs: list[Symbol], outputs: list[Symbol]) -> tuple[list[Node], list[Node]]:
    """Return the nodes in order of use, and in the order of a depth-first walk from the outputs.

    The walk is iterative, as graphs from files may be deep.
    """
    order: list[Node] = []
    visited: list[Node] = []
    state: dict[int, int] = {}
    input_ids = {id(symbol) for symbol in inputs}
    todo: list[tuple[Node, bool]] = [(symbol.node, False) for symbol in reversed(outputs)]
    while todo:
        node, ready = todo.pop()
        if ready:
            state[id(node)] = 2
            order.append(node)
        elif id(node) not in state:
            state[id(node)] = 1
            visited.append(node)
            todo.append((node, True))
            if isinstance(node.layer, InputLayer) and id(node.outputs[0]) not in input_ids:
                raise ConfigError(
                    f"Model: the outputs depend on Input {node.layer.name!r}, which is not among "
                    "the inputs; add it to the inputs"
                )
            if not any(id(symbol) in input_ids for symbol in node.outputs):
                todo += [(symbol.node, False) for symbol in reversed(node.symbols)]
    reached = {id(symbol) for node in order for symbol in node.outputs}
    unused = [s.node for s in inputs if id(s) not in reached]
    return unused + order, visited + unused


def _depths(nodes: list[Node]) -> tuple[dict[int, int], dict[int, int]]:
    """Return the depth of each node and of each layer, by id.

    A depth is the largest number of calls between a node (or a layer) and the outputs.
    """
    depths = {id(node): 0 for node in nodes}
    of_layers: dict[int, int] = {}
    for node in reversed(nodes):
        depth = max(depths[id(node)], of_layers.get(id(node.layer), 0))
        depths[id(node)] = of_layers[id(node.layer)] = depth
        for symbol in node.symbols:
            if id(symbol.node) in depths:
                depths[id(symbol.node)] = max(depths[id(symbol.node)], depth + 1)
    return depths, of_layers
