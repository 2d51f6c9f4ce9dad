"""The assignment of stored arrays to weights: each is used exactly once, or the load fails."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.models import Model


@dataclass(frozen=True)
class Assignment:
    """One stored array (or several, joined), and the weight that it is assigned to."""

    source: str
    target: str
    array: Array


@dataclass
class Loaded:
    """A model read from a file, the source of each weight, and the unused stored arrays."""

    model: Model
    assignments: list[Assignment]
    left: list[str] = field(default_factory=list)

    def table(self) -> list[str]:
        """Return lines with layer, source, shape and target of every weight."""
        rows = [("layer", "source", "shape", "target")]
        for assignment in self.assignments:
            layer, _, weight = assignment.target.partition("/")
            rows.append((layer, assignment.source, str(np.shape(assignment.array)), weight))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return [line.rstrip() for line in lines] + [f"not used: {name}" for name in self.left]


class ModelFormat(NamedTuple):
    """How files of one format are read.

    `read(path, …)` has parameters for the options of `load_model` that the format takes.
    `load_weights(model, path)` sets the weights of a model; or it is a sentence that says why the
    format does not do this.
    """

    read: Callable[..., Loaded]
    load_weights: Callable[[Model, Path], object] | str


def assign_weights(
    model: Layer, assignments: Iterable[Assignment], left: Iterable[str] = ()
) -> list[Assignment]:
    """Set the weights of `model` from the arrays assigned to their names.

    left: unused stored arrays. Raises ModelFileError that lists all missing weights, all unused
    arrays and all shapes that do not fit; then no weight is set.
    """
    by_target: dict[str, Assignment] = {}
    problems = []
    for assignment in assignments:
        target, source = assignment.target, assignment.source
        if target in by_target:
            problems.append(f"{target} is stored twice, as {by_target[target].source} and {source}")
        by_target[target] = assignment
    weights = model.named_weights()
    if missing := [f"{name} {w.shape}" for name, w in weights.items() if name not in by_target]:
        problems.append(f"weights missing from the file: {', '.join(missing)}")
    extra = [assignment.source for name, assignment in by_target.items() if name not in weights]
    if unused := [*extra, *left]:
        problems.append(f"arrays that no layer uses: {', '.join(unused)}")
    for name, assignment in by_target.items():
        source, array = assignment.source, np.asarray(assignment.array)
        if name in weights and array.shape != weights[name].shape:
            problems.append(
                f"{source} has shape {array.shape}, but {name} needs {weights[name].shape}"
            )
        if array.dtype.kind not in "fiu":
            problems.append(f"{source} is not numeric ({array.dtype})")
    if problems:
        raise ModelFileError("the weights do not fit the layers\n  " + "\n  ".join(problems))
    assigned = [by_target[name] for name in weights]
    require_finite({assignment.source: assignment.array for assignment in assigned})
    model.set_weights([assignment.array for assignment in assigned])
    return assigned


def require_finite(arrays: Mapping[str, Array]) -> None:
    """Raise ModelFileError, naming the array, if a value is NaN or infinite as float32."""
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            if not np.isfinite(np.asarray(array, dtype=np.float32)).all():
                raise ModelFileError(f"{name} contains NaN or infinity (as float32)")
