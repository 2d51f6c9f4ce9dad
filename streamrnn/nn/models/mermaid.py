"""The calls of a model's layers, and a flowchart of them in the language of Mermaid.

GitHub, Jupyter and many wikis draw it. Syntax: https://mermaid.js.org/syntax/flowchart.html
"""

from typing import TYPE_CHECKING, NamedTuple

from streamrnn.base.display import count
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.models.graph import Graph

if TYPE_CHECKING:
    from streamrnn.nn.models.model import Model

_SPECIAL = set('"#&<>`\\%;')
"""Characters with a special meaning in a quoted label, or to the parser that looks for labels."""


class Call(NamedTuple):
    """One call of a layer: its number, how many calls there are, its output shape, its inputs.

    `inputs` are the positions of the calls that it reads, each once; initial states and masks count
    as inputs, too.
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
    input_ids = {id(symbol) for symbol in graph.inputs}
    layers = [id(node.layer) for node in graph.nodes]
    calls = []
    for index, node in enumerate(graph.nodes):
        shapes = [symbol.shape for symbol in node.outputs]
        replaced = any(id(symbol) in input_ids for symbol in node.outputs)
        read = [] if replaced else [positions[id(symbol.node)] for symbol in node.symbols]
        calls.append(
            Call(
                node.layer,
                layers[: index + 1].count(id(node.layer)),
                layers.count(id(node.layer)),
                str(shapes[0] if len(shapes) == 1 else shapes),
                list(dict.fromkeys(read)),
            )
        )
    return calls


def model_mermaid(model: "Model") -> str:
    """Return the graph of a built model as a flowchart, as `streamrnn summary --mermaid` shows it.

    Each call of a layer has a box with the layer's name, its class, the output shape and the number
    of parameters. Raises ConfigError if the model has no graph yet.
    """
    return "\n".join(["flowchart TB", *(f"    {line}" for line in graph_lines(model))])


def graph_lines(model: "Model") -> list[str]:
    """Return a box for each call, `layer0` and so on, then the arrows between them."""
    calls = calls_of(model.graph)
    boxes = [
        box(
            f"layer{index}",
            call.name,
            type(call.layer).__name__,
            call.shape,
            count(call.layer.count_params(), "parameter"),
        )
        for index, call in enumerate(calls)
    ]
    arrows = (f"layer{read} --> layer{at}" for at, call in enumerate(calls) for read in call.inputs)
    return [*boxes, *arrows]


def box(name: str, *facts: str) -> str:
    """Return a box with a line of text for each fact."""
    return f'{name}["{box_text(*facts)}"]'


def box_text(*facts: str) -> str:
    """Return a quoted label's text: special characters as entities, line breaks as spaces."""
    shown = ["".join(letter if letter.isprintable() else " " for letter in fact) for fact in facts]
    escapes = {ord(letter): f"#{ord(letter)};" for letter in _SPECIAL}
    return "<br/>".join(text.translate(escapes) for text in shown)
