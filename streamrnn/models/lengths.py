"""The number of steps that a model accepts."""

from collections.abc import Sequence

from streamrnn.errors import StreamRNNError
from streamrnn.layers.structure import Shape
from streamrnn.models.graph import Graph, flat_shapes
from streamrnn.models.model import Model


def fixed_steps(model: Model) -> tuple[int, str] | None:
    """Return the only number of steps that the model accepts, and a layer that depends on it.

    None if there is no such number: a declared one does not matter to most layers.
    """
    declared = [symbol.shape[1] for symbol in model.graph.inputs if len(symbol.shape) > 1]
    for steps in filter(None, declared):
        shapes = [(s.shape[0], steps + 1, *s.shape[2:]) for s in model.graph.inputs]
        if layer := _first_changed(model.graph, shapes):
            return steps, layer
    return None


def _first_changed(graph: Graph, shapes: Sequence[Shape]) -> str | None:
    """Return the first layer that makes other vectors, not only more, of inputs of these shapes."""
    try:
        known = graph.shapes(shapes)
    except (StreamRNNError, ValueError, TypeError, IndexError) as error:
        return f"a layer ({error})"
    for step in graph.steps:
        node = step.node
        if isinstance(node.layer, Model):
            inner = flat_shapes(step.inputs(known))
            if layer := _first_changed(node.layer.graph, inner):
                return layer
        for slot, symbol in zip(step.outputs, node.outputs, strict=True):
            if _differ(_vector(known[slot]), _vector(symbol.shape)):
                return str(node.layer)
    return None


def _vector(shape: Shape) -> Shape:
    """Return the axes beside batch and time."""
    return shape[2:] if len(shape) > 2 else shape[1:]


def _differ(a: Shape, b: Shape) -> bool:
    """Return whether shapes differ in an axis that both know."""
    if len(a) != len(b):
        return True
    return any(None not in pair and pair[0] != pair[1] for pair in zip(a, b, strict=True))
