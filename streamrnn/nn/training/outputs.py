"""Values for the outputs of a model, passed as a list or by name, in the order of the outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError, DataError, ShapeError, UnsupportedError
from streamrnn.nn.models import Model


def output_names(model: Model) -> list[str]:
    """Return the names of outputs as in Keras: of their layers, or the keys of a dictionary.

    Raises UnsupportedError for outputs that cannot be told apart.
    """
    structure = model.output
    if isinstance(structure, dict):
        names = [str(name) for name in structure]
        if len(names) != len(model.graph.outputs):
            raise UnsupportedError(f"{model}: training with nested outputs is not supported")
        return names
    names = [symbol.layer.name for symbol in model.graph.outputs]
    if len(set(names)) < len(names):
        raise UnsupportedError(
            f"{model}: training needs a name for each output, and two are of the same layer: "
            f"{', '.join(names)}; pass them through layers.Identity(name=...)"
        )
    return names


def by_output(
    argument: str, values: Any, names: Sequence[str], *, partly: bool
) -> list[Any] | None:
    """Return the values of a list or a dictionary by output; None for anything else.

    partly: a dictionary may leave outputs out, which then have None. Raises ArgumentError.
    """
    if isinstance(values, Mapping):
        unknown = [name for name in values if name not in names]
        missing = [name for name in names if name not in values]
        if unknown or (missing and not partly):
            near = closest(str(unknown[0]), names) if unknown else None
            raise ArgumentError(
                f"{argument}: expected the outputs {', '.join(names)}, received "
                f"{', '.join(map(str, values))}"
                + (f"; did you mean {near!r}?" if near else "")
                + ("; None stands for an output without one" if missing and not partly else "")
            )
        return [values.get(name) for name in names]
    if isinstance(values, list | tuple) and len(values) == len(names):
        return list(values)
    return None


def truths_of(model: Model, y: Any, names: Sequence[str], needed: Sequence[bool]) -> list[Any]:
    """Return y for each output as arrays; None where it is missing and not needed.

    A list may leave out the outputs without a loss. Raises ArgumentError.
    """
    if y is None:
        raise ArgumentError(f"{model}: expected y, the truth")
    if len(names) == 1:
        truths = by_output("y", y, names, partly=False) if isinstance(y, Mapping) else [y]
    else:
        truths = by_output("y", y, names, partly=True)
        if truths is None and isinstance(y, list | tuple) and len(y) == sum(needed):
            rest = iter(y)
            truths = [next(rest) if need else None for need in needed]
    if truths is None:
        received = f"{len(y)} arrays" if isinstance(y, list | tuple) else type(y).__name__
        raise ArgumentError(
            f"{model}: expected y as a list or dictionary of {len(names)} arrays, one for each of "
            f"{', '.join(names)}; received {received}"
        )
    for name, truth, need in zip(names, truths, needed, strict=True):
        if getattr(truth, "null_count", 0):
            raise DataError(
                f"{model}: y of the output {name!r} has {truth.null_count} nulls; fill them, or "
                "leave out their rows"
            )
        if need and truth is None:
            raise ArgumentError(f"{model}: expected y for the output {name!r}, which has a loss")
    return [None if truth is None else np.asarray(truth) for truth in truths]


def weights_of_samples(model: Model, sample_weight: Any, names: Sequence[str]) -> list[Any]:
    """Return sample weights for each output: its own, or the same array for all."""
    weights: list[Any] | None = [sample_weight] * len(names)
    if isinstance(sample_weight, Mapping) or (len(names) > 1 and _are_arrays(sample_weight)):
        weights = by_output("sample_weight", sample_weight, names, partly=True)
    if weights is None:
        raise ShapeError(
            f"{model}: expected sample_weight as an array for all outputs, or one for each of "
            f"{', '.join(names)}"
        )
    return [None if weight is None else np.asarray(weight, np.float32) for weight in weights]


def _are_arrays(value: Any) -> bool:
    """Return whether this is a list of arrays, rather than one array as a list of numbers."""
    return isinstance(value, list | tuple) and any(i is None or np.ndim(i) for i in value)
