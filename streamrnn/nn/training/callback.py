"""Bases of callbacks; callbacks that keep, print or write the logs of epochs.

CallbackList calls all callbacks of a fit or an evaluation in their order.
"""

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from streamrnn.base.display import not_one_of
from streamrnn.errors import ArgumentError, SinkError

Logs: TypeAlias = dict[str, Any] | None
"""The loss and metrics of an epoch, or of its batches so far, by name."""

TRAIN = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
TEST = ("on_test_batch_begin", "on_test_batch_end")


class Callback:
    """The base of callbacks; its methods for events do nothing.

    model: the model that is trained or evaluated; `model.stop_training = True` ends a fit after
    this batch or epoch. params: "verbose", "epochs", "steps" (batches of an epoch, None if unknown)
    and "validation" (whether a fit has validation data).
    """

    params: Mapping[str, Any] | None = None
    _model: Any = None

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
        """Before an epoch of training; epochs are numbered from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch and any validation; names of validation values begin with "val_"."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before an update of the weights; batches are numbered from 0 in each epoch."""
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


METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class LambdaCallback(Callback):
    """A callback made of functions: each is called as the method of the same name would be."""

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
        for name in kwargs:
            if name not in METHODS:
                raise ArgumentError(not_one_of(f"LambdaCallback: method {name!r}", METHODS, name))
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


class History(Callback):
    """The result of `fit`: `epoch` lists the epochs, `history` has a list for each loss and metric.

    Values that callbacks add to the logs, such as "learning_rate", have a list in `history`, too.
    """

    def __init__(self) -> None:
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
    """Format a number, or the array of a metric with a value for each class."""
    if np.ndim(value):
        return f"[{', '.join(_text(item) for item in value)}]"
    return f"{value:.4g}"


class CSVLogger(Callback):
    """Writes a line per epoch, in the layout of Keras; the file is complete after each epoch.

    append: add to an existing file, without a second header. The columns are "epoch" and the sorted
    names in the logs of the first epoch; if no name begins with "val_", a "val_" column is added
    for each name (for later epochs with a validation). NA stands for a missing value. Raises
    SinkError after the first epoch if the file has other columns (Keras would mix the columns up).
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        self.filename, self.sep, self.append = os.fspath(filename), separator, append
        self.keys: list[str] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Empty the file, or create it. Raises SinkError if the file's folder is missing.

        With `append`, an existing file is left as it is.
        """
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
            columns = ["epoch", *self.keys]
            with Path(self.filename).open(newline="") as file:
                header = next(csv.reader(file, delimiter=self.sep), columns)
            if header != columns:
                raise SinkError(
                    f"{self.filename}: expected the columns {', '.join(columns)}, as this fit "
                    f"reports them, received {', '.join(header)}. Append to another file, or set "
                    "append=False"
                )
        with Path(self.filename).open("a", newline="") as file:
            writer = csv.writer(file, delimiter=self.sep)
            if file.tell() == 0:
                writer.writerow(["epoch", *self.keys])
            writer.writerow([epoch, *(_cell(logs.get(key, "NA")) for key in self.keys)])


def _cell(value: Any) -> Any:
    """Return a number as it is, and an array as the text "[a, b]" with its quotes, as in Keras."""
    return f'"[{", ".join(map(str, value))}]"' if np.ndim(value) else value


