"""Callbacks of fit and evaluate, with the names, arguments, defaults and order of Keras 3.

Where Keras only warns, such as about a monitored name that is not reported, an error is raised.
"""

import json
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import (
    ArgumentError,
    CheckpointError,
    DivergedError,
    ModelMismatchError,
    SinkError,
)
from streamrnn.nn.training.callback import (
    Callback,
    CallbackList,
    CSVLogger,
    History,
    LambdaCallback,
    Logs,
    MonitorCallback,
    ProgbarLogger,
)

__all__ = [
    "BackupAndRestore", "CSVLogger", "Callback", "CallbackList", "EarlyStopping", "History",
    "LambdaCallback", "LearningRateScheduler", "ModelCheckpoint", "ProgbarLogger",
    "ReduceLROnPlateau", "TerminateOnNaN",
]  # fmt: skip


@dataclass(eq=False, repr=False)
class EarlyStopping(MonitorCallback):
    """Ends a fit when a monitored value has not improved for `patience` epochs (0 counts as 1).

    monitor: a reported name, such as "val_loss", "loss" or "val_mae". min_delta: an improvement
    must be larger than this. mode: "min", "max", or "auto", as the loss or metric requires.
    baseline: a value that is not better than this does not restart the count of epochs.
    restore_best_weights: set the weights of the best epoch at the end of the fit, even of one that
    was not stopped. start_from_epoch: the first epoch that counts; epochs are numbered from 0.
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
    """Ends a fit after a batch that makes the reported loss NaN or infinite.

    raise_error: raise DivergedError instead of ending the fit as if it were done.
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
                f"ReduceLROnPlateau: factor must be above 0 and below 1, received {self.factor!r}"
            )

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forget the values of an earlier fit."""
        self.best = None
        self.cooldown_counter = self.wait = 0

    def in_cooldown(self) -> bool:
        """Return whether epochs are not counted because of a recent reduction of the rate."""
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


@dataclass(eq=False, repr=False)
class ModelCheckpoint(MonitorCallback):
    """Saves the model in the native format, as `model.save` does; no file is ever half written.

    filepath: ends in .safetensors, and may name the epoch (from 1) and values of the logs, as in
    "{epoch:02d}-{val_loss:.2f}.safetensors", or "{batch}" with an integer save_freq. Missing
    folders are created. save_best_only: save only if the monitored value is better than all earlier
    values and than initial_value_threshold, if that is set. save_weights_only: no effect, as the
    format always has the config and the weights. save_freq: "epoch", or a number of batches.
    """

    filepath: str | os.PathLike[str]
    monitor: str = "val_loss"
    verbose: int = 0
    save_best_only: bool = False
    save_weights_only: bool = False
    mode: str = "auto"
    save_freq: str | int = "epoch"
    initial_value_threshold: float | None = None

    _epoch = _batches = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.best = self.initial_value_threshold
        self.filepath = os.fspath(self.filepath)
        if not self.filepath.endswith(".safetensors"):
            raise ArgumentError(
                "ModelCheckpoint: filepath must end in .safetensors, the native format, received "
                f"{self.filepath!r}"
            )
        freq = self.save_freq
        if freq != "epoch" and (not isinstance(freq, int) or freq < 1):
            raise ArgumentError(
                "ModelCheckpoint: save_freq must be 'epoch' or a whole number of batches, 1 or "
                f"more, received {freq!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.save_freq == "epoch":
            return
        self._batches += 1
        if self._batches >= int(self.save_freq):
            self._batches = 0
            self._save(self._epoch, {"batch": batch + 1, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _save(self, epoch: int, logs: Logs) -> None:
        if self.save_best_only:
            value = self.monitored(logs)
            if value is None:
                return
            if not self.improves(value, self.best):
                if self.verbose:
                    name, best = self.monitor, self.best
                    print(f"Epoch {epoch + 1}: {name} did not improve from {best}", flush=True)
                return
            self.best = value
        path = self._path(epoch, logs)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.model.save(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved the model to {path}", flush=True)

    def _path(self, epoch: int, logs: Logs) -> Path:
        reported = {"epoch": epoch + 1, **(logs or {})}
        try:
            return Path(os.fspath(self.filepath).format(**reported))
        except (TypeError, ValueError, AttributeError) as error:
            raise ArgumentError(
                f"ModelCheckpoint: filepath {self.filepath!r} cannot be formatted: {error}; "
                "expected a path such as 'model-{epoch:02d}.safetensors'"
            ) from None
        except (KeyError, IndexError) as error:
            raise ArgumentError(
                f"ModelCheckpoint: filepath {self.filepath!r} names a value that is not "
                f"reported ({error}); the reported names are: {', '.join(reported)}"
            ) from None


@dataclass(eq=False, repr=False)
class BackupAndRestore(Callback):
    """Writes weights, optimizer and epoch after each epoch; a later fit continues from the file.

    After an interruption, the same call of fit gives the weights of an uninterrupted fit, bit for
    bit, if other callbacks keep nothing from epoch to epoch. The file backup_dir/latest.npz is
    replaced as a whole. delete_checkpoint: remove the file at the end of a fit. save_freq must be
    "epoch". double_checkpoint: no effect, as a file is never half written.
    """

    backup_dir: str | os.PathLike[str]
    save_freq: str = "epoch"
    double_checkpoint: bool = False
    delete_checkpoint: bool = True

    initial_epoch = 0

    def __post_init__(self) -> None:
        if self.save_freq != "epoch":
            raise ArgumentError(
                f"BackupAndRestore: save_freq={self.save_freq!r} is not supported; it must be "
                "'epoch', as a fit continues with a whole epoch"
            )
        self.backup_dir = os.fspath(self.backup_dir)

    @property
    def path(self) -> Path:
        """The path of the backup."""
        return Path(self.backup_dir) / "latest.npz"

    def on_train_begin(self, logs: Logs = None) -> None:
        """Restore the last backup, if there is one; the fit then begins with `initial_epoch`.

        Raises ModelMismatchError for the backup of another model or optimizer, CheckpointError for
        a damaged file, SinkError if the folder is a file.
        """
        self.initial_epoch = 0
        folder = self.path.parent
        if folder.exists() and not folder.is_dir():
            raise SinkError(f"{folder}: this is a file, not a folder; set another backup_dir")
        if not self.path.exists():
            return
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays["facts"]))
            stored, kind = facts["shapes"], facts["optimizer"]
            weights = [arrays[f"weight/{at}"] for at in range(len(stored))]
            slots = {
                int(at): [arrays[f"slot/{at}/{number}"] for number in range(count)]
                for at, count in facts["slots"].items()
            }
            iterations, rate, epoch = (facts[k] for k in ("iterations", "learning_rate", "epoch"))
        except Exception as error:  # of any class: damage may show in any step
            raise CheckpointError(
                f"{self.path} is damaged, or is not a backup; remove it to start over"
            ) from error
        names, optimizer = list(self.model.named_weights()), self.model.optimizer
        shapes = [list(weight.shape) for weight in self.model.weights]
        counts = {len(of_weight) for of_weight in slots.values()}
        same = kind == type(optimizer).__name__ and counts <= {len(optimizer.slots)}
        if stored != shapes or not same:  # Adam keeps more with amsgrad=True
            raise ModelMismatchError(
                f"{self.path} (optimizer {kind}) does not fit {self.model}: the model, the "
                "optimizer or its settings have changed; remove the file, or set another backup_dir"
            )
        self.model.set_weights(weights)
        optimizer.iterations = iterations
        optimizer.kept = {names[at]: of_weight for at, of_weight in slots.items()}
        if optimizer.learning_rate != rate:
            optimizer.learning_rate = rate
        self.initial_epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        # The keys are positions, as the names of layers may have other numbers in a later process.
        weights, optimizer = self.model.named_weights(), self.model.optimizer
        kept = {at: held for at, name in enumerate(weights) if (held := optimizer.kept.get(name))}
        facts = {
            "epoch": epoch + 1,
            "iterations": optimizer.iterations,
            "learning_rate": optimizer.learning_rate,
            "optimizer": type(optimizer).__name__,
            "shapes": [list(weight.shape) for weight in weights.values()],
            "slots": {at: len(of_weight) for at, of_weight in kept.items()},
        }
        arrays: dict[str, Array] = {"facts": np.array(json.dumps(facts))}
        arrays |= {f"weight/{at}": weight for at, weight in enumerate(weights.values())}
        for at, of_weight in kept.items():
            arrays |= {f"slot/{at}/{number}": slot for number, slot in enumerate(of_weight)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".latest.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def on_train_end(self, logs: Logs = None) -> None:
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)
