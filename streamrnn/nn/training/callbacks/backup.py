"""BackupAndRestore: a fit that is interrupted resumes with the epoch after the last whole one."""

import json
import os
import secrets
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError, CheckpointError, ModelMismatchError
from streamrnn.nn.training.callbacks.callback import Callback, Logs


class BackupAndRestore(Callback):
    """Writes weights, optimizer and epoch after each epoch, and continues from there.

    The same call of fit after an interruption gives the weights of an undisturbed one, bit for bit,
    if other callbacks keep nothing from epoch to epoch. The file backup_dir/latest.npz is replaced
    as a whole; delete_checkpoint: it is removed at the end of a fit. save_freq must be "epoch";
    double_checkpoint: no effect, as a file is never half written.
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: Any = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if save_freq != "epoch":
            raise ArgumentError(
                f"BackupAndRestore: save_freq={save_freq!r} is not supported; it must be 'epoch', "
                "as a fit continues with a whole epoch"
            )
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq, self.double_checkpoint = save_freq, double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self.initial_epoch = 0

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.backup_dir) / "latest.npz"

    def on_train_begin(self, logs: Logs = None) -> None:
        """Restore the last backup, if there is one. Raises ModelMismatchError if it is another's.

        The fit then begins with `initial_epoch`.
        """
        self.initial_epoch = 0
        if not self.path.exists():
            return
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays.pop("facts")))
        except (OSError, ValueError, LookupError, BadZipFile) as error:
            raise CheckpointError(
                f"{self.path}: damaged, or no backup ({error}); remove it to start over"
            ) from None
        names, optimizer = list(self.model.named_weights()), self.model.optimizer
        shapes = [list(weight.shape) for weight in self.model.weights]
        if facts["shapes"] != shapes or facts["optimizer"] != type(optimizer).__name__:
            raise ModelMismatchError(
                f"{self.path} is the backup of a model or an optimizer ({facts['optimizer']}) "
                f"other than {self.model}; remove it, or set another backup_dir"
            )
        self.model.set_weights([arrays[f"weight/{at}"] for at in range(len(names))])
        optimizer.iterations = facts["iterations"]
        optimizer.kept = {
            names[int(at)]: [arrays[f"slot/{at}/{number}"] for number in range(count)]
            for at, count in facts["slots"].items()
        }
        if optimizer.learning_rate != facts["learning_rate"]:
            optimizer.learning_rate = facts["learning_rate"]
        self.initial_epoch = facts["epoch"]

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        # By position: names of layers are numbered anew in each process.
        weights, optimizer = self.model.named_weights(), self.model.optimizer
        slots = {at: optimizer.kept.get(name, []) for at, name in enumerate(weights)}
        facts = {
            "epoch": epoch + 1,
            "iterations": optimizer.iterations,
            "learning_rate": optimizer.learning_rate,
            "optimizer": type(optimizer).__name__,
            "shapes": [list(weight.shape) for weight in weights.values()],
            "slots": {at: len(found) for at, found in slots.items() if found},
        }
        arrays: dict[str, Array] = {"facts": np.array(json.dumps(facts))}
        arrays |= {f"weight/{at}": weight for at, weight in enumerate(weights.values())}
        for at, found in slots.items():
            arrays |= {f"slot/{at}/{number}": slot for number, slot in enumerate(found)}
        self._write(arrays)

    def _write(self, arrays: dict[str, Array]) -> None:
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
