"""Steps of inputs and outputs: how many a model accepts, and which outputs have their own."""

from collections.abc import Sequence
from itertools import repeat

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ShapeError, StreamRNNError
from streamrnn.nn.layers.structure import Shape
from streamrnn.nn.layers.symbol import Symbol
from streamrnn.nn.models.graph import Graph, flat_shapes
from streamrnn.nn.models.model import Model

MISFITS = (StreamRNNError, ValueError, TypeError, IndexError)
"""What layers, custom ones included, raise for shapes that they do not accept."""

MANY = 1000
"""A number of steps that a model accepts, unless one of its layers depends on the number."""


def has_no_features(shape: Shape, dtype: str) -> bool:
    """Return whether an input has one value per step, (B, T); `shape` is without the batch.

    A float32 input of shape (1,) is a vector of one feature.
    """
    return len(shape) == 1 and not (dtype == "float32" and shape[0] == 1)


InputRows = Sequence[int | None]
"""For each input of a model, how many of the last rows it reads; None for all, () if all do."""


def fixed_steps(model: Model, last: InputRows = ()) -> tuple[int, str] | None:
    """Return the only number of steps that the model accepts, and a layer that depends on it.

    None if the model accepts any number: most layers do not depend on the declared one.
    """
    pairs = zip(_are_vectors(model), last or repeat(None), strict=False)
    of_all = [symbol for (symbol, vector), rows in pairs if not (vector or rows)]
    for steps in filter(None, [symbol.shape[1] for symbol in of_all]):
        if layer := _first_changed(model.graph, with_steps(model, steps + 1, last)):
            return steps, layer
    return None


def with_steps(model: Model, steps: int, last: InputRows = ()) -> list[Shape]:
    """Return the shapes of what a pipeline passes as inputs, with this number of steps."""
    return [
        (s.shape[0], min(steps, rows or steps), *s.shape[1 if vector else 2 :])
        for (s, vector), rows in zip(_are_vectors(model), last or repeat(None), strict=False)
    ]


def _are_vectors(model: Model) -> list[tuple[Symbol, bool]]:
    """Return the inputs, and whether each has no time axis."""
    specs = zip(model.graph.inputs, model.input_specs, strict=True)
    return [
        (symbol, len(shape) < 2 and not has_no_features(shape, of))
        for symbol, (_, shape, of) in specs
    ]


def _first_changed(graph: Graph, shapes: Sequence[Shape]) -> str | None:
    """Describe a layer that refuses inputs of these shapes, or returns vectors of another size.

    None if there is no such layer. Sizes are compared on all axes besides batch and time.
    """
    try:
        by_slot = graph.shapes(shapes)
    except MISFITS as error:
        return f"a layer ({error})"
    for step in graph.steps:
        node, inputs = step.node, step.inputs(by_slot)
        try:
            node.layer.check_input(inputs)
        except ShapeError:
            return str(node.layer)
        if isinstance(node.layer, Model):
            inner = flat_shapes(inputs)
            if layer := _first_changed(node.layer.graph, inner):
                return layer
        for slot, symbol in zip(step.outputs, node.outputs, strict=True):
            if _differ(by_slot[slot], symbol.shape):
                return str(node.layer)
    return None


def _differ(a: Shape, b: Shape) -> bool:
    """Return whether shapes differ on an axis that is known in both, besides batch and time."""
    a, b = (shape[2:] if len(shape) > 2 else shape[1:] for shape in (a, b))
    return len(a) != len(b) or any(
        None not in pair and pair[0] != pair[1] for pair in zip(a, b, strict=True)
    )


def own_steps(model: Model, steps: int | None, last: InputRows = ()) -> list[int | None]:
    """Return the number of steps of each output that has its own, such as a decoder's; else None.

    Such a number does not depend on the number of input steps, and differs from it: from the one
    that the inputs declare, or from the `steps` of the windows that a pipeline passes.
    """
    constant, usual = _constant_steps(model, steps, last)
    return [None if usual == {number} else number for number in constant]


def _constant_steps(
    model: Model, steps: int | None, last: InputRows = ()
) -> tuple[list[int | None], set[int]]:
    """Return each output's number of steps if inputs do not change it, and their usual numbers."""
    pairs = zip(model.input_steps.values(), last or repeat(None), strict=False)
    declared = {of_all for of_all, of_last in pairs if of_all and not of_last}
    rows = steps or min(declared, default=MANY)
    once, twice = (_output_steps(model, n, last) for n in (rows, 2 * rows))
    constant = [a if b in (a, None) else None for a, b in zip(once, twice, strict=True)]
    return constant, {number for number in (steps, *declared) if number}


def _output_steps(model: Model, steps: int, last: InputRows) -> list[int | None]:
    """Return the number of steps of each output for inputs of so many; None where unknown."""
    try:
        shapes = model.graph.infer(with_steps(model, steps, last))
    except MISFITS:
        return [None] * len(model.graph.outputs)
    return [shape[1] if len(shape) > 2 else None for shape in shapes]


def column_names(layer: str, values: int, steps: int | None) -> list[str]:
    """Return the names of an output's values; `steps`: its own, of which each has a value."""
    units = values // (steps or 1)
    names = [layer] if units == 1 else [f"{layer}_{i}" for i in range(units)]
    if steps and steps > 1:
        names = [f"{name}_{i + 1}" for name in names for i in range(steps)]
    return names


def notes_on_steps(model: Model, own: Sequence[int | None]) -> list[str]:
    """Return a note on each output with steps of its `own`, or with as many as it reads rows."""
    notes = notes_on_row_steps(model, own)
    for symbol, steps in zip(model.graph.outputs, own, strict=True):
        if steps is not None and steps > 1:
            names = column_names(symbol.layer.name, steps * int(symbol.shape[-1] or 1), steps)
            notes.append(
                f"output {symbol.layer.name!r} has {steps} steps of its own: a pipeline writes a "
                f"column for each, {names[0]} to {names[-1]}, to the last row that is read for it; "
                "[target] horizon lists as many"
            )
    return notes


def notes_on_row_steps(model: Model, own: Sequence[int | None]) -> list[str]:
    """Return a note on each output that takes its constant number of steps for rows."""
    constant, _ = _constant_steps(model, None)
    return [
        f"output {symbol.layer.name!r} has {number} steps, as many as the rows that it reads: each "
        "counts as its row's, and windows write the last one; if they are forecasts, end the model "
        "with Flatten(), which gives a column for each"
        for symbol, steps, number in zip(model.graph.outputs, own, constant, strict=True)
        if steps is None and number is not None and number > 1
    ]


def flat_steps(values: Floats) -> Floats:
    """Return (…, steps, U) as (…, U x steps): all steps of the first unit, then of the next."""
    turned = np.ascontiguousarray(values.swapaxes(-1, -2))
    return turned.reshape(*values.shape[:-2], -1)


def in_steps(values: Floats, steps: int) -> Floats:
    """Return what `flat_steps` was called on."""
    parts = values.reshape(*values.shape[:-1], -1, steps)
    return np.ascontiguousarray(parts.swapaxes(-1, -2))
