"""Which stored array became which weight: each is used exactly once, or the load fails."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamrnn.errors import ModelFileError
from streamrnn.layers.layer import Layer
from streamrnn.models import Model


@dataclass(frozen=True)
class Assignment:
    """One stored array (or several that became one), and the weight it is now."""

    source: str
    target: str
    array: Any


@dataclass
class Loaded:
    """A model read from a file: where each weight came from, and the stored arrays not used."""

    model: Model
    placed: list[Assignment]
    left: list[str] = field(default_factory=list)

    def table(self) -> list[str]:
        """Lines that say layer, source, shape and target of every weight."""
        rows = [("layer", "source", "shape", "target")]
        for each in self.placed:
            layer, _, weight = each.target.partition("/")
            rows.append((layer, each.source, str(tuple(np.shape(each.array))), weight))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return [line.rstrip() for line in lines] + [f"not used: {name}" for name in self.left]


def assign_weights(
    model: Layer, placed: Iterable[Assignment], left: Iterable[str] = ()
) -> list[Assignment]:
    """Set the weights of `model` from what was found for them, by their names.

    left: stored arrays that nothing took. Raises ModelFileError that lists all that is missing, all
    that is left and all shapes that do not fit; nothing is set then.
    """
    found: dict[str, Assignment] = {}
    problems = []
    for each in placed:
        if each.target in found:
            problems.append(f"{each.target} is stored twice, as {found[each.target].source} and "
                            f"{each.source}")  # fmt: skip
        found[each.target] = each
    wanted = model.named_weights()
    if missing := [f"{name} {w.shape}" for name, w in wanted.items() if name not in found]:
        problems.append(f"weights that the file does not hold: {', '.join(missing)}")
    extra = [each.source for name, each in found.items() if name not in wanted]
    if unused := [*extra, *left]:
        problems.append(f"arrays that no layer takes: {', '.join(unused)}")
    for name, each in found.items():
        if name in wanted and np.shape(each.array) != wanted[name].shape:
            problems.append(
                f"{each.source} has shape {np.shape(each.array)}, but {name} needs "
                f"{wanted[name].shape}"
            )
        if np.asarray(each.array).dtype.kind not in "fiu":
            problems.append(f"{each.source} holds no numbers ({np.asarray(each.array).dtype})")
    if problems:
        raise ModelFileError("the weights do not fit the layers\n  " + "\n  ".join(problems))
    arrays = {name: found[name].array for name in wanted}
    require_finite({found[name].source: array for name, array in arrays.items()})
    model.set_weights([arrays[name] for name in wanted])
    return [found[name] for name in wanted]


def require_finite(arrays: Mapping[str, Any]) -> None:
    """Raise ModelFileError, naming the array, where a float32 of it is NaN or infinite."""
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            if not np.isfinite(np.asarray(array, dtype=np.float32)).all():
                raise ModelFileError(f"{name} holds NaN or infinity (as float32)")
