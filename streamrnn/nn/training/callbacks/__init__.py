"""Callbacks of fit and evaluate, with the names, arguments, defaults and order of Keras 3.

Where Keras only warns, as about a monitored name that is not reported, an error is raised here.
"""

from streamrnn.nn.training.callbacks.callback import (
    Callback,
    CallbackList,
    CSVLogger,
    History,
    LambdaCallback,
    ProgbarLogger,
)
from streamrnn.nn.training.callbacks.checkpoint import BackupAndRestore, ModelCheckpoint
from streamrnn.nn.training.callbacks.monitor import (
    EarlyStopping,
    LearningRateScheduler,
    ReduceLROnPlateau,
    TerminateOnNaN,
)

__all__ = [
    "BackupAndRestore", "CSVLogger", "Callback", "CallbackList", "EarlyStopping", "History",
    "LambdaCallback", "LearningRateScheduler", "ModelCheckpoint", "ProgbarLogger",
    "ReduceLROnPlateau", "TerminateOnNaN",
]  # fmt: skip
