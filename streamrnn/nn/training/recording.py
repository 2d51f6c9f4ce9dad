"""A recorded pass through a model: outputs forward, then gradients back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.nn.kernels import random
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.weights import WeightSet

Pullback: TypeAlias = Callable[[Sequence[Floats | None], Sequence[bool]], list[Floats | None]]
"""Maps the gradients of a call's outputs (None: zero), and whether each input needs one, to the
gradients of its inputs. Gradients of weights are added to the recording."""


class Recorded(NamedTuple):
    """The flat list of a call's outputs, their masks, and the backward pass."""

    outputs: list[Any]
    masks: list[Any]
    pullback: Pullback


class Trained(NamedTuple):
    """The weights that training changes.

    weights: (id of holder, name) of each. sets: ids of the layers and cells that hold one of these
    weights, or contain a layer that does. arrays: all weights, trained or not.
    """

    weights: frozenset[tuple[int, str]]
    sets: frozenset[int]
    arrays: Mapping[tuple[int, str], Floats]

    @classmethod
    def of(cls, model: WeightSet) -> "Trained":
        """Return the weights that training a model changes: those that are trainable now."""
        holders = model.holders()
        weights = {(id(holder), name) for holder, name, trains in holders if trains}
        keys = [(id(holder), name) for holder, name, _ in holders]
        own = {holder for holder, _ in weights}
        sets: set[int] = set()

        def visit(part: WeightSet) -> bool:
            inside = [visit(child) for child in part.children().values()]
            if id(part) in own or any(inside):
                sets.add(id(part))
            return id(part) in sets

        visit(model)
        arrays = dict(zip(keys, model.named_weights().values(), strict=True))
        return cls(frozenset(weights), frozenset(sets), arrays)


@dataclass(eq=False)
class Recording:
    """The shared data of a pass: whether it trains, random numbers, and the gradients so far.

    seed, step: for dropout and noise. kept: objects that passes make only once, such as
    networks with their tapes.
    """

    trained: Trained
    training: bool
    seed: int = 0
    step: int = 0
    kept: dict[Any, Any] = field(default_factory=dict)

    gradients: dict[tuple[int, str], Floats] = field(default_factory=dict, init=False)
    _calls = _arrays = 0

    def trains(self, part: WeightSet) -> bool:
        """Return whether any weight in a layer or cell, or inside it, needs a gradient."""
        return id(part) in self.trained.sets

    def weight(self, holder: WeightSet, name: str) -> Floats | None:
        """Return a weight; None if the layer or cell has no weight of this name."""
        return self.trained.arrays.get((id(holder), name))

    def weights_of(self, holder: WeightSet) -> dict[str, Floats]:
        """Return the weights of a layer or cell itself by name, in the order of `add_weight`."""
        arrays = self.trained.arrays
        return {name: arrays[key, name] for key, name in arrays if key == id(holder)}

    def add(self, holder: WeightSet, name: str, gradient: Floats) -> None:
        """Add to the gradient of a weight, if it needs one: a layer may be called twice."""
        key = id(holder), name
        if key in self.trained.weights:
            before = self.gradients.get(key)
            self.gradients[key] = gradient if before is None else before + gradient

    def number_call(self) -> int:
        """Return the number of a call that uses random numbers, or that keeps a tape."""
        self._calls += 1
        return self._calls - 1

    def factors(
        self, seed: int | None, call: int, which: int, shape: tuple[int, ...], rate: float
    ) -> Floats:
        """Return dropout factors for one call, from the seed of its layer if it has one."""
        key = random.key_of(self.seed if seed is None else seed, call, which, self.step)
        return random.factors(key, shape, rate)

    def generator(self, seed: int | None, call: int) -> np.random.Generator:
        """Return a random generator for one call, from the seed of its layer if it has one."""
        key = random.key_of(self.seed if seed is None else seed, call, 0, self.step)
        return np.random.default_rng(key)

    def array(self, shape: tuple[int, ...]) -> Floats:
        """Return an array to write to, valid until the next pass: new memory costs page faults."""
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
"""Call a layer on arrays, as `layer.forward` does, and record the backward pass."""


def total_of(gradients: Sequence[Floats | None]) -> Floats | None:
    """Return the sum of gradients in their order; None is zero."""
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

    trains: whether `back` also adds gradients of weights, so that it always has to be called.
    """

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None or not (trains or wanted[0]):
            return [None]
        return [np.ascontiguousarray(back(dy))]

    return Recorded([outputs], [layer.compute_mask(inputs, mask)], pullback)


def rule_from(back: Callable[[Any, Floats, Floats, Floats, CallContext], Floats]) -> Rule:
    """Make the rule of a layer without weights: back(layer, x, y, dy, context) is dx."""

    def rule(layer: Any, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
        y = layer.apply(inputs, context)
        gradient: Callable[[Floats], Floats]
        gradient = lambda dy: back(layer, inputs, y, dy, context)  # noqa: E731
        return one_to_one(layer, inputs, y, context.mask, gradient)

    return rule
