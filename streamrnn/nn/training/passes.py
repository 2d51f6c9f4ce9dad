"""Passes through a model's graph, forward and back; the plan of what is trained, and penalties."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import StreamRNNError, UnsupportedError
from streamrnn.nn.kernels.integers import FLOAT32
from streamrnn.nn.layers import RNN, Bidirectional, DepthwiseConv1D, Layer, regularizers
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.precision import precision_of
from streamrnn.nn.layers.regularizers import Regularizer
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.layers.symbol import Symbol, symbols_in
from streamrnn.nn.layers.weights import WeightSet
from streamrnn.nn.models import Model
from streamrnn.nn.models.graph import Graph, settled
from streamrnn.nn.training.optimizer import WeightUpdate
from streamrnn.nn.training.recording import Pullback, Recorded, Recording, Trained, total_of
from streamrnn.nn.training.rules import check_layer, rule_of

_WEIGHTS = {"recurrent": "recurrent_kernel"}
"""The weight that recurrent_regularizer is for; other arguments are named after their weights."""
_LEFT_OUT = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
"""Weights that a layer may lack, and the argument that says so."""


class Plan(NamedTuple):
    """What training changes in a checked graph.

    weights: name -> (holder, its name for the weight, array). penalties: the regularizers of these
    weights, by their names.
    """

    graph: Graph
    trained: Trained
    weights: dict[str, tuple[WeightSet, str, Floats]]
    holders: list[WeightSet]
    penalties: dict[str, Regularizer]

    @classmethod
    def of(cls, model: Model) -> "Plan":
        """Return the plan of a model with one output.

        Raises UnsupportedError, which names the model or the layer.
        """
        if len(model.graph.outputs) > 1:
            raise UnsupportedError(
                f"{model}: training a model with several outputs is not supported here; train a "
                "Model that has only the output with the loss, or use Model.fit"
            )
        return cls.of_all(model)

    @classmethod
    def of_all(cls, model: Model) -> "Plan":
        """Return the plan of a model with any outputs. Raises UnsupportedError."""
        refuse_integers(model)
        trained = Trained.of(model)
        check_trainable(model.graph, trained, set())
        rows = zip(model.named_weights().items(), model.holders(), strict=True)
        weights = {
            name: (holder, key, array) for (name, array), (holder, key, trains) in rows if trains
        }
        holders = {id(holder): holder for holder, _, _ in weights.values()}
        regularized = dict(_regularized(model))
        penalties = {
            name: regularized[id(holder), key]
            for name, (holder, key, _) in weights.items()
            if (id(holder), key) in regularized
        }
        return cls(model.graph, trained, weights, list(holders.values()), penalties)

    def updates(self, recording: Recording) -> list[WeightUpdate]:
        """Return each weight that a pass has a gradient of, with the gradient."""
        return [
            WeightUpdate(name, array, recording.gradients[id(holder), key])
            for name, (holder, key, array) in self.weights.items()
            if (id(holder), key) in recording.gradients
        ]

    def penalty(self) -> float:
        """Return what regularizers add to the loss, summed in float64, weight after weight."""
        total = 0.0
        for name, regularizer in self.penalties.items():
            total += regularizer(self.weights[name][2])
        return total

    def add_slopes(self, recording: Recording) -> None:
        """Add the derivatives of the penalty to the gradients of a pass."""
        for name, regularizer in self.penalties.items():
            holder, key, weight = self.weights[name]
            recording.add(holder, key, regularizer.slope(weight))


def refuse_integers(model: Model) -> None:
    """Raise UnsupportedError for a model in lower precision."""
    if (precision := precision_of(model)) != FLOAT32:
        raise UnsupportedError(
            f"{model} has weights in {precision}, which cannot be trained: fit the float32 "
            f"model, and round it afterwards (streamrnn convert IN OUT --precision {precision})"
        )


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
    calls: list[tuple[list[int], list[int], list[bool], Pullback]] = []
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


# ---- regularizers


def check_regularization(layer: Layer) -> None:
    """Raise UnsupportedError, naming layer and argument, if training cannot apply it."""
    for argument, value in _passed(layer).items():
        if not argument.endswith("_regularizer") or argument == "activity_regularizer":
            _refuse(layer, argument, value, "leave it out, or use weight_decay= of the optimizer")
        try:
            regularizer = regularizers.get(value)
        except StreamRNNError as error:
            _refuse(layer, argument, value, str(error))
        own = (of for of in type(regularizer).__mro__ if {"__call__", "slope"} & set(vars(of)))
        if "slope" not in vars(next(own, Regularizer)):  # its slope is of another penalty
            why = "its class has its own __call__, and needs slope(weight), the derivative of that"
            _refuse(layer, argument, value, why)
        switch = _LEFT_OUT.get(argument.removesuffix("_regularizer"), "")
        parts = (layer, layer.children().get("cell"))
        left_out = any(getattr(part, switch, True) is False for part in parts)
        if _weight_of(layer, argument) is None and not left_out:
            _refuse(layer, argument, value, "the layer has no weight for it")
    for inner in layer.children().values():
        check_regularization(inner)


def _refuse(layer: Layer, argument: str, value: object, why: str) -> None:
    raise UnsupportedError(f"{layer}: training with {argument}={value!r} is not supported; {why}")


def _regularized(layer: Layer) -> Iterator[tuple[tuple[int, str], Regularizer]]:
    """Yield (id of the holder, name of the weight there) and the regularizer of each weight."""
    for argument, value in _passed(layer).items():
        place = _weight_of(layer, argument)
        if place is not None and (regularizer := regularizers.get(value)) is not None:
            yield place, regularizer
    for inner in layer.children().values():
        yield from _regularized(inner)


def _passed(layer: Layer) -> dict[str, object]:
    """Return the regularizers and constraints of a layer and of its own weights, by argument."""
    return layer.regularization() | layer.of_weights


def _weight_of(layer: Layer, argument: str) -> tuple[int, str] | None:
    """Return where the weight of an argument is: in the layer or its cell; None if in neither."""
    prefix = argument.removesuffix("_regularizer")
    if argument in layer.of_weights:
        return id(layer), prefix
    key = _WEIGHTS.get(prefix, prefix)
    if prefix == "depthwise" and isinstance(layer, DepthwiseConv1D):
        key = "kernel"
    for holder in (layer, layer.children().get("cell")):
        if holder is not None and any(h is holder and k == key for h, k, _ in holder.holders()):
            return id(holder), key
    return None
