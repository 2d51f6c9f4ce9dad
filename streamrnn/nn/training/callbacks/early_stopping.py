"""EarlyStopping, with the rules of Keras 3."""

from streamrnn.base.arrays import Floats
from streamrnn.nn.training.callbacks.callback import Logs
from streamrnn.nn.training.callbacks.monitor import MonitorCallback


class EarlyStopping(MonitorCallback):
    """Stops when a monitored value has not improved for more than `patience` epochs.

    monitor: "val_loss", "loss", or one of the metrics. min_delta: the least improvement. mode:
    "min", "max", or "auto" by the metric. baseline: what the first epochs must beat.
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
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self.best_weights: list[Floats] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forget what an earlier fit left."""
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
