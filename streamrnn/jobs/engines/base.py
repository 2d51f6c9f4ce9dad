"""The interface of an engine, which scores the rows of a run."""

from typing import Any, Protocol

from streamrnn.stream.sources import Content, Position, Source
from streamrnn.stream.states import StateTable


class Engine(Protocol):
    """Scores the rows of a run into a target, and makes the commits.

    `table` is the state so far, None if only the output has it.
    """

    @property
    def table(self) -> StateTable | None:
        """The state of all streams so far; None if only the output has it."""

    @property
    def streams(self) -> int:
        """Number of streams so far."""

    @property
    def streams_before(self) -> int:
        """Number of streams at the start of the run."""

    def run(
        self,
        source: Source,
        start: Position | None,
        before: Content,
        target: Any,
        total: int | None,
        *,
        last: bool,
    ) -> None:
        """Score the rows of the source from `start` on and commit them.

        `before` is the content of the rows before `start`, `target` that of the destination,
        `total` the rows of the run, if known, for the progress. With `last` the run ends with these
        rows, unless it is stopped before.
        """

    def end(self, target: Any) -> None:
        """End a run that was not ended by `run(…, last=True)`."""

    def close(self) -> None:
        """Release what was started for the run."""
