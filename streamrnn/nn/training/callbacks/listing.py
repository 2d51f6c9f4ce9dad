"""CallbackList: calls all callbacks of a fit or an evaluation in their order."""

from collections.abc import Iterator
from typing import Any

from streamrnn.errors import ArgumentError
from streamrnn.nn.training.callbacks.callback import TEST, TRAIN, Callback, Logs
from streamrnn.nn.training.callbacks.history import History, ProgbarLogger


class CallbackList(Callback):
    """Callbacks, called one after the other; changes of `logs` in one are visible to later ones.

    callbacks: a callback, or (nested) lists of them; Keras's callbacks work, too. add_history,
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
        super().__init__()
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
        """Whether a callback restores an earlier fit."""
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

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._call_batch("on_batch_begin", batch, logs)

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._call_batch("on_batch_end", batch, logs)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._call("on_epoch_begin", epoch, dict(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._call("on_epoch_end", epoch, dict(logs or {}))

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._call_batch("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._call_batch("on_train_batch_end", batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self._call_batch("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._call_batch("on_test_batch_end", batch, logs)

    def on_train_begin(self, logs: Logs = None) -> None:
        self._call("on_train_begin", dict(logs or {}))

    def on_train_end(self, logs: Logs = None) -> None:
        self._call("on_train_end", dict(logs or {}))

    def on_test_begin(self, logs: Logs = None) -> None:
        self._call("on_test_begin", dict(logs or {}))

    def on_test_end(self, logs: Logs = None) -> None:
        self._call("on_test_end", dict(logs or {}))

    def _call(self, method: str, *arguments: Any) -> None:
        """Call a method of every callback, with arguments by position, as Keras does."""
        for callback in self.callbacks:
            getattr(callback, method)(*arguments)

    def _call_batch(self, method: str, batch: int, logs: Logs) -> None:
        """Call a method of every callback, with the logs by name, as Keras does."""
        shared = dict(logs or {})
        for callback in self.callbacks:
            getattr(callback, method)(batch, logs=shared)


def _flat(callbacks: Any) -> Iterator[Any]:
    if callbacks is None:
        return
    if isinstance(callbacks, list | tuple):
        for callback in callbacks:
            yield from _flat(callback)
    elif hasattr(callbacks, "set_model") and hasattr(callbacks, "on_epoch_end"):
        yield callbacks
    else:
        raise ArgumentError(
            "callbacks: expected a Callback, or a list of them, received "
            f"{type(callbacks).__name__}; derive the class from streamrnn.callbacks.Callback"
        )


def _overrides(callback: Any, methods: tuple[str, ...]) -> bool:
    """Return whether a callback overrides one of these methods."""
    return any(
        name in vars(callback) or getattr(type(callback), name, None) is not getattr(Callback, name)
        for name in methods
    )
