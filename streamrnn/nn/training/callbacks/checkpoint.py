"""ModelCheckpoint: the model as a file, after an epoch or some batches."""

import os
from pathlib import Path

from streamrnn.errors import ArgumentError
from streamrnn.nn.training.callbacks.callback import Logs
from streamrnn.nn.training.callbacks.monitor import MonitorCallback


class ModelCheckpoint(MonitorCallback):
    """Saves the model in the native format, as `model.save` does: the file is complete or absent.

    filepath: ends in .safetensors, and may name the epoch (from 1) and values of the logs, as in
    "{epoch:02d}-{val_loss:.2f}.safetensors", or "{batch}" with an integer save_freq. Missing
    folders are made. save_best_only: only if the monitored value improved, at first on
    initial_value_threshold. save_weights_only: no effect, as the one format has both.
    save_freq: "epoch", or a number of batches.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath = os.fspath(filepath)
        if not self.filepath.endswith(".safetensors"):
            raise ArgumentError(
                "ModelCheckpoint: filepath must end in .safetensors, the native format, received "
                f"{self.filepath!r}"
            )
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ArgumentError(
                "ModelCheckpoint: save_freq must be 'epoch' or a number of batches, received "
                f"{save_freq!r}"
            )
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self._epoch = 0
        self._batches = 0

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
        if self.save_best_only and not self._is_best(epoch, logs):
            return
        path = self._path(epoch, logs)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.model.save(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved the model to {path}", flush=True)

    def _is_best(self, epoch: int, logs: Logs) -> bool:
        value, before = self.monitored(logs), self.best
        if value is None:
            return False
        if self.improves(value, before):
            self.best = value
            return True
        if self.verbose:
            print(f"Epoch {epoch + 1}: {self.monitor} did not improve from {before}", flush=True)
        return False

    def _path(self, epoch: int, logs: Logs) -> Path:
        known = {"epoch": epoch + 1, **(logs or {})}
        try:
            return Path(self.filepath.format(**known))
        except (TypeError, ValueError, AttributeError) as error:
            raise ArgumentError(
                f"ModelCheckpoint: filepath {self.filepath!r} cannot be formatted: {error}; "
                "expected a path such as 'model-{epoch:02d}.safetensors'"
            ) from None
        except (KeyError, IndexError) as error:
            raise ArgumentError(
                f"ModelCheckpoint: filepath {self.filepath!r} names {error}, which is not "
                f"reported; reported are: {', '.join(known)}"
            ) from None
