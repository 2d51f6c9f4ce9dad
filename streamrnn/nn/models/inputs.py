"""What a model expects of its inputs: the ids it accepts, scaling, and an example."""

from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.nn.layers.category_encoding import CategoryEncoding
from streamrnn.nn.layers.embedding import Embedding
from streamrnn.nn.layers.scaling import Normalization
from streamrnn.nn.layers.symbol import Symbol
from streamrnn.nn.models.graph import Graph
from streamrnn.nn.models.model import Model, position_of


class IdLimit(NamedTuple):
    """Ids from 0 to `size` - 1 are valid; `layer` is the one that reads them."""

    size: int
    layer: str


def id_limits(model: Model) -> dict[str, IdLimit]:
    """Return, by input, the smallest limit of the layers that read the input as ids.

    An input that no such layer reads is left out.
    """
    by_input = {}
    for symbol in model.graph.inputs:
        if limits := _limits(model.graph, symbol):
            by_input[symbol.layer.name] = min(limits)
    return by_input


def _limits(graph: Graph, symbol: Symbol) -> list[IdLimit]:
    limits: list[IdLimit] = []
    for node in graph.consumers(symbol):
        layer = node.layer
        if isinstance(layer, Model):
            inner = layer.graph.inputs[position_of(symbol, node)]
            limits += _limits(layer.graph, inner)
        elif isinstance(layer, Embedding):
            limits.append(IdLimit(layer.input_dim, str(layer)))
        elif isinstance(layer, CategoryEncoding) and layer.num_tokens is not None:
            limits.append(IdLimit(layer.num_tokens, str(layer)))
    return limits


def input_scaling(model: Model) -> dict[str, tuple[Floats, Floats]]:
    """Return, by input, mean and deviation, (F,) or (1,), of the `Normalization` that reads it.

    An input that no such layer reads is left out.
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
    graph, inputs = model.graph, []
    for symbol, (_, shape, dtype) in zip(model.graph.inputs, model.input_specs, strict=True):
        if dtype == "float32" and len(shape) > 1:
            inputs.append(np.zeros((rows, steps, shape[-1] or 1), np.float32))
            continue
        kind, value = (object, "") if dtype == "string" else (dtype, 0)
        entry = _vocabulary_entry(graph, symbol)
        inputs.append(np.full((rows, steps), value if entry is None else entry, kind))
    return inputs


def _vocabulary_entry(graph: Graph, symbol: Symbol) -> str | int | None:
    """Return a value from the vocabulary of a layer that reads the symbol, or None."""
    for node in graph.nodes:
        for position, read in enumerate(node.symbols):
            if read is not symbol:
                continue
            if isinstance(node.layer, Model):
                entry = _vocabulary_entry(node.layer.graph, node.layer.graph.inputs[position])
            else:
                entry = next(iter(getattr(node.layer, "vocabulary", ())), None)
            if entry is not None:
                return entry
    return None
