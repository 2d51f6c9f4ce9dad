"""How far the outputs of a model in lower precision are from those in float32."""

from dataclasses import asdict, dataclass

import numpy as np

from streamrnn.base.arrays import Array, Doubles

GROWTH = 3.0
"""Growth of the error above which a model counts as one that does not forget."""

_STILL = 1.25
"""Growth since the third tenth above which the error counts as still growing: from zero states the
error grows at first even if the model forgets, but then levels off."""

_TENTHS = 10


@dataclass(frozen=True)
class RoundingError:
    """The differences of one output from float32, in the output's unit.

    largest: the largest absolute difference. rms: the root mean square of all differences. `first`,
    `middle`, `last`: rms in the first, third and last tenth of the steps; None for fewer than 10
    steps, or without an axis of steps.
    """

    output: str
    precision: str
    largest: float
    rms: float
    first: float | None
    middle: float | None
    last: float | None

    @classmethod
    def of(
        cls, output: str, precision: str, exact: Array, rounded: Array, steps: int | None
    ) -> "RoundingError":
        """Compare arrays; `steps` is the axis of the steps, if there is one.

        Where both arrays have NaN, or the same infinity, the difference is 0.
        """
        one, other = exact.astype(np.float64), rounded.astype(np.float64)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        with np.errstate(invalid="ignore"):
            difference: Doubles = np.where(same, 0.0, np.abs(one - other))
        difference = np.where(np.isnan(difference), np.inf, difference)
        first = middle = last = None
        if steps is not None and difference.shape[steps] >= _TENTHS:
            along = np.moveaxis(difference, steps, 0)
            tenth = len(along) // _TENTHS
            first, middle, last = (
                _rms(along[begin : begin + tenth]) for begin in (0, 2 * tenth, len(along) - tenth)
            )
        largest = float(difference.max(initial=0))
        return cls(output, precision, largest, _rms(difference), first, middle, last)

    def as_dict(self) -> dict[str, str | float | None]:
        """Return all fields, and the growth, by name."""
        return {**asdict(self), "growth": self.growth}

    @property
    def growth(self) -> float | None:
        """`last` divided by `first`; None if both are None, or if `first` is 0."""
        return self.last / self.first if self.first and self.last is not None else None

    def warning(self) -> str | None:
        """Return a warning about an error that keeps growing over the steps; None for others."""
        if self.growth is None or self.middle is None or self.last is None:
            return None
        if self.growth <= GROWTH or self.last <= _STILL * self.middle:
            return None
        return (
            f"the error of {self.output} in {self.precision} is {self.growth:.3g} times as large "
            "in the last tenth of the steps as in the first, and still grows: unless the inputs "
            "grow, this model does not forget (a gate that is exactly 1?), and errors add up. Stay "
            "with float32"
        )

    def __str__(self) -> str:
        text = (
            f"{self.output} in {self.precision}: largest difference from float32 "
            f"{self.largest:.3g}, rms {self.rms:.3g}"
        )
        if self.growth is None:
            return text
        return (
            f"{text}, {self.growth:.3g} times as large in the last tenth of the steps as in the "
            "first"
        )


def _rms(difference: Doubles) -> float:
    return float(np.sqrt(np.mean(difference * difference))) if difference.size else 0.0
