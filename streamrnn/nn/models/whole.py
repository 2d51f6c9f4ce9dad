"""A model in a pipeline that carries no state: each row is a complete sequence."""

from collections.abc import Sequence

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import StreamRNNError
from streamrnn.nn.layers.context import CallContext, CallKind
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.models.graph import Graph, flat_shapes
from streamrnn.nn.models.model import Model, require_inference


class SequenceRunner:
    """Run each row of a batch from the initial state, up to its own length.

    outputs: (output layer's name, units), in order. sequences: whether that output has a time axis.
    state_spec, state_classes: empty, as no state is carried.
    fixed: the only number of steps that the model accepts, and a layer that depends on it, or None.
    ragged: whether rows of a batch may have different lengths in one pass.
    Threads may share an instance: a run changes nothing.
    """

    call_kind: CallKind = "whole"

    def __init__(self, model: Model) -> None:
        self.model = model
        require_inference(model)
        symbols = model.graph.outputs
        self.outputs = [(symbol.layer.name, int(symbol.shape[-1] or 0)) for symbol in symbols]
        self.sequences = [len(symbol.shape) > 2 for symbol in symbols]
        self.state_spec: dict[str, int] = {}
        self.state_classes: dict[str, str] = {}
        self.fixed = fixed_steps(model)
        self.ragged = _is_ragged(model)

    def initial_state(self, n: int) -> dict[str, Floats]:
        """Return an empty dictionary: no state is carried."""
        return {}

    def run(self, inputs: Sequence[Array], lengths_B: Ints | None = None) -> list[Floats]:
        """Return outputs: (B, T, U), undefined past a row's length, or (B, U), at the row's end.

        inputs: float32 (B, T, F), int64 or strings (B, T).
        """
        if lengths_B is None or self.ragged:
            return self._run(inputs, lengths_B)
        return self._by_length(inputs, lengths_B)

    def run_once(self, inputs: Sequence[Array], lengths_B: Ints) -> list[Floats]:
        """Run the model; the method that `StepRunner` has as well."""
        return self.run(inputs, lengths_B)

    def _run(self, inputs: Sequence[Array], lengths_B: Ints | None) -> list[Floats]:
        context = CallContext(kind=self.call_kind, lengths=lengths_B)
        with np.errstate(all="ignore"):  # values past a length are undefined, infinities included
            return self.model.graph.run(inputs, [None] * len(inputs), context)[0]

    def _by_length(self, inputs: Sequence[Array], lengths_B: Ints) -> list[Floats]:
        """Run the rows of one length at a time, as some layer changes the time axis."""
        outputs: list[Floats] = []
        for length in np.unique(lengths_B)[::-1]:
            rows = np.flatnonzero(lengths_B == length)
            cut = [np.ascontiguousarray(x[rows, :length]) for x in inputs]
            made = self._run(cut, None)
            if not outputs:  # the longest rows come first, so these arrays hold all others
                outputs = [np.zeros((len(lengths_B), *y.shape[1:]), np.float32) for y in made]
            for output, y in zip(outputs, made, strict=True):
                if output.ndim > 2:
                    output[rows, : y.shape[1]] = y
                else:
                    output[rows] = y
        return outputs if outputs else self._run(inputs, None)


def _is_ragged(layer: Layer) -> bool:
    if isinstance(layer, Model):
        return all(_is_ragged(inner) for inner in layer.graph.layers)
    return layer.ragged


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
