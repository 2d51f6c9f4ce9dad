"""A model as a table (as Keras 2.8 prints it), as one line, in HTML, and as a Mermaid flowchart.

GitHub, Jupyter and many wikis draw flowcharts: https://mermaid.js.org/syntax/flowchart.html
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from streamrnn.base.display import count, html_table, listed
from streamrnn.errors import ConfigError
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.operation import InputLayer
from streamrnn.nn.layers.precision import packed_names, precision_of
from streamrnn.nn.models.graph import Graph

if TYPE_CHECKING:
    from streamrnn.nn.models.model import Model

Print = Callable[[str], object]

_NARROWEST = 4
"""Minimum width of a column in characters, of which two separate it from the next."""


def print_summary(model: "Model", line_length: int | None, print_fn: Print) -> None:
    """Print one row per layer, with a column of connections if the graph branches."""
    graph = model.graph
    # Each depth has one node, with one input, and no layer is called twice.
    straight = len(set(graph.depths.values())) == len(graph.layers) == len(graph.nodes)
    straight = straight and all(len(node.symbols) <= 1 for node in graph.nodes)
    line_length = line_length or (65 if straight else 98)
    shares = (0.45, 0.85, 1.0) if straight else (0.33, 0.55, 0.67, 1.0)
    ends = [int(line_length * share) for share in shares]
    starts = [0, *ends[:-1]]
    if min(end - start for start, end in zip(starts, ends, strict=True)) < _NARROWEST:
        raise ConfigError(
            f"summary: line_length={line_length} makes a column narrower than {_NARROWEST} "
            f"characters; set it to {_NARROWEST * 8} or more"
        )
    titles = ["Layer (type)", "Output Shape", "Param #", "Connected to"]

    print_fn(f'Model: "{model.name}"')
    print_fn("_" * line_length)
    _print_row(titles[: len(ends)], ends, print_fn)
    print_fn("=" * line_length)
    nodes = {id(node) for node in graph.nodes}
    for layer in model.layers:
        fields = [
            f"{layer.name} ({type(layer).__name__})",
            _shape_text(layer, nodes),
            str(layer.count_params()),
        ]
        if not straight:
            read = [s.label for n in layer.nodes if id(n) in nodes for s in n.symbols]
            fields.append(str(read))
        _print_row(fields, ends, print_fn)
        print_fn(" " * line_length)
    print_fn("=" * line_length)
    total, trainable = model.count_params(), model.trainable_params()
    print_fn(f"Total params: {total:,}")
    print_fn(f"Trainable params: {trainable:,}")
    print_fn(f"Non-trainable params: {total - trainable:,}")
    if packed := packed_names(model):
        print_fn(f"Precision: {precision_of(model)} in {', '.join(packed)}; else float32")
    print_fn("_" * line_length)


def in_one_line(model: "Model", graph: Graph | None) -> str:
    """Return name, layers, parameters and, if the graph is known, input and output shape."""
    layers = listed(f"{n} ({type(layer).__name__})" for n, layer in model.children().items())
    facts = [layers or "no layers", _size_in_words(model)]
    if graph is not None:
        facts.insert(1, f"{model.input_shape} to {model.output_shape}")
    return f"<{type(model).__name__} {model.name!r}: {'; '.join(facts)}>"


def _size_in_words(model: "Model") -> str:
    return count(model.count_params(), "parameter") if model.built else "not built"


def html_summary(model: "Model", graph: Graph | None) -> str:
    """Return a table with a row per layer, whose output shape is "?" without a graph."""
    nodes = {id(node) for node in graph.nodes} if graph is not None else set()
    layers = graph.layers if graph is not None else model.children().values()
    rows = [
        (layer.name, type(layer).__name__, _shape_text(layer, nodes), f"{layer.count_params():,}")
        for layer in layers
    ]
    title = f"{type(model).__name__} {model.name}: {_size_in_words(model)}"
    return html_table(title, rows, ["layer", "type", "output shape", "parameters"])


def _shape_text(layer: Layer, nodes: set[int]) -> str:
    own = [node for node in layer.nodes if id(node) in nodes]
    if not own:
        return "?"
    shapes = [symbol.shape for symbol in own[0].outputs]
    if any([symbol.shape for symbol in node.outputs] != shapes for node in own):
        return "multiple"
    return str(shapes if len(shapes) > 1 or isinstance(layer, InputLayer) else shapes[0])


def _print_row(fields: Sequence[str], ends: Sequence[int], print_fn: Print) -> None:
    """Print one row; text that exceeds its column is continued on the next line.

    Columns are separated by two spaces. Lists and tuples break after their commas.
    """
    left = list(fields)
    while any(left):
        line = ""
        for column, end in enumerate(ends):
            last = column == len(ends) - 1
            width = end - (ends[column - 1] if column else 0) - (0 if last else 2)
            text = left[column][:width]
            breaks = [text.find(mark) + 2 for mark in ("),", "},", "],", "',") if mark in text]
            if breaks:
                width = min(breaks)
                text = text[:width]
            if column == 0:
                line += " "
            line += text + ("" if last else "  ")
            left[column] = left[column][width:]
            line = line.ljust(end)
        print_fn(line)


# ---- flowcharts


_SPECIAL = set('"#&<>`\\%;')
"""Characters with a special meaning in a quoted label, or to the parser that looks for labels."""


class Call(NamedTuple):
    """One call of a layer: its number, from 1; the number of the layer's calls; its output shape.

    `inputs`: the positions, in `calls_of`, of the calls that this call reads, each once; initial
    states and masks count as inputs, too.
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
