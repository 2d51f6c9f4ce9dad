"""Callbacks that follow the logs, or set the learning rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError, DivergedError
from streamrnn.nn.training.callbacks.callback import Callback, Logs


class MonitorCallback(Callback):
    """The base of callbacks that follow a value of the logs.

    monitor: the name of the value. mode: "min", "max", or "auto": "min" for a loss, and for a
    metric the direction of its class. min_delta: an improvement must be larger than this. best: the
    best value so far.
    """

    monitor: str
    mode: str
    min_delta: float = 0
    best: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "min", "max"):
            raise ArgumentError(
                f"{type(self).__name__}: mode must be 'auto', 'min' or 'max', received "
                f"{self.mode!r}"
            )
        self.min_delta = abs(self.min_delta)

    def monitored(self, logs: Logs) -> float | None:
        """Return the value; None in an epoch without validation. Raises ArgumentError."""
        logs = logs or {}
        if self.monitor in logs:
            value = logs[self.monitor]
            if np.ndim(value):
                raise ArgumentError(
                    f"{type(self).__name__}: monitor={self.monitor!r} has a value for each class, "
                    f"in the shape {np.shape(value)}; make the metric with an average"
                )
            return float(value)
        name = self.monitor.removeprefix("val_")
        if name != self.monitor and name in logs and (self.params or {}).get("validation"):
            return None
        raise ArgumentError(
            f"{type(self).__name__}: monitor={self.monitor!r} is not reported; pass validation "
            f"data, or monitor one of: {', '.join(logs)}"
        )

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best (NaN never is). Raises ArgumentError."""
        sign = -1.0 if self._larger_is_better() else 1.0
        if math.isnan(value):
            return False
        return best is None or sign * value < sign * best - self.min_delta

    def _larger_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss") or name == "learning_rate":
            return False
        directions = {
            metric.direction
            for metric in getattr(self.model, "metrics", [])
            if name == metric.name or name.endswith(f"_{metric.name}")
        }
        if len(directions) == 1 and None not in directions:
            return directions == {"up"}
        raise ArgumentError(
            f"{type(self).__name__}: it is unknown whether larger or smaller values of monitor="
            f"{self.monitor!r} are better; pass mode='max' or mode='min'"
        )


@dataclass(eq=False, repr=False)
class EarlyStopping(MonitorCallback):
    """Ends a fit when a monitored value has not improved for `patience` epochs (0 counts as 1).

    monitor: "val_loss", "loss", or one of the metrics. min_delta: an improvement must be larger
    than this. mode: "min", "max", or "auto", as the metric decides. baseline: a value that is not
    better than this does not restart the count of epochs. restore_best_weights: set the weights of
    the best epoch at the end. start_from_epoch: the first epoch that counts, from 0.
    """

    monitor: str = "val_loss"
    min_delta: float = 0
    patience: int = 0
    verbose: int = 0
    mode: str = "auto"
    baseline: float | None = None
    restore_best_weights: bool = False
    start_from_epoch: int = 0

    wait = stopped_epoch = best_epoch = 0
    best_weights: list[Floats] | None = field(default=None, init=False)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forget the values of an earlier fit."""
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = self.best_weights = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = self.monitored(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.improves(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self.verbose and self.stopped_epoch:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping", flush=True)
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of epoch {self.best_epoch + 1}", flush=True)
            self.model.set_weights(self.best_weights)


@dataclass(eq=False, repr=False)
class TerminateOnNaN(Callback):
    """Ends a fit after a batch whose loss is NaN or infinite.

    raise_error: raise DivergedError in place of an orderly end.
    """

    raise_error: bool = False

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        loss: Any = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise DivergedError(
                f"fit: the loss is {loss} in batch {batch}; set a lower learning_rate or a "
                "clipnorm in the optimizer, and check the ranges of x, y and sample_weight"
            )
        print(f"Batch {batch}: Invalid loss, terminating training", flush=True)
        self.model.stop_training = True


@dataclass(eq=False, repr=False)
class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch; adds it to the logs as "learning_rate".

    schedule: a function of the epoch (from 0) and the learning rate, or of the epoch alone.
    """

    schedule: Callable[..., float]
    verbose: int = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.model.optimizer
        arguments = [epoch, float(optimizer.learning_rate)]
        try:
            signature(self.schedule).bind(*arguments)
        except (TypeError, ValueError):  # takes the epoch alone; list.__getitem__ has no signature
            del arguments[1]
        rate: Any = self.schedule(*arguments)
        if not isinstance(rate, float | np.floating):
            raise ArgumentError(
                f"LearningRateScheduler: schedule must return a float, received {rate!r} for epoch "
                f"{epoch}"
            )
        optimizer.learning_rate = float(rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: the learning rate is {float(rate)}", flush=True)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


@dataclass(eq=False, repr=False)
class ReduceLROnPlateau(MonitorCallback):
    """Multiplies the learning rate by `factor` when a value has not improved for some epochs.

    It adds the learning rate of the epoch to the logs as "learning_rate". monitor, mode: as in
    EarlyStopping. patience: epochs without an improvement of more than min_delta. cooldown: which
    epoch after a reduction is the first to count, as in Keras (0 means 1). min_lr: the smallest
    learning rate.
    """

    monitor: str = "val_loss"
    factor: float = 0.1
    patience: int = 10
    verbose: int = 0
    mode: str = "auto"
    min_delta: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0

    cooldown_counter = wait = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.factor < 1:
            raise ArgumentError(
                f"ReduceLROnPlateau: factor must lie between 0 and 1, received {self.factor!r}"
            )

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forget the values of an earlier fit."""
        self.best = None
        self.cooldown_counter = self.wait = 0

    def in_cooldown(self) -> bool:
        """Return whether epochs do not count yet after a reduction of the learning rate."""
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        rate = float(self.model.optimizer.learning_rate)
        if logs is not None:
            logs["learning_rate"] = rate
        value = self.monitored(logs)
        if value is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                rate = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = rate
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: the learning rate is reduced to {rate}", flush=True)
