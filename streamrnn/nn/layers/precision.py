"""The precision of a model's layers: weights as float32, or as integers (`kernels.integers`).

LSTM, GRU and SimpleRNN of any size use integers. Dense and Conv1D use integers where these are
faster (`Packable.pays`): with few inputs or few units, as in most last layers, their weights stay
float32, like the weights of all other layers. Weights that a file stores as integers stay integers
in a layer of any size.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.kernels.integers import (
    FLOAT32,
    LEAST_INPUTS,
    LEAST_UNITS,
    PRECISIONS,
    Integers,
    rounded,
)
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.layer import Layer


class Packable(BuiltIn):
    """A layer or cell that packs its weights on first use, as float32 or as integers."""

    inputs_last: ClassVar[bool] = False
    """Whether the inputs are the last axis of these weights."""
    integers: Mapping[str, Integers] = MappingProxyType({})
    """The weights that are stored as integers: all that can be, or none."""
    _packed: Any = None

    def packable(self) -> dict[str, bool]:
        """Return name -> whether the inputs have factors, for the weights that can be integers."""
        raise NotImplementedError

    def pays(self) -> bool:
        """Return whether integers are faster.

        Only the sizes decide this, never the machine, so the bits are the same everywhere.
        """
        return True

    def packed_parts(self) -> list[str]:
        """Return the names of the parts of this layer that are packed, if it has parts."""
        return []

    def weights_changed(self) -> None:
        """Round only weights that have changed: rounding twice would change the others, too."""
        self.unpack()
        if self.integers:
            self.set_integers(
                {
                    name: integers
                    if np.array_equal(integers.floats(), self._weights[name])
                    else self._rounded(name, integers.precision)
                    for name, integers in self.integers.items()
                }
            )

    def unpack(self) -> None:
        """Forget the packed weights."""
        self._packed = None

    def round_weights(self, precision: str) -> None:
        """Round the weights to integers."""
        self.set_integers({name: self._rounded(name, precision) for name in self.packable()})

    def _rounded(self, name: str, precision: str) -> Integers:
        factors = self.packable()[name]
        return rounded(
            self._weights[name], precision, factors=factors, inputs_last=self.inputs_last
        )

    def takes(self, integers: Mapping[str, Integers]) -> bool:
        """Return whether the kernel can read these integers.

        They must have one precision, and only factors that the kernel expects.
        """
        factors = self.packable()
        one_precision = len({each.precision for each in integers.values()}) == 1
        return one_precision and all(
            each.inputs_last == self.inputs_last and (factors[name] or not each.exponents.any())
            for name, each in integers.items()
        )

    def set_integers(self, integers: Mapping[str, Integers]) -> None:
        """Compute with these integers; set the weights to the floats that they stand for."""
        for name, values in integers.items():
            self._weights[name].write(values.floats())
        self.integers = integers
        self.unpack()


def packable_layers(layer: Layer, path: str = "") -> Iterator[tuple[str, Packable]]:
    """Yield the layers and cells that can compute in integers, with the paths of their weights."""
    if isinstance(layer, Packable) and layer.packable():
        yield path, layer
    for name, child in layer.children().items():
        yield from packable_layers(child, _joined(path, name))


def packed_weights(layer: Layer) -> dict[str, Integers]:
    """Return the weights that are integers, by the names of `named_weights`."""
    return {
        _joined(path, name): integers
        for path, packable in packable_layers(layer)
        for name, integers in packable.integers.items()
    }


def packed_names(model: Layer) -> list[str]:
    """Return the names of a model's layers, or nodes of its graph, that have integer weights."""
    names: dict[str, None] = {}
    for path, layer in packable_layers(model):
        if layer.integers:
            names |= dict.fromkeys(layer.packed_parts() or [path.partition("/")[0]])
    return list(names)


def precision_of(layer: Layer) -> str:
    """Return the precision of a layer or model: of its packed weights, else float32."""
    precisions = [integers.precision for integers in packed_weights(layer).values()]
    return precisions[0] if precisions else FLOAT32


def set_precision(model: Layer, precision: str) -> None:
    """Round the weights of all layers where this pays, in place; other layers keep float32.

    `precision`: one of PRECISIONS, or "auto", which changes nothing. Raises ConfigError for another
    value, or if weights are integers of another precision; UnsupportedError if it pays nowhere.
    """
    before = precision_of(model)
    if precision not in (*PRECISIONS, "auto"):
        raise ConfigError(
            f"precision must be auto or one of {', '.join(PRECISIONS)}, received {precision!r}"
        )
    if precision in ("auto", before):
        return
    if before != FLOAT32:
        raise ConfigError(
            f"the weights of {model} are stored as {before}, and cannot become {precision}. "
            f'Use the float32 file that this one was converted from, or precision = "{before}"'
        )
    layers = dict.fromkeys(layer for _, layer in packable_layers(model) if layer.pays())
    if not layers:
        raise UnsupportedError(
            f"{model} has no layer that computes in {precision}. Such layers are LSTM, GRU and "
            "SimpleRNN (also as nodes of an ONNX graph, but not with peepholes or a softmax), and "
            f"Dense and Conv1D with {LEAST_INPUTS} inputs (times taps) and {LEAST_UNITS} units or "
            "more. Leave precision out"
        )
    for layer in layers:
        layer.round_weights(precision)


def assign_integers(model: Layer, weights: Mapping[str, Integers]) -> None:
    """Assign these weights, by the names of `named_weights`, to their layers.

    Raises ModelFileError for weights in two precisions, for weights that no layer takes, and if a
    layer gets only some of the weights that it needs.
    """
    left = dict(weights)
    if len(precisions := {each.precision for each in weights.values()}) > 1:
        raise ModelFileError(
            f"weights in {' and '.join(sorted(precisions))}: expected one precision for all"
        )
    for path, layer in packable_layers(model):
        own = [(name, _joined(path, name)) for name in layer.packable()]
        of_layer = {name: left[full] for name, full in own if full in left}
        if len(of_layer) == len(own) and layer.takes(of_layer):
            layer.set_integers(of_layer)
            for _, full in own:
                del left[full]
    if left:
        raise ModelFileError(
            "expected integer weights in the layout of a layer, for all of its kernels or none; "
            f"no layer can use {', '.join(left)}"
        )


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}".lstrip("/")
