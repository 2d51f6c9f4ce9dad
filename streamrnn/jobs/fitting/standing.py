"""How far a fit is: what a commit keeps beside the weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from streamrnn.jobs.fitting.schedules import RatePlateau

HistoryRow = dict[str, int | float]
"""One epoch: epoch, updates, rows, loss, metrics, val_loss and so on, by name."""


@dataclass
class EpochSums:
    """Sums over the windows of an epoch; `rate`: the learning rate of the last one."""

    loss: float = 0.0
    count: int = 0
    steps: int = 0
    updates: int = 0
    norm: float = 0.0
    clipped: int = 0
    rate: float = 0.0
    seconds: float = 0.0

    @property
    def mean_loss(self) -> float:
        """The mean loss of all steps that counted."""
        return self.loss / self.count if self.count else math.nan


@dataclass
class Standing:
    """The next window to train, and what was found before.

    `best_epoch` is -1 before the first epoch; `best_errors`: the mean squared error of each target
    of a regression, in that epoch's validation; `waited`: epochs since then; `stopped`: no epoch
    follows, as enough did not improve.
    """

    epoch: int = 0
    window: int = 0
    trained: int = 0
    sums: EpochSums = field(default_factory=EpochSums)
    history: list[HistoryRow] = field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    best_errors: list[float] = field(default_factory=list)
    waited: int = 0
    stopped: bool = False
    plateau: RatePlateau = field(default_factory=RatePlateau)

    def as_facts(self) -> dict[str, Any]:
        """Return plain values, for a commit."""
        return asdict(self)

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Self:
        """Return what `as_facts` returned. Raises TypeError for other keys."""
        plateau = RatePlateau(**facts["plateau"])
        return cls(**{**facts, "sums": EpochSums(**facts["sums"]), "plateau": plateau})
