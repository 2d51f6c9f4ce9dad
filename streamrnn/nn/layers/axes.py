"""The axes that a layer works along, counted from the end, so that they apply to streams, too."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.built_in import Stepwise
from streamrnn.nn.layers.declared import declared
from streamrnn.nn.layers.structure import Shape

Axes = tuple[int, ...]
"""Axes in order; -1 is the last."""

_INTEGERS = "Invalid value for `axis` argument: expected an int or a list/tuple of ints"


def checked_axis(owner: object, axis: Any, words: str = _INTEGERS) -> Any:
    """Return an axis, or a list of axes for several. Raises ArgumentError for anything else."""
    several = isinstance(axis, list | tuple)
    for number in axis if several else [axis]:
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise ArgumentError(f"{owner}: {words}, received {axis!r}")
    return [int(number) for number in axis] if several else int(axis)


def axes_from_end(owner: object, axis: int | Sequence[int], rank: int) -> Axes:
    """Return the axes in order, counted from the end of an input of `rank` axes.

    Raises ArgumentError for an axis that is out of range, named twice, or the batch.
    """
    checked = checked_axis(owner, axis)
    numbers: list[int] = checked if isinstance(checked, list) else [checked]
    for number in numbers:
        if not -rank <= number < rank:
            raise ArgumentError(
                f"{owner}: axis={axis} is out of bounds for an input of {rank} axes (batch first)"
            )
    axes = sorted(number % rank - rank for number in numbers)
    if not axes or len(set(axes)) < len(axes):
        raise ArgumentError(f"{owner}: Duplicate axes, or no axis: received axis={axis}")
    if axes[0] == -rank:
        raise ArgumentError(
            f"{owner}: axis={axis} is the batch, whose rows must not be mixed; choose another axis"
        )
    return tuple(axes)


def sizes_on(owner: object, axes: Axes, shape: Shape) -> tuple[int, ...]:
    """Return the sizes on the axes. Raises ShapeError if one is unknown."""
    sizes = tuple(size for axis in axes if (size := shape[axis]) is not None)
    if len(sizes) < len(axes):
        raise ShapeError(
            f"{owner}: the sizes of the axes that it works on must be known, received shape {shape}"
        )
    return sizes


def as_rows(x: Floats, axes: Axes) -> tuple[Floats, Any]:
    """Return the values along `axes` as rows (N, F), contiguous, and what `from_rows` needs."""
    if axes == (-1,):
        return np.ascontiguousarray(x).reshape(-1, x.shape[-1]), x.shape
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    size = int(np.prod(moved.shape[-len(axes) :]))
    return np.ascontiguousarray(moved).reshape(-1, size), moved.shape


def from_rows(rows: Floats, axes: Axes, shape: Any) -> Floats:
    """Return rows in the shape of the array from which `as_rows` made them."""
    if axes == (-1,):
        return rows.reshape(shape)
    moved = np.moveaxis(rows.reshape(shape), range(-len(axes), 0), axes)
    return np.ascontiguousarray(moved)


@declared
class AlongAxes(Stepwise):
    """The base of layers that combine the values on `axis`, one axis or several."""

    why: ClassVar[str] = "its sum is over the steps of a sequence; use axis=-1"
    """Why the layer cannot run on streams if the steps are on one of the axes."""

    axis: int | Sequence[int] = -1

    def build(self, input_shape: Shape) -> None:
        self.axes = axes_from_end(self, self.axis, len(input_shape))
        # Whether the steps of a sequence are on one of the axes.
        self.on_time = len(input_shape) > 2 and 1 - len(input_shape) in self.axes
        self.ragged = not self.on_time

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return self.why if self.on_time else None
