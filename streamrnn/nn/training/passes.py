"""Passes through a model's graph, forward and back, and the check of what can be trained."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn.layers import RNN, Bidirectional
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.layers.symbol import Symbol, symbols_in
from streamrnn.nn.models import Model
from streamrnn.nn.models.graph import Graph, settled
from streamrnn.nn.training.penalties import check_regularization
from streamrnn.nn.training.recording import Recorded, Recording, Trained, total_of
from streamrnn.nn.training.rules import check_layer, rule_of


class _Call(NamedTuple):
    """A recorded call: the slots of its inputs and outputs, and which inputs need a gradient."""

    inputs: list[int]
    outputs: list[int]
    wanted: list[bool]
    recorded: Recorded


def record(
    graph: Graph,
    arrays: Sequence[Array],
    masks: Sequence[Array | None],
    context: CallContext,
    recording: Recording,
    wanted: Sequence[bool],
) -> Recorded:
    """Run a graph; `wanted`: which inputs need a gradient.

    Calls that no gradient passes through run as in scoring, whatever their layer, except for
    dropout and noise in training.
    """
    values: list[Any] = [None] * len(graph.slots)
    slot_masks: list[Any] = [None] * len(graph.slots)
    needs = [False] * len(graph.slots)
    for symbol, array, mask, need in zip(graph.inputs, arrays, masks, wanted, strict=True):
        slot = graph.slots[id(symbol)]
        values[slot], slot_masks[slot], needs[slot] = array, mask, need
    calls: list[_Call] = []
    for step in graph.steps:
        layer = step.node.layer
        read = [*leaves(step.node.inputs), *symbols_in(step.node.kwargs.get("initial_state"))]
        slots = [graph.slots[id(symbol)] for symbol in read]
        of_inputs = [needs[slot] for slot in slots]
        inputs, inner = step.read(values, slot_masks, context)
        need = any(of_inputs) or recording.trains(layer)
        if need or (recording.training and _is_random(layer)):
            recorded = _record(layer, inputs, inner, recording, of_inputs)
            outputs, output_masks = recorded.outputs, recorded.masks
            if need:
                calls.append(_Call(slots, step.outputs, of_inputs, recorded))
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
        for call in reversed(calls):
            slopes = [gradients[slot] for slot in call.outputs]
            if all(gradient is None for gradient in slopes):
                continue
            dxs = call.recorded.pullback(slopes, call.wanted)
            for slot, dx in zip(call.inputs, dxs, strict=True):
                gradients[slot] = total_of([gradients[slot], dx])
        return [gradients[slot] for slot in begins]

    return Recorded([values[s] for s in ends], [slot_masks[s] for s in ends], pullback)


def _is_random(layer: Any) -> bool:
    """Return whether a layer, or one inside it, has dropout or noise."""
    rates = ("rate", "stddev", "dropout", "recurrent_dropout")
    return any(getattr(layer, rate, 0) for rate in rates) or any(
        _is_random(inner) for inner in layer.children().values()
    )


def _record(
    layer: Any, inputs: Any, context: CallContext, recording: Recording, wanted: list[bool]
) -> Recorded:
    if not isinstance(layer, Model):
        return rule_of(layer)(layer, inputs, context, recording)
    arrays = inputs if isinstance(inputs, list) else [inputs]
    masks = context.mask if isinstance(context.mask, list) else [context.mask] * len(arrays)
    return record(layer.graph, arrays, masks, context, recording, wanted)


def check_trainable(graph: Graph, trained: Trained, reached: set[int]) -> None:
    """Raise UnsupportedError, naming the layer, if training would need an unsupported gradient.

    reached: the id() of each input that a gradient passes through; other symbols are added.
    """
    for step in graph.steps:
        layer, node = step.node.layer, step.node
        own = id(layer) in trained.sets
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
            check_trainable(layer.graph, trained, inner)
        else:
            check_layer(layer)
