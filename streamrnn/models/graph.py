"""A graph of layer calls: sorted once, then run on arrays."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from streamrnn.arrays import Array
from streamrnn.errors import ConfigError
from streamrnn.layers.input import InputLayer
from streamrnn.layers.layer import Layer
from streamrnn.layers.run import Run
from streamrnn.layers.symbol import Node, Shape, Symbol, leaves, map_structure


class Step(NamedTuple):
    """One node, with its symbols as numbers of slots."""

    node: Node
    path: str
    inputs: Any
    initial_state: Any
    mask: Any
    training: bool | None
    outputs: list[int]


class Slot(int):
    """The number of a symbol in the graph, as opposed to a constant in the same place."""


class Graph:
    """The nodes between `inputs` and `outputs`.

    nodes: in an order in which each stands behind what it needs. layers: in Keras's order, by
    depth. Raises ConfigError where an output does not come from the inputs alone.
    """

    def __init__(self, inputs: Sequence[Symbol], outputs: Sequence[Symbol]) -> None:
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.nodes, met = _sorted_nodes(self.inputs, self.outputs)
        self.depths = _depths(self.nodes)
        self.layers = _ordered_layers(self.nodes, self.depths, met)
        self.slots = {
            id(symbol): Slot(i)
            for i, symbol in enumerate(s for node in self.nodes for s in node.outputs)
        }
        self.steps = self._steps()
        self.specs: list[tuple[str, Shape, str]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Slots are found by the identity of symbols: a copy must find its own.
        return Graph, (self.inputs, self.outputs)

    def _steps(self) -> list[Step]:
        seen: dict[int, int] = {}
        steps = []
        given = {id(symbol) for symbol in self.inputs}
        called = [n for n in self.nodes if not any(id(symbol) in given for symbol in n.outputs)]
        self._refuse_half_given(called, given)
        for node in called:
            count = seen[id(node.layer)] = seen.get(id(node.layer), -1) + 1
            name = node.layer.name.replace("/", "%2F")
            steps.append(
                Step(
                    node,
                    name if count == 0 else f"{name}@{count}",
                    self._to_slots(node.inputs),
                    self._to_slots(node.kwargs.get("initial_state")),
                    self._to_slots(node.kwargs.get("mask")),
                    node.kwargs.get("training"),
                    [self.slots[id(symbol)] for symbol in node.outputs],
                )
            )
        return steps

    def _refuse_half_given(self, called: list[Node], given: set[int]) -> None:
        """Of a call that is not made, since its output is an input, no other output can be used."""
        used = [*self.outputs, *(symbol for node in called for symbol in node.symbols)]
        made = {id(symbol) for node in called for symbol in node.outputs}
        for symbol in used:
            if id(symbol) not in made | given:
                raise ConfigError(
                    f"Model: output {symbol.index} of layer {symbol.layer.name!r} is needed, and "
                    "another output of the same call is among the inputs: give all of them, or "
                    "what the layer is called on"
                )

    def _to_slots(self, tree: Any) -> Any:
        return map_structure(
            lambda leaf: self.slots[id(leaf)] if isinstance(leaf, Symbol) else leaf, tree
        )

    def run(
        self, arrays: Sequence[Array], masks: Sequence[Array | None], run: Run
    ) -> tuple[list[Array], list[Array | None]]:
        """Outputs and their masks, for one array (and mask or None) an input."""
        values: list[Any] = [None] * len(self.slots)
        masked: list[Any] = [None] * len(self.slots)
        for symbol, array, mask in zip(self.inputs, arrays, masks, strict=True):
            values[self.slots[id(symbol)]] = array
            masked[self.slots[id(symbol)]] = mask
        for step in self.steps:
            layer = step.node.layer
            inputs = _floats_where_wanted(layer, _fill(step.inputs, values))
            if step.mask is None:
                mask = _fill(step.inputs, masked)
            else:
                mask = _bools(_fill(step.mask, values), inputs)
                mask = layer.make_mask(map_structure(np.shape, inputs), mask, None)
            inner = run.at(step.path)
            if step.training is not None:
                inner = inner.with_training(bool(step.training))
            made, made_masks = layer.forward(
                inputs,
                inner,
                mask=none_if_all_none(mask),
                initial_state=_fill(step.initial_state, values),
            )
            flat = list(leaves(made)) if isinstance(made, list | tuple | dict) else [made]
            flat_masks = (
                list(leaves(made_masks))
                if isinstance(made_masks, list | dict)
                else [made_masks] * len(flat)
            )
            for slot, value, made_mask in zip(step.outputs, flat, flat_masks, strict=False):
                values[slot] = value
                masked[slot] = made_mask
        slots = [self.slots[id(symbol)] for symbol in self.outputs]
        return [values[slot] for slot in slots], [masked[slot] for slot in slots]

    def infer(self, shapes: Sequence[Any]) -> list[Any]:
        """The outputs' shapes for inputs of these shapes."""
        known: list[Any] = [None] * len(self.slots)
        for symbol, shape in zip(self.inputs, shapes, strict=True):
            known[self.slots[id(symbol)]] = shape
        for step in self.steps:
            made = step.node.layer.compute_output_shape(_fill(step.inputs, known))
            flat = _flat_shapes(made)
            for slot, shape in zip(step.outputs, flat, strict=True):
                known[slot] = shape
        return [known[self.slots[id(symbol)]] for symbol in self.outputs]

    def consumers(self, symbol: Symbol) -> list[Node]:
        """The nodes that read this symbol as an input."""
        return [node for node in self.nodes if any(s is symbol for s in leaves(node.inputs))]


