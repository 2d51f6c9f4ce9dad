"""Schedules of the learning rate over updates, with the names, arguments and formulas of Keras 3.

A schedule is called with the number of updates done, and returns the rate of the next one: in
float64, with the same bits on any machine. Example: `optimizers.Adam(schedules.CosineDecay(…))`.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from streamrnn.errors import ArgumentError

__all__ = [
    "CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay",
    "LearningRateSchedule", "PiecewiseConstantDecay", "PolynomialDecay",
]  # fmt: skip


class LearningRateSchedule:
    """The base of schedules; a schedule of your own implements `__call__(step)`."""

    above_zero: ClassVar[tuple[str, ...]] = ()
    """Arguments that must be more than 0."""

    def __call__(self, step: int) -> float:
        """Return the learning rate after this many updates."""
        raise NotImplementedError(f"{type(self).__name__} must implement `__call__(step)`")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that the schedule was made with."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return a schedule made with these arguments."""
        return cls(**config)

    def __post_init__(self) -> None:
        for argument in self.above_zero:
            if not (value := getattr(self, argument)) > 0:
                raise ArgumentError(
                    f"{type(self).__name__}: {argument} must be above 0, received {value!r}"
                )


@dataclass(eq=False)
class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps).

    staircase: the exponent is rounded down to a whole number.
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "ExponentialDecay"

    above_zero = ("decay_steps", "decay_rate")

    def __call__(self, step: int) -> float:
        done = step / self.decay_steps
        exponent = math.floor(done) if self.staircase else done
        return self.initial_learning_rate * real_power(self.decay_rate, exponent)


@dataclass(eq=False)
class PiecewiseConstantDecay(LearningRateSchedule):
    """values[i] for a step up to boundaries[i], and values[-1] after the last boundary."""

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str = "PiecewiseConstant"

    def __post_init__(self) -> None:
        if len(self.boundaries) != len(self.values) - 1:
            raise ArgumentError(
                "PiecewiseConstantDecay: expected one more value than boundaries, received "
                f"{len(self.boundaries)} boundaries and {len(self.values)} values"
            )
        if list(self.boundaries) != sorted(self.boundaries):
            raise ArgumentError(
                "PiecewiseConstantDecay: boundaries must be in ascending order, received "
                f"{list(self.boundaries)}"
            )

    def __call__(self, step: int) -> float:
        return self.values[sum(step > boundary for boundary in self.boundaries)]


@dataclass(eq=False)
class PolynomialDecay(LearningRateSchedule):
    """Falls to end_learning_rate in decay_steps, by (1 - step / decay_steps) ** power.

    cycle: decay_steps is replaced by its smallest multiple that is not below step, so that the rate
    rises again after each multiple.
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str = "PolynomialDecay"

    above_zero = ("decay_steps",)

    def __call__(self, step: int) -> float:
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, math.ceil(step / steps))
        left = 1 - min(step, steps) / steps
        whole = self.initial_learning_rate - self.end_learning_rate
        return whole * real_power(left, self.power) + self.end_learning_rate


@dataclass(eq=False)
class InverseTimeDecay(LearningRateSchedule):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps).

    staircase: step / decay_steps is rounded down to a whole number.
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "InverseTimeDecay"

    above_zero = ("decay_steps",)

    def __call__(self, step: int) -> float:
        done = step / self.decay_steps
        share = math.floor(done) if self.staircase else done
        return self.initial_learning_rate / (1 + self.decay_rate * share)


@dataclass(eq=False)
class CosineDecay(LearningRateSchedule):
    """Falls by a half cosine in decay_steps to alpha times its top (Loshchilov & Hutter 2016).

    warmup_target: the rate first rises linearly to warmup_target in warmup_steps, then falls.
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: float = 0

    above_zero = ("decay_steps",)

    def __call__(self, step: int) -> float:
        top, after = self.initial_learning_rate, step
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return (self.warmup_target - top) * (step / self.warmup_steps) + top
            top, after = self.warmup_target, step - self.warmup_steps  # type: ignore[assignment]
        done = min(after, self.decay_steps) / self.decay_steps
        return top * ((1 - self.alpha) * cosine(done) + self.alpha)


@dataclass(eq=False)
class CosineDecayRestarts(LearningRateSchedule):
    """Falls by a half cosine, again and again (Loshchilov & Hutter 2016).

    Each fall takes t_mul times as many updates as the previous one, and begins m_mul times
    as far above its end, alpha * initial_learning_rate.
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str = "SGDRDecay"

    above_zero = ("first_decay_steps",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_mul < 1:
            raise ArgumentError(
                f"CosineDecayRestarts: t_mul must be 1 or more, received {self.t_mul!r}"
            )

    def __call__(self, step: int) -> float:
        left, size, height = float(step), float(self.first_decay_steps), 1.0
        if self.t_mul == 1:
            falls = math.floor(left / size)
            left, height = left - falls * size, real_power(self.m_mul, falls)
        while left >= size:
            left, size, height = left - size, size * self.t_mul, height * self.m_mul
        decayed = (1 - self.alpha) * height * cosine(left / size) + self.alpha
        return self.initial_learning_rate * decayed


# ---- elementary functions


_TERMS = 12
"""Terms of a series: C libraries differ in the last bit, so series in float64 replace them."""
_LN2 = 0.6931471805599453


def cosine(done: float) -> float:
    """Return (1 + cos(pi * done)) / 2, from 1 at 0 to 0 at 1 (Loshchilov & Hutter 2016).

    >>> [round(cosine(done), 6) for done in (0, 0.25, 0.5, 1)]
    [1.0, 0.853553, 0.5, 0.0]
    """
    # cos(pi x) = -cos(pi (1 - x)) = 1 - 2 sin(pi x / 2)**2: the series of sin up to pi / 2.
    angle = math.pi * min(max(done, 0.0), 1.0) / 2
    term = total = angle
    for n in range(1, _TERMS):
        term = -term * angle * angle / ((2 * n) * (2 * n + 1))
        total += term
    return max(0.0, 1.0 - total * total)


def real_power(base: float, exponent: float) -> float:
    """Return base**exponent for a base of 0 or more, with an error of about 1e-15.

    >>> round(real_power(0.5, 1.5), 12), real_power(0.0, 2.0), real_power(0.0, 0.0)
    (0.353553390593, 0.0, 1.0)
    """
    if exponent == 0 or base == 1:
        return 1.0
    if base == 0:
        return 0.0 if exponent > 0 else math.inf
    return _exp(exponent * logarithm(base))


def logarithm(x: float) -> float:
    """Return the natural logarithm of a number above 0, with an error of about 1e-16."""
    mantissa, exponent = math.frexp(x)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = 2 * mantissa, exponent - 1
    s = (mantissa - 1) / (mantissa + 1)
    total, term = 0.0, s
    for n in range(_TERMS + 2):
        total += term / (2 * n + 1)
        term *= s * s
    return exponent * _LN2 + 2 * total


def _exp(x: float) -> float:
    if not -745.0 < x < 709.0:
        return 0.0 if x < 0 else math.inf
    whole = math.floor(x / _LN2 + 0.5)
    rest = x - whole * _LN2
    term = total = 1.0
    for n in range(1, _TERMS + 6):
        term *= rest / n
        total += term
    return math.ldexp(total, whole)
