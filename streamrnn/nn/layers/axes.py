"""The axes that a layer works along, and windows along time, for convolutions and pools.

Axes are counted from the end, so that they mean the same when a stream adds a time axis. The
formulas of windows are Keras 3's (and TensorFlow's): "valid" pads nothing; "same" pads both sides
(if it adds an odd number of steps, one more at the end), so that there are ceil(steps / strides)
windows; "causal" pads the beginning only.
"""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.arguments import positive_integer
from streamrnn.nn.layers.built_in import Stepwise, Unmasked
from streamrnn.nn.layers.declared import Argument, declared
from streamrnn.nn.layers.structure import Shape

Axes = tuple[int, ...]
"""Axes in order; -1 is the last."""

_INTEGERS = "Invalid value for `axis` argument: expected an int or a list/tuple of ints"


def checked_axis(owner: object, axis: Any, words: str = _INTEGERS) -> Any:
    """Return an axis as an int, several as a list. Raises ArgumentError unless all are integers."""
    several = isinstance(axis, list | tuple)
    for number in axis if several else [axis]:
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise ArgumentError(f"{owner}: {words}, received {axis!r}")
    return [int(number) for number in axis] if several else int(axis)


def axes_from_end(owner: object, axis: int | Sequence[int], rank: int) -> Axes:
    """Return axes in order, counted from the end. Raises ArgumentError, including for the batch."""
    checked = checked_axis(owner, axis)
    numbers: list[int] = checked if isinstance(checked, list) else [checked]
    for number in numbers:
        if not -rank <= number < rank:
            raise ArgumentError(
                f"{owner}: axis={axis} is out of bounds for an input of {rank} axes (batch first)"
            )
        if number % rank == 0:
            raise ArgumentError(
                f"{owner}: axis={axis} is the batch, whose rows must stay independent; choose "
                "another axis"
            )
    axes = sorted(number % rank - rank for number in numbers)
    if not axes or len(set(axes)) < len(axes):
        raise ArgumentError(f"{owner}: expected one or more axes, each once, received axis={axis}")
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
    """Return the values along `axes` as contiguous rows (N, F), and the shape for `from_rows`."""
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
    """The base of layers that work along `axis`, one axis or several."""

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


class TimeWindow(NamedTuple):
    """`size` inputs, `dilation` steps apart; the next window begins `strides` steps later."""

    size: int
    strides: int
    dilation: int
    padding: str

    @property
    def reach(self) -> int:
        """The number of steps from the first input of a window to its last."""
        return (self.size - 1) * self.dilation

    def count(self, steps: int) -> int:
        """Return the number of windows; 0 or less if the steps are too few for a window."""
        if self.padding == "valid":
            return (steps - self.reach - 1) // self.strides + 1
        return -(-steps // self.strides)

    def pads(self, steps: int) -> tuple[int, int]:
        """Return how many steps the padding adds before the first input and after the last."""
        if self.padding == "valid" or not steps:
            return 0, 0
        missing = max((self.count(steps) - 1) * self.strides + self.reach + 1 - steps, 0)
        if self.padding == "causal":
            return self.reach, max(missing - self.reach, 0)
        return missing // 2, missing - missing // 2

    def count_for(self, owner: object, steps: int | None) -> int | None:
        """Return the number of windows, or `steps` if None or 0. Raises ShapeError for too few."""
        if not steps:
            return steps
        windows = self.count(steps)
        if windows < 1:
            raise ShapeError(
                f"{owner}: Computed output size would be zero or negative. A window needs "
                f'{self.reach + 1} steps, received {steps}; use padding="same", or longer '
                "sequences"
            )
        return windows

    def views(self, padded: Array, count: int) -> Iterator[Array]:
        """Yield input 0 of all windows, then input 1, …: views (B, count, F) of padded steps."""
        for tap in range(self.size):
            begin = tap * self.dilation
            yield padded[:, begin : begin + (count - 1) * self.strides + 1 : self.strides]


class OverTime(Unmasked):
    """The base of layers that turn the steps of (batch, time, features) into other steps."""

    ragged = False
    sequence_input = True
    why: ClassVar[str]
    """Why the layer cannot run on streams."""

    def check_input(self, shape: Shape) -> None:
        if len(shape) != 3:
            raise ShapeError(f"{self}: expected (batch, time, features), received shape {shape}")
        self.steps(shape[1])

    def steps(self, input_steps: int | None) -> int | None:
        """Return the number of output steps, or None. Raises ShapeError for too few input steps."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.steps(input_shape[1]), input_shape[2])

    def why_not_stepwise(self, input_shape: Shape) -> str | None:
        return self.why


def padded(x: Array, pads: tuple[int, int], value: float) -> Array:
    """Return steps (B, T, F) padded with a value on both sides; x itself if nothing is added."""
    if pads == (0, 0):
        return x
    longer = np.full((len(x), x.shape[1] + sum(pads), *x.shape[2:]), value, x.dtype)
    longer[:, pads[0] : pads[0] + x.shape[1]] = x
    return longer


def one_size(owner: object, argument: str, value: object) -> int:
    """Return a positive integer, passed as it is or in a list of one. Raises ArgumentError."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return positive_integer(owner, argument, value)


class OneSize(Argument[int | Sequence[int], int]):
    """A positive integer; as in Keras, a list of one is accepted, too."""

    def take(self, owner: object, name: str, value: Any) -> int:
        return one_size(owner, name, value)


class TwoSizes(Argument[int | Sequence[int], tuple[int, int]]):
    """The numbers of steps at the beginning and at the end, or one number for both."""

    def take(self, owner: object, name: str, value: Any) -> tuple[int, int]:
        pair = value if isinstance(value, list | tuple) else (value, value)
        whole = [isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in pair]
        if whole != [True, True]:
            raise ArgumentError(
                f"{owner}: {name} must be one number of steps or two, each 0 or more, received "
                f"{value!r}"
            )
        return pair[0], pair[1]


class Padding(Argument[str, str]):
    """The name of a padding, in lower case: one of `paddings`, by default the first."""

    def __init__(self, *paddings: str) -> None:
        super().__init__(paddings[0])
        self.paddings = paddings

    def take(self, owner: object, name: str, value: Any) -> str:
        padding = value.lower() if isinstance(value, str) else value
        if padding not in self.paddings:
            raise ArgumentError(
                f"{owner}: padding must be one of {', '.join(self.paddings)}, received {value!r}"
            )
        return str(padding)


class DataFormat(Argument[str | None, str | None]):
    """The order of axes: None or "channels_last", which is (batch, time, features)."""

    in_config = False

    def take(self, owner: object, name: str, value: Any) -> str | None:
        if value in (None, "channels_last"):
            return value  # type: ignore[no-any-return]
        raise ArgumentError(
            f"{owner}: data_format={value!r} is not supported: arrays are (batch, time, "
            "features); put a Permute((2, 1)) before and after the layer"
        )
