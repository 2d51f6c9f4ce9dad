"""Example inputs of a model, to run it once so that its kernels are compiled."""

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.nn.layers.symbol import Symbol
from streamrnn.nn.models.graph import Graph
from streamrnn.nn.models.model import Model


def example_inputs(model: Model, rows: int, steps: int) -> list[Array]:
    """Return an array for each input of the model: zeros, or a value in its lookup's vocabulary.

    (rows, steps, F) float32, or (rows, steps) int64 or strings.
    """
    graph, inputs = model.graph, []
    for symbol, (_, shape, dtype) in zip(model.graph.inputs, model.input_specs, strict=True):
        if dtype == "float32" and len(shape) > 1:
            inputs.append(np.zeros((rows, steps, shape[-1] or 1), np.float32))
            continue
        kind, value = (object, "") if dtype == "string" else (dtype, 0)
        known = _vocabulary_entry(graph, symbol)
        inputs.append(np.full((rows, steps), value if known is None else known, kind))
    return inputs


def _vocabulary_entry(graph: Graph, symbol: Symbol) -> str | int | None:
    """Return a value from the vocabulary of a layer that reads the symbol, or None."""
    for node in graph.nodes:
        for position, read in enumerate(node.symbols):
            if read is not symbol:
                continue
            if isinstance(node.layer, Model):
                found = _vocabulary_entry(node.layer.graph, node.layer.graph.inputs[position])
            else:
                found = next(iter(getattr(node.layer, "vocabulary", ())), None)
            if found is not None:
                return found
    return None
