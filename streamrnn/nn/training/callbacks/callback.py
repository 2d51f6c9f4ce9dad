"""Callback, the base of callbacks, and LambdaCallback, a callback made of functions."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError

Logs: TypeAlias = dict[str, Any] | None
"""The loss and metrics of an epoch, or of its batches so far, by name."""

TRAIN = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
TEST = ("on_test_batch_begin", "on_test_batch_end")
METHODS = (
    *TRAIN,
    *TEST,
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_epoch_end",
    "on_test_begin",
    "on_test_end",
)


class Callback:
    """The base of callbacks. Its methods do nothing.

    model: the model that is trained or evaluated; `model.stop_training = True` ends a fit after
    this batch or epoch. params: "verbose", "epochs", "steps" (batches of an epoch, None if unknown)
    and "validation" (whether a fit has validation data).
    """

    def __init__(self) -> None:
        self.params: Mapping[str, Any] | None = None
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model that is trained or evaluated."""
        return self._model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Receive the parameters of the call."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Receive the model."""
        self._model = model

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Older name of on_train_batch_begin."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Older name of on_train_batch_end."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before an epoch of training; epochs count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch and its validation, whose logs begin with "val_"."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before an update of the weights; batches count from 0 in each epoch."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After an update of the weights; logs cover the epoch so far."""
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch of an evaluation or validation."""

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch of an evaluation or validation; logs cover the batches so far."""

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After the last epoch, with its logs; not called if an exception ends the fit."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Before an evaluation or validation."""

    def on_test_end(self, logs: Logs = None) -> None:
        """After an evaluation or validation."""


class LambdaCallback(Callback):
    """A callback made of functions, called with the arguments of the methods of these names."""

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Logs], Any] | None = None,
        on_epoch_end: Callable[[int, Logs], Any] | None = None,
        on_train_begin: Callable[[Logs], Any] | None = None,
        on_train_end: Callable[[Logs], Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Callable[..., Any],
    ) -> None:
        super().__init__()
        for name in kwargs:
            if name not in METHODS:
                near = closest(name, METHODS)
                raise ArgumentError(
                    f"LambdaCallback: unknown method {name!r}"
                    f"{f'; did you mean {near!r}' if near else ''}? Known: {', '.join(METHODS)}"
                )
        functions = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        # As attributes of this object, they hide the methods of the class.
        self.__dict__.update({name: f for name, f in functions.items() if f is not None})
