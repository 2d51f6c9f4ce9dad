"""History and EarlyStopping, with the names and arguments of Keras 3."""

import math
from collections.abc import Callable, Mapping

from streamrnn.arrays import Floats
from streamrnn.errors import ArgumentError

__all__ = ["EarlyStopping", "History"]


class History:
    """What `fit` returns: `history`, a list per loss and metric, and `epoch`, the numbers."""

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def add(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Append an epoch."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class EarlyStopping:
    """Stops when a monitored value has not improved for more than `patience` epochs.

    monitor: "val_loss", "loss", or one of the metrics. min_delta: the least improvement. mode:
    "min", "max", or "auto": "max" for an accuracy. baseline: what the first epochs must beat.
    restore_best_weights: at the end, the weights of the best epoch. start_from_epoch: epochs before
    the first one that counts.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(
                f"EarlyStopping: mode must be 'auto', 'min' or 'max', received {mode!r}"
            )
        self.monitor = monitor
        self.min_delta = abs(min_delta)
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.stopped_epoch = 0
        self.best = math.nan
        self.best_epoch = 0
        self.best_weights: list[Floats] | None = None
        self._wait = 0

    @property
    def _sign(self) -> float:
        """1 if less is better, else -1."""
        largest = self.mode == "max" or (self.mode == "auto" and self.monitor.endswith("acc"))
        largest = largest or (self.mode == "auto" and self.monitor.endswith("accuracy"))
        return -1.0 if largest else 1.0

    def begin(self) -> None:
        """Forget what an earlier call of fit left."""
        self.stopped_epoch = self.best_epoch = self._wait = 0
        self.best, self.best_weights = self._sign * math.inf, None

    def ends(
        self, epoch: int, logs: Mapping[str, float], weights: Callable[[], list[Floats]]
    ) -> bool:
        """Record the end of an epoch; return whether to stop. Raises ArgumentError."""
        if self.monitor not in logs:
            raise ArgumentError(
                f"EarlyStopping: monitor={self.monitor!r} is not reported; pass validation data, "
                f"or monitor one of: {', '.join(logs)}"
            )
        if epoch < self.start_from_epoch:
            return False
        value, sign = logs[self.monitor], self._sign
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = weights(), epoch
        self._wait += 1
        if sign * value < sign * self.best - self.min_delta:
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = weights()
            if self.baseline is None or sign * value < sign * self.baseline - self.min_delta:
                self._wait = 0
            return False
        if self._wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            return True
        return False
