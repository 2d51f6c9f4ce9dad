"""What a model expects of its inputs: the ids it accepts, scaling, and an example."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.nn.layers.embedding import CategoryEncoding, Embedding
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.scaling import Normalization
from streamrnn.nn.layers.symbol import Symbol
from streamrnn.nn.models.graph import Graph, positions_of
from streamrnn.nn.models.model import Model


class IdLimit(NamedTuple):
    """Ids from 0 to `size` - 1 are valid; `layer` is the layer that reads them."""

    size: int
    layer: str


def id_limits(model: Model) -> dict[str, IdLimit]:
    """Return the smallest limit of the layers that read an input as ids, by the input's name.

    An input that no layer reads as ids is left out.
    """
    by_input = {}
    for symbol in model.graph.inputs:
        limits = []
        for layer in _readers(model.graph, symbol):
            if isinstance(layer, Embedding):
                limits.append(IdLimit(layer.input_dim, str(layer)))
            elif isinstance(layer, CategoryEncoding) and layer.num_tokens is not None:
                limits.append(IdLimit(layer.num_tokens, str(layer)))
        if limits:
            by_input[symbol.layer.name] = min(limits)
    return by_input


def _readers(graph: Graph, symbol: Symbol) -> Iterator[Layer]:
    """Yield the layers that read a symbol, those inside models included."""
    for node in graph.consumers(symbol):
        if isinstance(node.layer, Model):
            inner = node.layer.graph
            for position in positions_of(symbol, node):
                yield from _readers(inner, inner.inputs[position])
        else:
            yield node.layer


def input_scaling(model: Model) -> dict[str, tuple[Floats, Floats]]:
    """Return mean and deviation, (F,) or (1,), of the `Normalization` that reads each input.

    An input that no `Normalization` reads is left out.
    """
    by_input = {}
    for symbol in model.graph.inputs:
        for node in model.graph.consumers(symbol):
            layer = node.layer
            if isinstance(layer, Normalization) and not layer.invert:
                mean, variance = layer.mean, layer.variance
                if mean is None or variance is None:
                    mean, variance = layer.get_weights()[:2]
                by_input[symbol.layer.name] = np.ravel(mean), np.sqrt(np.ravel(variance))
    return by_input


def example_inputs(model: Model, rows: int, steps: int) -> list[Array]:
    """Return an array for each input of the model: zeros, or a value in its lookup's vocabulary.

    Each is (rows, steps, F) in float32, or (rows, steps) in int64 or strings.
    """
    inputs = []
    for symbol, (_, shape, dtype) in zip(model.graph.inputs, model.input_specs, strict=True):
        if dtype == "float32" and len(shape) > 1:
            inputs.append(np.zeros((rows, steps, shape[-1] or 1), np.float32))
            continue
        kind, value = (object, "") if dtype == "string" else (dtype, 0)
        readers = _readers(model.graph, symbol)
        entries = (entry for layer in readers for entry in getattr(layer, "vocabulary", ()))
        inputs.append(np.full((rows, steps), next(entries, value), kind))
    return inputs
