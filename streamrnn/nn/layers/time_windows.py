"""Windows along the time axis, as convolutions and pools look at it: paddings and numbers of steps.

Formulas of Keras 3 (and TensorFlow): "valid" pads nothing; "same" pads zeros on both sides, the odd
one at the end, so that there are ceil(steps / strides) windows; "causal" pads the beginning only.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers.arguments import positive_integer


class TimeWindow(NamedTuple):
    """size inputs, `dilation` apart; the next window begins `strides` later."""

    size: int
    strides: int
    dilation: int
    padding: str

    @property
    def reach(self) -> int:
        """The steps from the first input of a window to its last."""
        return (self.size - 1) * self.dilation

    def count(self, steps: int) -> int:
        """Return the number of windows; 0 or less if the steps are too few for one."""
        if self.padding == "valid":
            return (steps - self.reach - 1) // self.strides + 1
        return -(-steps // self.strides)

    def pads(self, steps: int) -> tuple[int, int]:
        """Return the steps that are missing before the first input and after the last."""
        if self.padding == "valid" or not steps:
            return 0, 0
        missing = (self.count(steps) - 1) * self.strides + self.reach + 1 - steps
        if self.padding == "causal":
            return self.reach, max(missing - self.reach, 0)
        return max(missing, 0) // 2, max(missing, 0) - max(missing, 0) // 2

    def count_for(self, owner: object, steps: int | None) -> int | None:
        """Return the number of windows, None if unknown. Raises ShapeError for too few steps."""
        if not steps:
            return steps
        found = self.count(steps)
        if found < 1:
            raise ShapeError(
                f"{owner}: Computed output size would be zero or negative. A window needs "
                f'{self.reach + 1} steps, received {steps}; use padding="same", or sequences that '
                "are longer"
            )
        return found

    def views(self, padded: Array, count: int) -> Iterator[Array]:
        """Yield input 0 of all windows, then input 1, …: views (B, count, F) of padded steps."""
        for tap in range(self.size):
            begin = tap * self.dilation
            yield padded[:, begin : begin + (count - 1) * self.strides + 1 : self.strides]


def padded(x: Array, pads: tuple[int, int], value: float) -> Array:
    """Return steps (B, T, F) with more of one value on both sides; x itself without any."""
    if pads == (0, 0):
        return x
    made = np.full((len(x), x.shape[1] + sum(pads), *x.shape[2:]), value, x.dtype)
    made[:, pads[0] : pads[0] + x.shape[1]] = x
    return made


def one_size(owner: object, argument: str, value: object) -> int:
    """Return a size that Keras also writes as a list of one. Raises ArgumentError."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return positive_integer(str(owner), argument, value)


def two_sizes(owner: object, argument: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return the numbers of steps at the beginning and at the end. Raises ArgumentError."""
    pair = value if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in pair):
        raise ArgumentError(
            f"{owner}: {argument} must be a number of steps, 0 or more, or two of them, received "
            f"{value!r}"
        )
    return pair[0], pair[1]


def checked_padding(owner: object, padding: object, *known: str) -> str:
    """Return a padding in lower case. Raises ArgumentError for an unknown one."""
    name = padding.lower() if isinstance(padding, str) else padding
    if name not in known:
        raise ArgumentError(
            f"{owner}: padding must be one of {', '.join(known)}, received {padding!r}"
        )
    return str(name)


def check_data_format(owner: object, data_format: str | None) -> None:
    """Raise ArgumentError unless arrays are (batch, time, features)."""
    if data_format not in (None, "channels_last"):
        raise ArgumentError(
            f"{owner}: data_format={data_format!r} is not supported: arrays are (batch, time, "
            "features); put a Permute((2, 1)) before and after it"
        )
