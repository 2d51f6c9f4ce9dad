"""The table of `model.summary()`, as printed by Keras 2.8 (keras/utils/layer_utils.py)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

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
    """Return the number of parameters of a model in words, or "not built"."""
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
