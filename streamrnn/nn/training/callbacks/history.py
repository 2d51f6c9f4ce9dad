"""History, ProgbarLogger and CSVLogger: logs of epochs, kept, printed or written to a file."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.errors import SinkError
from streamrnn.nn.training.callbacks.callback import Callback, Logs


class History(Callback):
    """The result of `fit`: `epoch`, a list of numbers, and `history`, a list per loss and metric.

    Callbacks may add lists to `history`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class ProgbarLogger(Callback):
    """Prints a line at the end of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        values = " - ".join(f"{name}: {_text(value)}" for name, value in (logs or {}).items())
        epochs = (self.params or {}).get("epochs", 1)
        print(f"Epoch {epoch + 1}/{epochs} - {values}", flush=True)


def _text(value: Any) -> str:
    """Format a number, or the numbers of a metric that has one for each class."""
    if np.ndim(value):
        return f"[{', '.join(_text(item) for item in value)}]"
    return f"{value:.4g}"


class CSVLogger(Callback):
    """Writes a line per epoch, in the layout of Keras; the file is complete after each epoch.

    append: add to an existing file, without a second header. The first epoch sets the columns,
    sorted; if none begins with "val_", such columns are added (for epochs with a validation). NA:
    no value. Raises SinkError in the first epoch if the file has other columns (Keras mixes them
    up).
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__()
        self.filename, self.sep, self.append = os.fspath(filename), separator, append
        self.keys: list[str] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Empty the file, unless it is appended to. Raises SinkError if its folder is missing."""
        self.keys = None
        path = Path(self.filename)
        if not path.absolute().parent.is_dir():
            raise SinkError(f"{path}: the folder {path.parent} does not exist; create it first")
        with path.open("a" if self.append else "w"):
            pass

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = logs or {}
        if self.keys is None:
            self.keys = sorted(logs)
            if not any(key.startswith("val_") for key in self.keys):
                self.keys += [f"val_{key}" for key in self.keys]
            self._refuse_other_columns(["epoch", *self.keys])
        with Path(self.filename).open("a", newline="") as file:
            writer = csv.writer(file, delimiter=self.sep)
            if file.tell() == 0:
                writer.writerow(["epoch", *self.keys])
            writer.writerow([epoch, *(_cell(logs.get(key, "NA")) for key in self.keys)])

    def _refuse_other_columns(self, columns: list[str]) -> None:
        with Path(self.filename).open(newline="") as file:
            header = next(csv.reader(file, delimiter=self.sep), columns)
        if header != columns:
            raise SinkError(
                f"{self.filename}: expected the columns {', '.join(columns)}, as this fit reports "
                f"them, received {', '.join(header)}. Append to another file, or set append=False"
            )


def _cell(value: Any) -> Any:
    """Format a number; numbers of classes as Keras writes them, "[a, b]" with its quotes."""
    return f'"[{", ".join(map(str, value))}]"' if np.ndim(value) else value
