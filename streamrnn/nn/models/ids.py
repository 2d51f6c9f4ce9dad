"""The ids that a model accepts."""

from typing import NamedTuple

from streamrnn.nn.layers.category_encoding import CategoryEncoding
from streamrnn.nn.layers.embedding import Embedding
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.symbol import Symbol
from streamrnn.nn.models.graph import Graph
from streamrnn.nn.models.model import Model, position_of


class IdLimit(NamedTuple):
    """Ids from 0 to `size` - 1 are valid; `layer` is the one that reads them."""

    size: int
    layer: str


def id_limits(model: Model) -> dict[str, IdLimit]:
    """Return the smallest limit of the layers that read an input as ids, by name of the input.

    An input that no such layer reads is left out.
    """
    found = {}
    for symbol in model.graph.inputs:
        if limits := _limits(model.graph, symbol):
            found[symbol.layer.name] = min(limits)
    return found


def _limits(graph: Graph, symbol: Symbol) -> list[IdLimit]:
    found: list[IdLimit] = []
    for node in graph.consumers(symbol):
        layer = node.layer
        if isinstance(layer, Model):
            inner = layer.graph.inputs[position_of(symbol, node)]
            found += _limits(layer.graph, inner)
        elif (size := _size(layer)) is not None:
            found.append(IdLimit(size, str(layer)))
    return found


def _size(layer: Layer) -> int | None:
    if isinstance(layer, Embedding):
        return layer.input_dim
    return layer.num_tokens if isinstance(layer, CategoryEncoding) else None
