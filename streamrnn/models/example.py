"""Arrays that a model takes: to run it once, for what that compiles."""

import numpy as np

from streamrnn.arrays import Array
from streamrnn.layers.symbol import Symbol
from streamrnn.models.graph import Graph
from streamrnn.models.model import Model


def example_inputs(model: Model, rows: int, steps: int) -> list[Array]:
    """An array for each input of the model: zeros, or a value that its lookup knows.

    (rows, steps, F) float32, or (rows, steps) int64 or strings.
    """
    graph, inputs = model.graph, []
    for symbol, (_, shape, dtype) in zip(model.graph.inputs, model.input_specs, strict=True):
        if dtype == "float32" and len(shape) > 1:
            inputs.append(np.zeros((rows, steps, shape[-1] or 1), np.float32))
            continue
        kind, value = (object, "") if dtype == "string" else (dtype, 0)
        known = _known(graph, symbol)
        inputs.append(np.full((rows, steps), value if known is None else known, kind))
    return inputs


def _known(graph: Graph, symbol: Symbol) -> str | int | None:
    """A value in the vocabulary of a layer that reads the symbol; None where there is none."""
    for node in graph.nodes:
        for place, each in enumerate(node.symbols):
            if each is not symbol:
                continue
            if isinstance(node.layer, Model):
                found = _known(node.layer.graph, node.layer.graph.inputs[place])
            else:
                found = next(iter(getattr(node.layer, "vocabulary", ())), None)
            if found is not None:
                return found
    return None
