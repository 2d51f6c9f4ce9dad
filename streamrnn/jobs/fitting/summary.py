"""The result of a fit, and its options."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from streamrnn.errors import ConfigError
from streamrnn.jobs.fitting.baseline import shares_better
from streamrnn.jobs.fitting.commit import HistoryRow
from streamrnn.jobs.fitting.fit_loop import FitProgress, TriedRate, good_rate
from streamrnn.stream.sources import UNKNOWN_IN


@dataclass(frozen=True)
class FitOptions:
    """Options of one fit.

    `extend` trains the model of the last fit on new rows; `full_refresh` starts over; `overwrite`
    replaces a model file that the last fit did not write; `limit`: read at most this many rows, and
    write nothing; `find_rate`: try learning rates, and write nothing.
    """

    extend: bool = False
    full_refresh: bool = False
    overwrite: bool = False
    limit: int | None = None
    find_rate: bool = False
    progress: Callable[[FitProgress], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Raise ConfigError for options that exclude each other, or let nothing be read."""
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"fit: expected a limit of 1 row or more, received {self.limit}")
        if self.extend and (self.full_refresh or not self.writes):
            raise ConfigError(
                "fit: extend trains the model of the last fit; full_refresh, limit and find_rate "
                "train a new one. Leave out extend, or the options that train a new model"
            )

    @property
    def writes(self) -> bool:
        """Whether the fit writes results."""
        return self.limit is None and not self.find_rate


@dataclass(frozen=True)
class SeedResult:
    """The fit of one seed of several; `best` as in `FitSummary`."""

    seed: int
    best: HistoryRow


@dataclass
class FitSummary:
    """The result of `Pipeline.fit`.

    `history` has a row per epoch; `best_epoch` is the epoch whose weights the model has (0: the
    last one, without validation). `rows` rows of `streams` streams were read; `labels` training
    steps count in the loss, `validation_rows` rows only validate. `scaled`: losses are of
    standardized labels. `state` is where the state was saved, None if it was not. With several
    `seeds`, the model is the best seed's (`seed`), or combines the models of all seeds (`seed` is
    None); `epochs` and `updates` are totals. `season` is as in [target], "" for none. `rates` were
    tried with `find_rate`; `good_rate` is a tenth of the rate at which the loss was lowest, None if
    no rate lowered it or after an interrupt. `shifts`: what [output] calibrate adds to each
    quantile.
    """

    model: str = ""
    folder: str = ""
    state: str | None = None
    rows: int = 0
    streams: int = 0
    labels: int = 0
    validation_rows: int = 0
    scaled: bool = False
    season: str = ""
    epochs: int = 0
    updates: int = 0
    best_epoch: int = 0
    history: list[HistoryRow] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    resumed: str = ""
    nothing_new: bool = False
    interrupted: bool = False
    committed: bool = False
    seeds: list[SeedResult] = field(default_factory=list)
    seed: int | None = None
    shifts: list[float] = field(default_factory=list)
    rates: list[TriedRate] = field(default_factory=list)

    @property
    def good_rate(self) -> float | None:
        """A learning rate to start from; None if no rate is good, or after an interrupt."""
        return None if self.interrupted else good_rate(self.rates)

    @property
    def best(self) -> HistoryRow:
        """The row of the epoch whose weights the model has; {} before the first epoch."""
        if not self.history:
            return {}
        return self.history[(self.best_epoch or len(self.history)) - 1]

    @property
    def unknown_by_feature(self) -> dict[str, int]:
        """The number of values of each feature that are not in its vocabulary."""
        counts = self.counts.items()
        return {n.removeprefix(UNKNOWN_IN): k for n, k in counts if n.startswith(UNKNOWN_IN)}

    @property
    def better(self) -> dict[str, float]:
        """The shares by which the RMSE is smaller than each baseline's: see `share_better`."""
        return shares_better(self.best)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"best": self.best}
        shares = {name: of if math.isfinite(of) else None for name, of in self.better.items()}
        values |= {"better": shares, "good_rate": self.good_rate}
        return values | {"seeds": [{"seed": of.seed, "best": of.best} for of in self.seeds]}
