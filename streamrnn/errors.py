"""The exception tree.

::

    StreamRNNError
    ├── ConfigError      (ValueError)         the pipeline file or an argument is wrong        exit 78
    │   └── ModelMismatchError                model and pipeline do not fit each other         exit 78
    ├── ShapeError       (ValueError)         an array has the wrong shape                     exit 78
    ├── DTypeError       (TypeError)          an array or column has the wrong type            exit 65
    ├── UnsupportedError (ValueError)         a layer, option or operator we do not have       exit 78
    ├── DataError        (ValueError)         data broke the contract                          exit 65
    │   └── ModelFileError                    a model file is damaged or not what it says      exit 65
    ├── StateError       (ValueError)         a state table does not belong here               exit 78
    ├── MissingFileError (FileNotFoundError)  a file that was named is not there               exit 65
    ├── CheckpointError  (RuntimeError)       an output folder is damaged, in use or foreign   exit 1
    └── SinkError        (OSError)            output cannot be written                         exit 1

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
    """A layer, an option or an operator that streamrnn does not have."""

    exit_code = 78


class DataError(StreamRNNError, ValueError):
    """A row, a column or a file breaks the contract of the pipeline."""

    exit_code = 65


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
