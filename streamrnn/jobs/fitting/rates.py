"""A test of learning rates: the loss while the rate rises from update to update (Smith 2017)."""

from collections.abc import Callable
from typing import NamedTuple

from streamrnn.errors import DivergedError
from streamrnn.jobs.fitting.fit_loop import FitLoop
from streamrnn.nn.training.curves import real_power

_LOWEST, _HIGHEST, _UPDATES = 1e-6, 1.0, 200
_KEPT = 0.9
"""The share of the earlier losses in the running mean."""
_BEYOND = 4.0
"""A loss of this many times the lowest one ends the test, unless a loss may be negative."""


class TriedRate(NamedTuple):
    """A learning rate, and the running mean of the losses up to its update."""

    rate: float
    loss: float


def try_rates(loop: FitLoop, stopped: Callable[[], bool]) -> list[TriedRate]:
    """Train a model at rising rates, until it diverges; the model is of no use afterwards."""
    ratio = _HIGHEST / _LOWEST
    rates = [_LOWEST * real_power(ratio, n / (_UPDATES - 1)) for n in range(_UPDATES)]
    tried: list[TriedRate] = []
    total = 0.0
    try:
        for rate, judged in zip(rates, loop.train_at(rates), strict=False):
            if not judged.counted:
                continue
            total = _KEPT * total + (1 - _KEPT) * judged.loss
            tried.append(TriedRate(rate, total / (1 - _KEPT ** (len(tried) + 1))))
            lowest = min(of.loss for of in tried)
            rises = not loop.learner.loss.signed and tried[-1].loss > _BEYOND * lowest >= 0
            if rises or stopped():
                break
    except DivergedError:
        pass
    return tried


def good_rate(tried: list[TriedRate]) -> float | None:
    """Return a tenth of the rate at which the loss was lowest; None if no rate lowered it.

    >>> good_rate([TriedRate(0.001, 1.0), TriedRate(0.01, 0.8), TriedRate(0.1, 3.0)])
    0.001
    """
    best = min(tried, key=lambda of: of.loss, default=None)
    return None if best is None or best == tried[0] else best.rate / 10
