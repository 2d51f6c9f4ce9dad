"""The loop over epochs of every fit: of `Model.fit`, and of `Pipeline.fit`.

What is decided from epoch to epoch is decided by callbacks: EarlyStopping has the best weights and
ends a fit, ReduceLROnPlateau lowers the learning rate, History has the rows of all epochs.
"""

from typing import Any, Protocol

from streamrnn.nn.training.callbacks import CallbackList


class Epochs(Protocol):
    """What a fit does in an epoch."""

    @property
    def stop_training(self) -> bool:
        """Whether no epoch follows, as a callback decided."""

    def begin(self, epoch: int) -> None:
        """Get ready, before callbacks hear of the epoch."""

    def train(self, epoch: int) -> dict[str, Any] | None:
        """Update the weights; return losses and metrics, or None if the fit is interrupted."""

    def judge(self, epoch: int) -> dict[str, Any]:
        """Return what the epoch has besides: losses and metrics of a validation, if there is one.

        Their names begin with "val_".
        """


def run_epochs(fit: Epochs, calls: CallbackList, first: int, epochs: int) -> bool:
    """Train from epoch `first`, or the one that a callback restored, to `epochs` or the stop.

    Returns False if the fit was interrupted.
    """
    logs: dict[str, Any] = {}
    calls.on_train_begin()
    for epoch in range(max(first, calls.initial_epoch), epochs):
        fit.begin(epoch)
        calls.on_epoch_begin(epoch)
        trained = fit.train(epoch)
        if trained is None:
            return False
        logs = trained | fit.judge(epoch)
        calls.on_epoch_end(epoch, logs)
        if fit.stop_training:
            break
    calls.on_train_end(logs)
    return True
