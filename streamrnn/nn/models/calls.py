"""The calls of a model's layers, as what a diagram draws: boxes, and arrows between them."""

from typing import NamedTuple

from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.models.graph import Graph


class Call(NamedTuple):
    """One call of a layer: its number and how many there are, output shape, and what it reads.

    `inputs` are positions of other calls, without repeats, initial states and masks included.
    """

    layer: Layer
    number: int
    calls: int
    shape: str
    inputs: list[int]

    @property
    def name(self) -> str:
        """The name of the layer, and which of its calls this is, if there are several."""
        return self.layer.name + (f" (call {self.number})" if self.calls > 1 else "")


def calls_of(graph: Graph) -> list[Call]:
    """Return the calls in topological order."""
    positions = {id(node): index for index, node in enumerate(graph.nodes)}
    given = {id(symbol) for symbol in graph.inputs}
    layers = [id(node.layer) for node in graph.nodes]
    found = []
    for index, node in enumerate(graph.nodes):
        shapes = [symbol.shape for symbol in node.outputs]
        replaced = any(id(symbol) in given for symbol in node.outputs)
        read = [] if replaced else [positions[id(symbol.node)] for symbol in node.symbols]
        found.append(
            Call(
                node.layer,
                layers[: index + 1].count(id(node.layer)),
                layers.count(id(node.layer)),
                str(shapes[0] if len(shapes) == 1 else shapes),
                list(dict.fromkeys(read)),
            )
        )
    return found
