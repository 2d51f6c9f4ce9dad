"""The precision of a model's layers: weights as float32, or as integers (`kernels.integers`).

LSTM, GRU and SimpleRNN use integers at any size. Dense and Conv1D use them where they are faster
(`Packable.pays`): with few inputs or few units, as in most last layers, they stay float32, as do
all other layers. Weights that a file stores as integers are integers at any size.
"""

from collections.abc import Iterator, Mapping

from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.kernels.integers import (
    FLOAT32,
    LEAST_INPUTS,
    LEAST_UNITS,
    PRECISIONS,
    Integers,
)
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.packable import Packable


def packable_layers(layer: Layer, path: str = "") -> Iterator[tuple[str, Packable]]:
    """Yield the layers and cells that may be packed, each with the path of its weights."""
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
    """Round the weights of all layers where it pays, in place; the others keep float32.

    `precision`: one of PRECISIONS, or "auto", which changes nothing. Raises ConfigError for another
    value, or if weights are integers already, UnsupportedError if there is no such layer.
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
            f"{model} has no layer that computes in {precision}: LSTM, GRU and SimpleRNN do, also "
            "as nodes of an ONNX graph, but not with peepholes, or softmax as an activation; and "
            f"Dense and Conv1D of {LEAST_INPUTS} inputs (times taps) and {LEAST_UNITS} units or "
            "more. Leave precision out"
        )
    for layer in layers:
        layer.round_weights(precision)


def assign_integers(model: Layer, weights: Mapping[str, Integers]) -> None:
    """Assign these weights, by the names of `named_weights`, to their layers.

    Raises ModelFileError if a layer does not take them, or gets only some of its own.
    """
    left = dict(weights)
    if len(precisions := {each.precision for each in weights.values()}) > 1:
        raise ModelFileError(
            f"weights in {' and '.join(sorted(precisions))}: expected one precision"
        )
    for path, layer in packable_layers(model):
        own = [(name, _joined(path, name)) for name in layer.packable()]
        of_layer = {name: left[full] for name, full in own if full in left}
        if len(of_layer) == len(own) and layer.takes(of_layer):
            layer.set_integers(of_layer)
            for _, full in own:
                del left[full]
    if left:
        raise ModelFileError(f"stored as integers that no layer reads: {', '.join(left)}")


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}".lstrip("/")
