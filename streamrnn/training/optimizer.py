"""What all optimizers share: the learning rate, weight decay, clips, and what is kept."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from streamrnn.arrays import Floats
from streamrnn.errors import ArgumentError
from streamrnn.kernels import losses as sums
from streamrnn.kernels import updates
from streamrnn.training.schedules import LearningRateSchedule


class Options(TypedDict, total=False):
    """The arguments of every optimizer.

    weight_decay: each update first takes this share, times the learning rate, from the weights. Of
    clipnorm (of each weight's gradient), clipvalue and global_clipnorm (of all gradients) one may
    be given.
    """

    weight_decay: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    name: str | None
    # Refused, unless they ask for nothing.
    use_ema: object
    ema_momentum: object
    ema_overwrite_frequency: object
    loss_scale_factor: object
    gradient_accumulation_steps: object


_REFUSED: dict[str, tuple[object, ...]] = {
    "use_ema": (False, None),
    "ema_momentum": (0.99, None),
    "ema_overwrite_frequency": (None,),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None,),
}


class WeightUpdate(NamedTuple):
    """A weight and its gradient. The name tells apart what an optimizer keeps for each weight."""

    name: str
    weight: Floats
    gradient: Floats


class Optimizer:
    """The base of optimizers. `iterations` counts the updates so far."""

    slots: tuple[str, ...] = ()
    """What is kept for each weight: names of arrays of its shape."""
    initial = 0.0
    """Their first value."""

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
        **others: object,
    ) -> None:
        self.name = name or type(self).__name__.lower()
        self._learning_rate: float | LearningRateSchedule = 0.0
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue = clipnorm, clipvalue
        self.global_clipnorm = global_clipnorm
        self.iterations = 0
        self.kept: dict[str, list[Floats]] = {}
        clips = {
            "clipnorm": clipnorm,
            "clipvalue": clipvalue,
            "global_clipnorm": global_clipnorm,
        }
        given = {name: value for name, value in clips.items() if value is not None}
        if len(given) > 1:
            raise ArgumentError(
                f"{type(self).__name__}: only one of {', '.join(clips)} can be given, received "
                f"{given}"
            )
        if any(value <= 0 for value in given.values()):
            raise ArgumentError(f"{type(self).__name__}: clips must be above 0, received {given}")
        self._check_others(others)

    def _check_others(self, others: Mapping[str, object]) -> None:
        for argument, value in others.items():
            if argument not in _REFUSED:
                known = ", ".join(Options.__annotations__)
                raise ArgumentError(
                    f"{type(self).__name__}: unknown argument {argument!r} (known here: {known})"
                )
            if value not in _REFUSED[argument]:
                raise ArgumentError(f"{type(self).__name__}: {argument}={value!r} is not supported")

    @property
    def learning_rate(self) -> float:
        """The rate of the next update: the number, or what the schedule says now.

        A number may be set between updates; a schedule stays, unless another one is set.
        """
        if isinstance(self._learning_rate, LearningRateSchedule):
            return self._checked(float(self._learning_rate(self.iterations)))
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float | LearningRateSchedule) -> None:
        if isinstance(rate, LearningRateSchedule):
            self._learning_rate = rate
            return
        if isinstance(self._learning_rate, LearningRateSchedule):
            raise ArgumentError(
                f"{type(self).__name__}: learning_rate is {type(self._learning_rate).__name__}, a "
                "schedule, and cannot be set to a number; make an optimizer with a number"
            )
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.floating):
            raise ArgumentError(
                f"{type(self).__name__}: learning_rate must be a number or a schedule, received "
                f"{rate!r}"
            )
        self._learning_rate = self._checked(float(rate))

    def _checked(self, rate: float) -> float:
        if not rate >= 0:
            raise ArgumentError(
                f"{type(self).__name__}: learning_rate must be 0 or more, received {rate!r}"
            )
        return rate

    def apply(self, changes: Sequence[WeightUpdate]) -> None:
        """Change all weights in place, also read-only ones, by one update."""
        rate = self.learning_rate
        self.iterations += 1
        update = self.update(rate, (self.weight_decay or 0.0) * rate)
        for (name, weight, _), gradient in zip(changes, self._clipped(changes), strict=True):
            if name not in self.kept:
                self.kept[name] = [np.full_like(weight, self.initial) for _ in self.slots]
            update(weight, gradient, *self.kept[name])

    def update(self, rate: float, decay: float) -> updates.Apply:
        """Return what changes a weight in place, called with (weight, gradient, *slots).

        decay: the share of each weight that an update takes first.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `update`")

    def _clipped(self, changes: Sequence[WeightUpdate]) -> list[Floats]:
        gradients = [change.gradient for change in changes]
        if self.clipvalue is not None:
            limit = np.float32(self.clipvalue)
            return [np.clip(gradient, -limit, limit) for gradient in gradients]
        if self.clipnorm is not None:
            return [
                gradient * np.float32(_scale(sums.dot(gradient, gradient), self.clipnorm))
                for gradient in gradients
            ]
        if self.global_clipnorm is not None:
            square = 0.0
            for gradient in gradients:
                square += sums.dot(gradient, gradient)
            scale = np.float32(_scale(square, self.global_clipnorm))
            return [gradient * scale for gradient in gradients]
        return gradients


def _scale(square: float, limit: float) -> float:
    """Return what a gradient of this squared norm is multiplied by."""
    norm = math.sqrt(square)
    return limit / norm if norm > limit else 1.0 if norm <= limit else math.nan
