"""History and ProgbarLogger: the callbacks that every fit has."""

from typing import Any

import numpy as np

from streamrnn.nn.training.callbacks.callback import Callback, Logs


class History(Callback):
    """What `fit` returns: `epoch`, the numbers, and `history`, a list per loss and metric.

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
    """Return a number, or the numbers of a metric that has one for each class."""
    if np.ndim(value):
        return f"[{', '.join(_text(item) for item in value)}]"
    return f"{value:.4g}"
