"""The loop over epochs of every fit: of `Model.fit`, and of `Pipeline.fit`.

Decisions between epochs are made by callbacks: EarlyStopping keeps the best weights and ends a fit,
ReduceLROnPlateau lowers the learning rate.
"""

from typing import Any, Protocol

from streamrnn.nn.training.callbacks import CallbackList


class Epochs(Protocol):
    """What a fit does in an epoch."""

    def start(self) -> int:
        """Return the first epoch, after callbacks forgot an earlier fit."""

    def begin(self, epoch: int) -> None:
        """Prepare, before callbacks are told of the epoch."""

    def train(self, epoch: int) -> dict[str, Any] | None:
        """Update the weights; return losses and metrics, or None if the fit is interrupted."""

    def judge(self, epoch: int) -> dict[str, Any]:
        """Return further values of the epoch.

        Losses and metrics of a validation have names with `val_`; others are figures of the epoch.
        """

    def end(self, epoch: int, logs: dict[str, Any]) -> bool:
        """Return whether another epoch may follow, after callbacks were told of this one.

        `logs` is what `train` and `judge` returned.
        """


def run_epochs(fit: Epochs, calls: CallbackList, epochs: int) -> bool:
    """Train up to `epochs`, or until a callback ends the fit; return False if interrupted."""
    logs: dict[str, Any] = {}
    calls.on_train_begin()
    for epoch in range(fit.start(), epochs):
        fit.begin(epoch)
        calls.on_epoch_begin(epoch)
        trained = fit.train(epoch)
        if trained is None:
            return False
        logs = trained | fit.judge(epoch)
        calls.on_epoch_end(epoch, logs)
        if not fit.end(epoch, logs):
            break
    calls.on_train_end(logs)
    return True
