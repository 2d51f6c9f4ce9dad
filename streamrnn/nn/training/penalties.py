"""Regularizers of layers in training: the weights that they apply to, and what they add."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from streamrnn.base.arrays import Floats
from streamrnn.errors import StreamRNNError, UnsupportedError
from streamrnn.nn.layers import DepthwiseConv1D, Layer, regularizers
from streamrnn.nn.layers.regularizers import Regularizer
from streamrnn.nn.layers.weights import WeightSet
from streamrnn.nn.training.recording import Recording

_WEIGHTS = {"recurrent": "recurrent_kernel"}
"""The weight that recurrent_regularizer is for; other arguments are named after their weights."""
_LEFT_OUT = {"bias": "use_bias", "gamma": "scale", "beta": "center"}
"""Weights that a layer may lack, and the argument that says so."""


class Penalized(NamedTuple):
    """A weight and its regularizer; `holder` and `key` say where its gradient belongs."""

    holder: WeightSet
    key: str
    weight: Floats
    regularizer: Regularizer


class Penalty(tuple[Penalized, ...]):
    """All weights of a model that are trained and regularized, in the order of the weights."""

    __slots__ = ()

    @classmethod
    def of(cls, layer: Layer, weights: Mapping[str, tuple[WeightSet, str, Floats]]) -> "Penalty":
        """Return the penalty of the trained `weights` (of a `Plan`) that have a regularizer."""
        regularized = dict(_regularized(layer))
        return cls(
            Penalized(holder, key, weight, regularized[id(holder), key])
            for holder, key, weight in weights.values()
            if (id(holder), key) in regularized
        )

    def value(self) -> float:
        """Return the penalty added to the loss, summed in float64, weight after weight."""
        total = 0.0
        for part in self:
            total += part.regularizer(part.weight)
        return total

    def add_slopes(self, recording: Recording) -> None:
        """Add the derivatives to the gradients of a pass."""
        for holder, key, weight, regularizer in self:
            recording.add(holder, key, regularizer.slope(weight))


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
