"""Callbacks of fit and evaluate, with the names, arguments, defaults and order of Keras 3.

What Keras warns of, such as a monitored name that is not reported, is an error here.
"""

from streamrnn.training.callbacks.backup import BackupAndRestore
from streamrnn.training.callbacks.callback import Callback, LambdaCallback
from streamrnn.training.callbacks.checkpoint import ModelCheckpoint
from streamrnn.training.callbacks.csv_logger import CSVLogger
from streamrnn.training.callbacks.early_stopping import EarlyStopping
from streamrnn.training.callbacks.history import History, ProgbarLogger
from streamrnn.training.callbacks.listing import CallbackList
from streamrnn.training.callbacks.monitor import TerminateOnNaN
from streamrnn.training.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau

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
