"""A recorded pass through a model: outputs forward, then gradients back.

Also the plan, which lists the weights that training changes, and their regularizers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.errors import StreamRNNError, UnsupportedError
from streamrnn.nn.kernels import random
from streamrnn.nn.layers import DepthwiseConv1D, Layer, regularizers
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.precision import Packable, packable_layers
from streamrnn.nn.layers.regularizers import Regularizer
from streamrnn.nn.layers.weights import WeightSet
from streamrnn.nn.models import Model
from streamrnn.nn.models.graph import Graph
from streamrnn.nn.training.optimizer import WeightUpdate

_WEIGHTS = {"recurrent": "recurrent_kernel"}
"""The weight that recurrent_regularizer is for; most other arguments are named after a weight."""
_LEFT_OUT = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
"""Weights that a layer may lack, and the argument that says so."""

Pullback: TypeAlias = Callable[[Sequence[Floats | None], Sequence[bool]], list[Floats | None]]
"""Maps the gradients of a call's outputs (None: zeros), and whether each input needs a gradient, to
the gradients of the call's inputs. Gradients of weights are added to the recording."""


class Recorded(NamedTuple):
    """The flat list of a call's outputs, their masks, and the backward pass."""

    outputs: list[Any]
    masks: list[Any]
    pullback: Pullback


class Plan(NamedTuple):
    """What training changes in a model: the weights that were trainable when the plan was made.

    weights: name -> (holder, the holder's name for the weight, array). keys: (id of holder, the
    holder's name for the weight) of each of `weights`. parts: ids of the layers and cells that have
    one of `weights`, directly or inside. arrays: all weights, trained or not, by id of holder.
    holders: the layers and cells that hold `weights`. penalties: name of a trained weight -> its
    regularizer. packable: the layers that may have integer weights.
    """

    graph: Graph
    weights: dict[str, tuple[WeightSet, str, Floats]]
    keys: frozenset[tuple[int, str]]
    parts: frozenset[int]
    arrays: Mapping[int, dict[str, Floats]]
    holders: list[WeightSet]
    penalties: dict[str, Regularizer]
    packable: list[Packable]

    @classmethod
    def of(cls, model: Model) -> "Plan":
        """Return the plan of a model, without penalties; the model is not checked."""
        rows = list(zip(model.named_weights().items(), model.holders(), strict=True))
        arrays: dict[int, dict[str, Floats]] = {}
        for (_, array), (holder, key, _) in rows:
            arrays.setdefault(id(holder), {})[key] = array
        weights = {
            name: (holder, key, array) for (name, array), (holder, key, trains) in rows if trains
        }
        holders = {id(holder): holder for holder, _, _ in weights.values()}
        parts: set[int] = set()

        def visit(part: WeightSet) -> bool:
            inside = [visit(child) for child in part.children().values()]
            if id(part) in holders or any(inside):
                parts.add(id(part))
            return id(part) in parts

        visit(model)
        keys = frozenset((id(holder), key) for holder, key, _ in weights.values())
        packable = [layer for _, layer in packable_layers(model)]
        inside, held = frozenset(parts), list(holders.values())
        return cls(model.graph, weights, keys, inside, arrays, held, {}, packable)

    def with_penalties(self, model: Model) -> "Plan":
        """Return the plan with the regularizers of its weights; `model` has been checked."""
        regularized = dict(_regularized(model))
        penalties = {
            name: regularized[id(holder), key]
            for name, (holder, key, _) in self.weights.items()
            if (id(holder), key) in regularized
        }
        return self._replace(penalties=penalties)

    def penalty(self) -> float:
        """Return what regularizers add to the loss, summed in float64, weight after weight."""
        total = 0.0
        for name, regularizer in self.penalties.items():
            total += regularizer(self.weights[name][2])
        return total