def _fill(tree: Any, values: list[Any]) -> Any:
    if type(tree) is Slot:
        return values[tree]
    if isinstance(tree, list):
        return [_fill(item, values) for item in tree]
    return tree


def _flat_shapes(shapes: Any) -> list[Any]:
    if isinstance(shapes, list | dict):
        items = shapes.values() if isinstance(shapes, dict) else shapes
        return [flat for item in items for flat in _flat_shapes(item)]
    return [shapes]


def _bools(mask: Any, inputs: Any) -> Any:
    """A mask, or one (or None) each of several inputs."""
    if isinstance(inputs, list) and isinstance(mask, list):
        return [None if one is None else np.asarray(one, dtype=np.bool_) for one in mask]
    return np.asarray(mask, dtype=np.bool_)


def none_if_all_none(mask: Any) -> Any:
    """A list of masks, or None in place of one that holds none."""
    if isinstance(mask, list) and all(item is None for item in mask):
        return None
    return mask


def _floats_where_wanted(layer: Layer, inputs: Any) -> Any:
    """An integer input that feeds an Embedding may feed a layer of floats as well."""
    if layer.input_dtype == "float32" and type(inputs) is np.ndarray and inputs.dtype.kind in "iu":
        return inputs.astype(np.float32)
    return inputs


def _sorted_nodes(inputs: list[Symbol], outputs: list[Symbol]) -> tuple[list[Node], list[Node]]:
    """Depth first from the outputs: the nodes in order of use, and in the order they were met.

    Iterative, as graphs from files may be deep.
    """
    order: list[Node] = []
    met: list[Node] = []
    state: dict[int, int] = {}
    given = {id(symbol) for symbol in inputs}
    todo: list[tuple[Node, bool]] = [(symbol.node, False) for symbol in reversed(outputs)]
    while todo:
        node, ready = todo.pop()
        if ready:
            state[id(node)] = 2
            order.append(node)
        elif id(node) not in state:
            state[id(node)] = 1
            met.append(node)
            todo.append((node, True))
            if isinstance(node.layer, InputLayer) and id(node.outputs[0]) not in given:
                raise ConfigError(
                    f"Model: the outputs depend on Input {node.layer.name!r}, which is not among "
                    "the inputs"
                )
            if not any(id(symbol) in given for symbol in node.outputs):
                todo += [(symbol.node, False) for symbol in reversed(node.symbols)]
    reached = {id(symbol) for node in order for symbol in node.outputs}
    unused = [s.node for s in inputs if id(s) not in reached]
    return unused + order, met + unused


def _depths(nodes: list[Node]) -> dict[int, int]:
    """How many calls stand between a node and the outputs, at most (by node id)."""
    depths = {id(node): 0 for node in nodes}
    layer_depth: dict[int, int] = {}
    for node in reversed(nodes):
        depth = max(depths[id(node)], layer_depth.get(id(node.layer), 0))
        depths[id(node)] = layer_depth[id(node.layer)] = depth
        for symbol in node.symbols:
            if id(symbol.node) in depths:
                depths[id(symbol.node)] = max(depths[id(symbol.node)], depth + 1)
    return depths


def _ordered_layers(nodes: list[Node], depths: dict[int, int], met: list[Node]) -> list[Layer]:
    """By depth, the deepest first, and where that is equal in the order they were met."""
    deepest: dict[int, int] = {}
    for node in nodes:
        key = id(node.layer)
        deepest[key] = max(deepest.get(key, 0), depths[id(node)])
    found = {id(node.layer): node.layer for node in met}
    return sorted(found.values(), key=lambda layer: -deepest[id(layer)])
