"""Passes through a model's graph, forward and back; the plan of what can be trained."""

from collections.abc import Iterator, Sequence
from typing import Any

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels.integers import FLOAT32
from streamrnn.nn.layers import RNN, Bidirectional, Layer
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.precision import precision_of
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.layers.symbol import Symbol, symbols_in
from streamrnn.nn.models import Model
from streamrnn.nn.models.graph import Graph, settled
from streamrnn.nn.training.recording import (
    Plan,
    Pullback,
    Recorded,
    Recording,
    check_regularization,
    total_of,
)
from streamrnn.nn.training.rules import check_layer, rule_of


def record(
    graph: Graph,
    arrays: Sequence[Array],
    masks: Sequence[Array | None],
    context: CallContext,
    recording: Recording,
    wanted: Sequence[bool],
) -> Recorded:
    """Run a graph, and record the backward pass; `wanted`: which inputs need a gradient.

    A layer that no gradient passes through runs as in scoring, and may be of any class; a layer
    with dropout or noise is always recorded in training.
    """
    values: list[Any] = [None] * len(graph.slots)
    slot_masks: list[Any] = [None] * len(graph.slots)
    needs = [False] * len(graph.slots)
    for symbol, array, mask, need in zip(graph.inputs, arrays, masks, wanted, strict=True):
        slot = graph.slots[id(symbol)]
        values[slot], slot_masks[slot], needs[slot] = array, mask, need
    calls: list[tuple[list[int], list[int], list[bool], Pullback]] = []
    for step in graph.steps:
        layer = step.node.layer
        read = [*leaves(step.node.inputs), *symbols_in(step.node.kwargs.get("initial_state"))]
        slots = [graph.slots[id(symbol)] for symbol in read]
        of_inputs = [needs[slot] for slot in slots]
        inputs, inner = step.read(values, slot_masks, context)
        need = any(of_inputs) or recording.trains(layer)
        if need or (recording.training and _is_random(layer, recording)):
            recorded = _record(layer, inputs, inner, recording, of_inputs)
            outputs, output_masks = recorded.outputs, recorded.masks
            if need:
                calls.append((slots, step.outputs, of_inputs, recorded.pullback))
        else:
            result, result_masks = layer.forward(inputs, inner)
            outputs = list(leaves(result if graph.trusted else settled(step, result)))
            nested = isinstance(result_masks, list | dict)
            output_masks = list(leaves(result_masks)) if nested else [result_masks] * len(outputs)
        for slot, value, mask in zip(step.outputs, outputs, output_masks, strict=False):
            values[slot], slot_masks[slot], needs[slot] = value, mask, need
    ends = [graph.slots[id(symbol)] for symbol in graph.outputs]
    begins = [graph.slots[id(symbol)] for symbol in graph.inputs]

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        gradients: list[Floats | None] = [None] * len(graph.slots)
        for slot, dy in zip(ends, dys, strict=True):
            gradients[slot] = total_of([gradients[slot], dy])
        for read, written, wanted_there, back in reversed(calls):
            slopes = [gradients[slot] for slot in written]
            if all(gradient is None for gradient in slopes):
                continue
            dxs = back(slopes, wanted_there)
            for slot, dx in zip(read, dxs, strict=True):
                gradients[slot] = total_of([gradients[slot], dx])
        return [gradients[slot] for slot in begins]

    return Recorded([values[s] for s in ends], [slot_masks[s] for s in ends], pullback)


def _is_random(layer: Layer, recording: Recording) -> bool:
    """Return whether a layer, or one inside it, has dropout or noise."""
    rates = ("rate", "stddev", "dropout", "recurrent_dropout")
    parts = recording.once(("parts", id(layer)), lambda: [*_parts(layer)])
    return any(getattr(part, rate, 0) for part in parts for rate in rates)


def _parts(layer: Layer) -> Iterator[Layer]:
    yield layer
    for inner in layer.children().values():
        yield from _parts(inner)


def _record(
    layer: Any, inputs: Any, context: CallContext, recording: Recording, wanted: list[bool]
) -> Recorded:
    if not isinstance(layer, Model):
        return rule_of(layer)(layer, inputs, context, recording)
    arrays = inputs if isinstance(inputs, list) else [inputs]
    masks = context.mask if isinstance(context.mask, list) else [context.mask] * len(arrays)
    return record(layer.graph, arrays, masks, context, recording, wanted)


def plan_of(model: Model, *, one_output: bool = False) -> Plan:
    """Return the plan of a model, after a check that the model can be trained.

    one_output: refuse a model with several outputs. Raises UnsupportedError, which names the model
    or a layer.
    """
    if one_output and len(model.graph.outputs) > 1:
        raise UnsupportedError(
            f"{model}: training a model with several outputs is not supported here; train a "
            "Model that has only the output with the loss, or use Model.fit"
        )
    refuse_lower_precision(model)
    plan = Plan.of(model)
    _check_graph(model.graph, plan, set())
    return plan.with_penalties(model)


def refuse_lower_precision(model: Model) -> None:
    """Raise UnsupportedError for a model in lower precision."""
    if (precision := precision_of(model)) != FLOAT32:
        raise UnsupportedError(
            f"{model} has weights in {precision}, which cannot be trained: fit the float32 "
            f"model, and round it afterwards (streamrnn convert IN OUT --precision {precision})"
        )


def _check_graph(graph: Graph, plan: Plan, reached: set[int]) -> None:
    """Raise UnsupportedError, naming the layer, if training would need an unsupported gradient.

    reached: the id() of each input symbol that a gradient passes through; the ids of other such
    symbols are added.
    """
    for step in graph.steps:
        layer, node = step.node.layer, step.node
        own = id(layer) in plan.parts
        if not own and not any(id(symbol) in reached for symbol in node.symbols):
            continue
        reached |= {id(symbol) for symbol in node.outputs}
        for argument, value in node.kwargs.items():
            states = argument == "initial_state" and isinstance(layer, RNN | Bidirectional)
            symbols = states and all(isinstance(leaf, Symbol) for leaf in leaves(value))
            if value is not None and not symbols:
                raise UnsupportedError(
                    f"{layer}: training with {argument}= in the model's graph is not supported"
                )
        if own:
            check_regularization(layer)
        if isinstance(layer, Model):
            inputs = layer.graph.inputs
            inner = {id(s) for s, o in zip(inputs, node.symbols, strict=True) if id(o) in reached}
            _check_graph(layer.graph, plan, inner)
        else:
            check_layer(layer)