@dataclass(eq=False)
class Recording:
    """The shared data of a pass: whether it trains, random numbers, and gradients.

    seed, step: for the random numbers of dropout and noise. kept: objects that passes make only
    once, such as networks with their tapes.
    """

    plan: Plan
    training: bool
    seed: int = 0
    step: int = 0
    kept: dict[Any, Any] = field(default_factory=dict)

    gradients: dict[tuple[int, str], Floats] = field(default_factory=dict, init=False)
    _calls = _arrays = 0

    def trains(self, part: WeightSet) -> bool:
        """Return whether a weight of a layer or cell, or of a part inside it, needs a gradient."""
        return id(part) in self.plan.parts

    def weights_of(self, holder: WeightSet) -> dict[str, Floats]:
        """Return a layer's or cell's own weights by name, in order of creation."""
        return self.plan.arrays.get(id(holder), {})

    def add(self, holder: WeightSet, name: str, gradient: Floats) -> None:
        """Add `gradient` to the sum for a trained weight: a layer may be called more than once."""
        key = id(holder), name
        if key in self.plan.keys:
            before = self.gradients.get(key)
            self.gradients[key] = gradient if before is None else before + gradient

    def add_slopes(self) -> None:
        """Add the derivatives of the penalty to the gradients."""
        for name, regularizer in self.plan.penalties.items():
            holder, key, weight = self.plan.weights[name]
            self.add(holder, key, regularizer.slope(weight))

    def updates(self) -> list[WeightUpdate]:
        """Return each weight that has a gradient, with the gradient."""
        return [
            WeightUpdate(name, array, self.gradients[id(holder), key])
            for name, (holder, key, array) in self.plan.weights.items()
            if (id(holder), key) in self.gradients
        ]

    def number_call(self) -> int:
        """Return the next number, for a call that uses random numbers or keeps a tape."""
        self._calls += 1
        return self._calls - 1

    def factors(
        self, seed: int | None, call: int, which: int, shape: tuple[int, ...], rate: float
    ) -> Floats:
        """Return dropout factors for one call, from the layer's `seed`, or else `self.seed`."""
        key = random.key_of(self.seed if seed is None else seed, call, which, self.step)
        return random.factors(key, shape, rate)

    def generator(self, seed: int | None, call: int) -> np.random.Generator:
        """Return a generator for one call, from the layer's `seed`, or else from `self.seed`."""
        key = random.key_of(self.seed if seed is None else seed, call, 0, self.step)
        return np.random.default_rng(key)

    def array(self, shape: tuple[int, ...]) -> Floats:
        """Return an array to write to, which the next pass uses again: new memory is slow."""
        key = "array", self._arrays
        self._arrays += 1
        array: Floats | None = self.kept.get(key)
        if array is None or array.shape != shape:
            array = self.kept[key] = np.empty(shape, np.float32)
        return array

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the object that an earlier pass made under this key, or make it."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


Rule: TypeAlias = Callable[[Any, Any, CallContext, Recording], Recorded]
"""Calls a layer on arrays, as `layer.forward` does, and records the backward pass."""


def total_of(gradients: Sequence[Floats | None]) -> Floats | None:
    """Return the sum of gradients, added in order; None stands for zeros."""
    total: Floats | None = None
    for gradient in gradients:
        if gradient is not None:
            total = gradient if total is None else total + gradient
    return total


def one_to_one(
    layer: Any,
    inputs: Array,
    outputs: Array,
    mask: Bools | None,
    back: Callable[[Floats], Floats],
    *,
    trains: bool = False,
) -> Recorded:
    """Record a call with one input and one output.

    trains: whether `back` also adds gradients of weights, and so is called even if the input needs
    no gradient.
    """

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None or not (trains or wanted[0]):
            return [None]
        return [np.ascontiguousarray(back(dy))]

    return Recorded([outputs], [layer.compute_mask(inputs, mask)], pullback)


def rule_from(back: Callable[[Any, Floats, Floats, Floats, CallContext], Floats]) -> Rule:
    """Make the rule of a layer without trained weights: back(layer, x, y, dy, context) is dx."""

    def rule(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
        y = layer.apply(inputs, context)
        gradient: Callable[[Floats], Floats]
        gradient = lambda dy: back(layer, inputs, y, dy, context)  # noqa: E731
        return one_to_one(layer, inputs, y, context.mask, gradient)

    return rule


# ---- regularizers


def check_regularization(layer: Layer) -> None:
    """Raise UnsupportedError if training cannot apply a regularizer or constraint of the layer.

    The message names the argument, and the layer, which may be one inside `layer`.
    """
    for argument, value in _passed(layer).items():
        if not argument.endswith("_regularizer") or argument == "activity_regularizer":
            _refuse(layer, argument, value, "leave it out, or use weight_decay= of the optimizer")
        try:
            regularizer = regularizers.get(value)
        except StreamRNNError as error:
            _refuse(layer, argument, value, str(error))
        own = (of for of in type(regularizer).__mro__ if {"__call__", "slope"} & set(vars(of)))
        if "slope" not in vars(next(own, Regularizer)):  # its slope is of another penalty
            why = "its class defines __call__, so it needs slope(weight), the derivative of that"
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
    """Yield (id of the holder, name there) of each regularized weight, and its regularizer."""
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
    """Return (id of the layer or its cell, name there) of an argument's weight; None if absent."""
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
