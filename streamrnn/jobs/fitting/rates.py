"""The learning rate of a fit: [train] schedule, and what a plateau makes of it."""

from dataclasses import dataclass

from streamrnn.nn.training.curves import cosine, real_power


@dataclass(frozen=True)
class RateSchedule:
    """What `Pipeline.fit` multiplies the learning rate by, over the share of training that is done.

    `name` and the numbers are those of [train] schedule.

    `warmup`: the share in which it first rises from 0, in a line. "step" multiplies by `factor`
    at each share in `at`; "exponential" falls to `factor` at the end; "plateau" is for
    ReduceLROnPlateau.
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
class BaseRate:
    """The learning rate before the factor of the schedule; ReduceLROnPlateau sets `scale`."""

    rate: float
    scale: float = 1.0

    @property
    def learning_rate(self) -> float:
        """The rate, as low as it was set."""
        return self.rate * self.scale

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.scale = rate / self.rate
