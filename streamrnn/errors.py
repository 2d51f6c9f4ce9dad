"""All exceptions of streamrnn; the page `errors` of the guide is a table of them.

A class may also inherit from a builtin exception. `exit_code` is the code with which the command
line exits.
"""

from typing import Self

from streamrnn.base.display import without_credentials

__all__ = [
    "AlreadyProcessed",
    "ArgumentError",
    "CheckpointError",
    "ConfigError",
    "ConfigFileMissingError",
    "DTypeError",
    "DataError",
    "DivergedError",
    "EngineError",
    "LateRowError",
    "MissingFileError",
    "ModelFileError",
    "ModelMismatchError",
    "NotFiniteError",
    "PipeClosed",
    "PositionError",
    "PublishError",
    "ShapeError",
    "SinkError",
    "StateError",
    "StreamRNNError",
    "UnsupportedError",
]


def __dir__() -> list[str]:
    return __all__


class StreamRNNError(Exception):
    """Any error that streamrnn raises on purpose. Its texts show URIs without credentials."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_credentials(a) if isinstance(a, str) else a for a in args))


class ConfigError(StreamRNNError, ValueError):
    """The pipeline file, an override or an argument is invalid."""

    exit_code = 78


class ConfigFileMissingError(ConfigError, FileNotFoundError):
    """The pipeline file does not exist."""

    exit_code = 66


class ModelMismatchError(ConfigError):
    """The model does not fit the pipeline: input width, kind of window, state."""


class ShapeError(StreamRNNError, ValueError):
    """The shape of an array is invalid."""

    exit_code = 78


class DTypeError(StreamRNNError, TypeError):
    """The type of an array or a column cannot be used without loss."""

    exit_code = 65


class UnsupportedError(StreamRNNError, ValueError):
    """A layer, an option, an operator or a system is not supported."""

    exit_code = 78


class ArgumentError(UnsupportedError, TypeError):
    """An argument of a layer is unknown, invalid or not supported."""


class DataError(StreamRNNError, ValueError):
    """A row, a column or a file breaks the contract of the pipeline.

    `number` is the number of the row in the input of a run on several shards, None elsewhere.
    """

    exit_code = 65
    number: int | None = None

    def at(self, number: int | None) -> Self:
        """Set `number`; return the error itself."""
        self.number = number
        return self


class DivergedError(DataError):
    """A loss, or the norm of a gradient, is not finite.

    `step`: inside a fit, first the lane and step of the output, later the numbers of the row and of
    the stream. The error that `Pipeline.fit` raises names row and stream in its text, and has a
    `step` of (0, 0).
    """

    def __init__(self, what: str, step: tuple[int, int] = (0, 0)) -> None:
        super().__init__(what)
        self.step = step


class NotFiniteError(DataError):
    """An output or a new state of a model is NaN or infinite for finite features.

    `reasons`: number of a row in its record batch -> reason, for the first such row of each stream.
    """

    def __init__(self, what: str, reasons: dict[int, str] | None = None) -> None:
        super().__init__(what)
        self.reasons = reasons or {}


class LateRowError(DataError):
    """A row is earlier than its stream's last time.

    `what` says which row is late and by how much, `advice` how to fix it; `file` is the path of
    the row's file, `last` the stream's last time in ticks.
    """

    def __init__(self, what: str, advice: str, file: str, last: int) -> None:
        super().__init__(what, advice, file, last)
        self.what = what
        self.file = file
        self.last = last

    def __str__(self) -> str:
        return f"{self.what} {self.args[1]}"

    def because(self, advice: str) -> "LateRowError":
        """Return the same error with other advice."""
        return LateRowError(self.what, advice, self.file, self.last).at(self.number)

    def cured_by_sorting(self) -> "LateRowError":
        """Return the same error with the advice to sort the file."""
        cure = (
            'Sorted by time, its file has no late row: [source] sort = "file" reads the file '
            "in that order (for an output that has rows, with --full-refresh)."
        )
        return self if cure in self.args[1] else self.because(f"{cure} {self.args[1]}")


class ModelFileError(DataError):
    """A model file is damaged, or its content does not match its name."""


class StateError(StreamRNNError, ValueError):
    """A state or a state table belongs to another model, config or output."""

    exit_code = 78


class MissingFileError(StreamRNNError, FileNotFoundError):
    """An input (model, source, output folder, state table) does not exist or holds no file."""

    exit_code = 66


class CheckpointError(StreamRNNError, RuntimeError):
    """An output or fit is damaged, locked, or not of this job; a checkpoint is another job's."""


class SinkError(StreamRNNError, OSError):
    """The output cannot be written."""


class PublishError(StreamRNNError, OSError):
    """The commit is complete, but a table of [publish] does not match it.

    The next run or session, or `streamrnn publish`, updates it once the cause is fixed.
    `summary`: the summary of a run; None elsewhere.
    """

    exit_code = 75
    summary: object = None


class EngineError(StreamRNNError, RuntimeError):
    """The workers of an engine cannot be started or reached, or died repeatedly.

    It is also raised if a process dies that fits one of several seeds.
    """


class AlreadyProcessed(StreamRNNError, ValueError):  # noqa: N818 - a caller may go past it
    """The position of a batch equals the last one; nothing was scored.

    `position` is the batch's position, `last` the last one before it, a dict with all partitions if
    positions are dicts.
    """

    exit_code = 65

    def __init__(self, position: object, last: object) -> None:
        super().__init__(position, last)
        self.position = position
        self.last = last

    def __str__(self) -> str:
        return (
            f"process: position {self.position!r} equals the last one; nothing was scored. A batch "
            "that is sent again can be skipped; other rows need a later position."
        )


class PositionError(StreamRNNError, ValueError):
    """The position of a batch is not after the last one; nothing was scored.

    Its rows may or may not have been scored before. If positions are dicts, the position of each
    partition has to be after the partition's last one. `position` and `last`: as in
    AlreadyProcessed.
    """

    exit_code = 65

    def __init__(self, position: object, last: object) -> None:
        super().__init__(position, last)
        self.position = position
        self.last = last

    def __str__(self) -> str:
        last, advice = self.last, ""
        if isinstance(last, dict) and isinstance(self.position, dict):
            last = {name: last[name] for name in self.position if name in last}
            advice = " Partitions can be sent in batches of their own."
        elif isinstance(last, list):
            advice = " A list is one sequence: positions of partitions belong in a dict."
        return (
            f"process: expected a position after the last one, {last!r}, received "
            f"{self.position!r}; nothing was scored. Whether rows of this batch were scored before "
            "is not known here: look for them in the output. Skip those that are there, and send "
            f"the others at a position after the last one.{advice}"
        )


class PipeClosed(StreamRNNError):  # noqa: N818 - not a failure: the reader has read enough
    """The reader of the output closed the pipe (`| head`); the command exits quietly with 0."""

    exit_code = 0
