"""Schedules of the learning rate in [train], over the share of training that is done."""

from __future__ import annotations

from dataclasses import dataclass

from streamrnn.nn.training.curves import cosine, real_power


@dataclass(frozen=True)
class RateSchedule:
    """What the learning rate is multiplied by; `name` and the numbers are those of [train].

    `warmup`: the share in which it first rises from 0, in a line. "step" multiplies by `factor`
    at each share in `at`; "exponential" falls to `factor` at the end; "plateau" is for
    `RatePlateau`.
    """

    name: str = "constant"
    warmup: float = 0.0
    factor: float = 1.0
    at: tuple[float, ...] = ()
    patience: int = 0
    min_rate: float = 0.0

    def __call__(self, done: float) -> float:
        """Return the factor after this share of the training, with the same bits anywhere.

        >>> RateSchedule("step", at=(0.5, 0.75), factor=0.5)(0.75)
        0.25
        >>> RateSchedule("cosine", warmup=0.5)(0.25), RateSchedule("cosine", warmup=0.5)(0.5)
        (0.5, 1.0)
        """
        if done < self.warmup:
            return done / self.warmup
        after = (done - self.warmup) / (1 - self.warmup) if self.warmup else done
        if self.name == "cosine":
            return cosine(after)
        if self.name == "exponential":
            return real_power(self.factor, after)
        if self.name == "step":
            return real_power(self.factor, sum(done >= share for share in self.at))
        return 1.0


@dataclass
class RatePlateau:
    """The part of a fit's standing that a plateau needs.

    `scale`: what the rate is multiplied by; `waited`: epochs since it changed, or since the
    validation loss was best.
    """

    scale: float = 1.0
    waited: int = 0

    def judge(self, schedule: RateSchedule, rate: float, *, better: bool) -> None:
        """Take an epoch into account; `rate`: the learning rate of the optimizer."""
        if schedule.name != "plateau":
            return
        self.waited = 0 if better else self.waited + 1
        now = rate * self.scale
        if self.waited >= schedule.patience and now > schedule.min_rate:
            self.scale = max(now * schedule.factor, schedule.min_rate) / rate
            self.waited = 0
