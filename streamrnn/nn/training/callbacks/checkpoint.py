"""Callbacks that write files: ModelCheckpoint (a model), BackupAndRestore (a fit)."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError, CheckpointError, ModelMismatchError, SinkError
from streamrnn.nn.training.callbacks.callback import Callback, Logs
from streamrnn.nn.training.callbacks.monitor import MonitorCallback


@dataclass(eq=False, repr=False)
class ModelCheckpoint(MonitorCallback):
    """Saves the model in the native format, as `model.save` does: the file is complete or absent.

    filepath: ends in .safetensors, and may name the epoch (from 1) and values of the logs, as in
    "{epoch:02d}-{val_loss:.2f}.safetensors", or "{batch}" with an integer save_freq. Missing
    folders are made. save_best_only: save only if the monitored value is better than all earlier
    ones and than initial_value_threshold. save_weights_only: no effect, as the format always has
    the config and the weights. save_freq: "epoch", or a number of batches.
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
                "ModelCheckpoint: save_freq must be 'epoch' or a number of batches, received "
                f"{freq!r}"
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
    """Writes weights, optimizer and epoch after each epoch; a later fit continues from there.

    After an interruption, the same call of fit gives the weights of an uninterrupted fit, bit for
    bit, if other callbacks keep nothing from epoch to epoch. The file backup_dir/latest.npz is
    replaced as a whole; delete_checkpoint: the file is removed at the end of a fit. save_freq must
    be "epoch"; double_checkpoint: no effect, as a file is never half written.
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
                f"{self.path} is the backup of another model or optimizer "
                f"({kind}), not of {self.model}; remove it, or set another backup_dir"
            )
        self.model.set_weights(weights)
        optimizer.iterations = iterations
        optimizer.kept = {names[at]: of_weight for at, of_weight in slots.items()}
        if optimizer.learning_rate != rate:
            optimizer.learning_rate = rate
        self.initial_epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        # The keys are positions: the names of layers are numbered anew in each process.
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
