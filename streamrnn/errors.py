"""The exception tree.

::

    StreamRNNError                                exit
    ├── ConfigError (ValueError)                  78  the pipeline file or an argument is wrong
    │   └── ModelMismatchError                    78  model and pipeline do not fit each other
    ├── ShapeError (ValueError)                   78  an array has the wrong shape
    ├── DTypeError (TypeError)                    65  an array or column has the wrong type
    ├── UnsupportedError (ValueError)             78  a layer, option or system we do not have
    ├── DataError (ValueError)                    65  data broke the contract
    │   └── ModelFileError                        65  a model file is damaged or not what it says
    ├── StateError (ValueError)                   78  a state table does not belong here
    ├── MissingFileError (FileNotFoundError)      65  a file that was named is not there
    ├── CheckpointError (RuntimeError)             1  an output folder is damaged or in use
    └── SinkError (OSError)                        1  output cannot be written

Every one is also the builtin that a caller would guess; `exit_code` is what the command line
returns for it.
"""


class StreamRNNError(Exception):
    """Anything that streamrnn raises on purpose."""

    exit_code = 1


class ConfigError(StreamRNNError, ValueError):
    """The pipeline file, an override or an argument is wrong."""

    exit_code = 78


class ModelMismatchError(ConfigError):
    """The model does not fit the pipeline: input width, kind of window, state."""


class ShapeError(StreamRNNError, ValueError):
    """An array has the wrong shape."""

    exit_code = 78


class DTypeError(StreamRNNError, TypeError):
    """An array or a column has a type that cannot be used without loss."""

    exit_code = 65


class UnsupportedError(StreamRNNError, ValueError):
    """A layer, an option, an operator or a system that streamrnn does not have."""

    exit_code = 78


class DataError(StreamRNNError, ValueError):
    """A row, a column or a file breaks the contract of the pipeline."""

    exit_code = 65


class LateRowError(DataError):
    """A row is before its stream's last time.

    `what` says where and by how much, `advice` what to do; `file` is the path of the row's file,
    `last` the stream's last time in ticks.
    """

    def __init__(self, what: str, advice: str, file: str, last: int) -> None:
        super().__init__(what, advice, file, last)
        self.what = what
        self.file = file
        self.last = last

    def __str__(self) -> str:
        return f"{self.what} {self.args[1]}"

    def because(self, advice: str) -> "LateRowError":
        """The same error with other advice."""
        return LateRowError(self.what, advice, self.file, self.last)


class ModelFileError(DataError):
    """A model file is damaged, or not what it says it is."""


class StateError(StreamRNNError, ValueError):
    """A state or a state table belongs to something else."""

    exit_code = 78


class MissingFileError(StreamRNNError, FileNotFoundError):
    """A file that was named is not there."""

    exit_code = 65


class CheckpointError(StreamRNNError, RuntimeError):
    """An output folder is damaged, in use, or belongs to something else."""


class SinkError(StreamRNNError, OSError):
    """The output cannot be written."""