class MonitorCallback(Callback):
    """The base of callbacks that follow a value of the logs.

    monitor: the name of the value. mode: "min", "max", or "auto": "min" for a loss, and for a
    metric the direction of its class. min_delta: an improvement must be larger than this. best: the
    best value so far.
    """

    monitor: str
    mode: str
    min_delta: float = 0
    best: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "min", "max"):
            raise ArgumentError(
                f"{type(self).__name__}: mode must be 'auto', 'min' or 'max', received "
                f"{self.mode!r}"
            )
        self.min_delta = abs(self.min_delta)

    def monitored(self, logs: Logs) -> float | None:
        """Return the monitored value; None in an epoch without the validation that reports it.

        Raises ArgumentError if no epoch reports the value, or if it is an array.
        """
        logs = logs or {}
        if self.monitor in logs:
            value = logs[self.monitor]
            if np.ndim(value):
                raise ArgumentError(
                    f"{type(self).__name__}: monitor={self.monitor!r} has a value for each class, "
                    f"in the shape {np.shape(value)}; make the metric with an average"
                )
            return float(value)
        name = self.monitor.removeprefix("val_")
        if name != self.monitor and name in logs and (self.params or {}).get("validation"):
            return None
        raise ArgumentError(
            f"{type(self).__name__}: monitor={self.monitor!r} is not reported; pass validation "
            f"data, or monitor one of: {', '.join(logs)}"
        )

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than `best`, which is None at first; NaN never is.

        Raises ArgumentError if it is unknown whether larger values are better.
        """
        sign = -1.0 if self._larger_is_better() else 1.0
        if math.isnan(value):
            return False
        return best is None or sign * value < sign * best - self.min_delta

    def _larger_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss") or name == "learning_rate":
            return False
        directions = {
            metric.direction
            for metric in getattr(self.model, "metrics", [])
            if name == metric.name or name.endswith(f"_{metric.name}")
        }
        if len(directions) == 1 and None not in directions:
            return directions == {"up"}
        raise ArgumentError(
            f"{type(self).__name__}: it is unknown whether larger or smaller values of monitor="
            f"{self.monitor!r} are better; pass mode='max' or mode='min'"
        )


class CallbackList(Callback):
    """Callbacks, called one after the other; each sees what earlier ones have changed in `logs`.

    callbacks: a callback, or (nested) lists of callbacks; Keras's callbacks work, too. add_history,
    add_progbar: append a History or ProgbarLogger if there is none. params: for set_params.
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        self.callbacks = list(_flat(callbacks))
        if add_history and self.history is None:
            self.callbacks.append(History())
        if add_progbar and not any(isinstance(c, ProgbarLogger) for c in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        self.hears_train = any(_overrides(c, TRAIN) for c in self.callbacks)
        self.hears_test = any(_overrides(c, TEST) for c in self.callbacks)
        self.set_model(model)
        self.set_params(params)

    @property
    def history(self) -> History | None:
        """The last History among the callbacks."""
        histories = [callback for callback in self.callbacks if isinstance(callback, History)]
        return histories[-1] if histories else None

    @property
    def initial_epoch(self) -> int:
        """The epoch that a callback restored in on_train_begin, else 0."""
        return max((getattr(c, "initial_epoch", 0) for c in self.callbacks), default=0)

    @property
    def restores(self) -> bool:
        """Whether a callback can restore an earlier fit."""
        return any(hasattr(callback, "initial_epoch") for callback in self.callbacks)

    def set_params(self, params: Any) -> None:
        super().set_params(params)
        if params:
            for callback in self.callbacks:
                callback.set_params(params)

    def set_model(self, model: Any) -> None:
        if model is None:
            return
        super().set_model(model)
        if self.history is not None:
            model.history = self.history
        for callback in self.callbacks:
            callback.set_model(model)


def _call_all(name: str) -> Callable[..., None]:
    """Make the method of CallbackList that calls this method of all callbacks, with the same logs.

    As in Keras, the logs of batches are passed by name, and other logs by position.
    """

    def of_batch(self: CallbackList, batch: int, logs: Logs = None) -> None:
        shared = dict(logs or {})
        for callback in self.callbacks:
            getattr(callback, name)(batch, logs=shared)

    def of_epoch(self: CallbackList, epoch: int, logs: Logs = None) -> None:
        shared = dict(logs or {})
        for callback in self.callbacks:
            getattr(callback, name)(epoch, shared)

    def of_fit(self: CallbackList, logs: Logs = None) -> None:
        shared = dict(logs or {})
        for callback in self.callbacks:
            getattr(callback, name)(shared)

    method = of_batch if "batch" in name else of_epoch if "epoch" in name else of_fit
    method.__name__, method.__doc__ = name, getattr(Callback, name).__doc__
    return method


for _name in METHODS:
    setattr(CallbackList, _name, _call_all(_name))


def _flat(callbacks: Any) -> Iterator[Any]:
    if callbacks is None:
        return
    if isinstance(callbacks, list | tuple):
        for callback in callbacks:
            yield from _flat(callback)
    elif isinstance(callbacks, type):
        raise ArgumentError(
            f"callbacks: expected an object, received the class {callbacks.__name__}; call it, as "
            f"in {callbacks.__name__}()"
        )
    elif hasattr(callbacks, "set_model") and hasattr(callbacks, "on_epoch_end"):
        yield callbacks
    else:
        raise ArgumentError(
            "callbacks: expected a Callback, or a list of them, received "
            f"{type(callbacks).__name__}; derive the class from streamrnn.callbacks.Callback"
        )


def _overrides(callback: Any, methods: tuple[str, ...]) -> bool:
    return any(
        name in vars(callback) or getattr(type(callback), name, None) is not getattr(Callback, name)
        for name in methods
    )
