"""Callbacks of fit and evaluate, with the names, arguments, defaults and order of Keras 3.

Where Keras only warns, as about a monitored name that is not reported, an error is raised here.
"""

from streamrnn.nn.training.callbacks.callback import Callback, LambdaCallback
from streamrnn.nn.training.callbacks.checkpoint import BackupAndRestore, ModelCheckpoint
from streamrnn.nn.training.callbacks.history import CSVLogger, History, ProgbarLogger
from streamrnn.nn.training.callbacks.listing import CallbackList
from streamrnn.nn.training.callbacks.monitor import EarlyStopping, TerminateOnNaN
from streamrnn.nn.training.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
