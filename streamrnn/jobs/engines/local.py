"""Score all streams in this process: one shard, one loop."""

from collections.abc import Callable

from streamrnn.stream.scoring import Loop, RowSink, RunOptions, Scorer, Summary
from streamrnn.stream.sources import Content, Position, Source
from streamrnn.stream.states import StateTable


class LocalEngine:
    """Scores the record batches of a run into a target, which makes the commits.

    A commit is made every `every` record batches (0: one at the end); `committed` is called after
    each. `summary` is updated in place.
    """

    def __init__(
        self,
        scorer: Scorer,
        summary: Summary,
        options: RunOptions,
        every: int,
        committed: Callable[[], None],
    ) -> None:
        self._loop = Loop(scorer, summary, options, every, committed, judges=not options.force)

    @property
    def table(self) -> StateTable:
        """The state of all streams so far."""
        return self._loop.scorer.table

    @property
    def streams(self) -> int:
        """Number of streams so far."""
        return len(self.table)

    @property
    def streams_before(self) -> int:
        """Number of streams at the start of the run."""
        return self._loop.streams_before

    def run(
        self,
        source: Source,
        start: Position | None,
        before: Content,
        target: RowSink,
        total: int | None,
        *,
        last: bool,
    ) -> None:
        """Score the rows of the source from `start` on and commit them.

        `before` is the content of the rows before `start`, `total` the rows of the run, if known,
        for the progress. With `last` the run ends with these rows, unless it is stopped before.
        """
        self._loop.total_rows = total
        self._loop.run(source.batches(start, before), target, last=last)

    def end(self, target: RowSink) -> None:
        """End a run that was not ended by `run(…, last=True)`."""
        self._loop.end(target)

    def close(self) -> None:
        """Do nothing: this process goes on."""
