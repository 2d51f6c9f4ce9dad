"""The engines of a run: one shard and one loop in this process, or shards on workers."""

from collections.abc import Callable

import pyarrow as pa

from streamrnn.base.plugin import load_plugin
from streamrnn.jobs.engines.probe import FolderToken
from streamrnn.jobs.engines.shard import OutputPlace
from streamrnn.jobs.engines.sharded import ShardedEngine, Tasks
from streamrnn.nn.kernels import get_threads
from streamrnn.stream.checkpoints import OutputFolder
from streamrnn.stream.scoring import BoundPipeline, Loop, RowSink, RunOptions, Scorer, Summary
from streamrnn.stream.sources import Content, FileSource, Position, Source
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
        """The state of all streams."""
        return self._loop.scorer.table

    @property
    def streams(self) -> int:
        """Number of streams."""
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

        `before` is the content of the rows before `start` in the same file; `total` is the number
        of rows of the run, if known, for the progress. With `last` the run ends with these rows,
        unless it is stopped before.
        """
        self._loop.total_rows = total
        self._loop.run(source.batches(start, before), target, last=last)

    def end(self, target: RowSink) -> None:
        """End a run that was not ended by `run(…, last=True)`."""
        self._loop.end(target)

    def close(self) -> None:
        """Do nothing: there are no workers to release."""


def open_engine(
    bound: BoundPipeline,
    source: FileSource,
    folder: OutputFolder,
    summary: Summary,
    options: RunOptions,
    committed: Callable[[], None],
    state: Callable[[], pa.Table],
) -> ShardedEngine:
    """Start or join the cluster of [engine] address, check its nodes, and return an engine on it.

    `state` returns the state table to start from; it is not called if each shard can read its own
    state from the output. Raises UnsupportedError without the engine's plug-in; ConfigError if Ray
    is not installed, or if a node does not see the source or the output; EngineError if there is no
    such cluster.
    """
    config = bound.loaded.config
    engine: Callable[[str, int], Tasks]
    engine = load_plugin("engine", options.engine or config.engine.type)
    tasks = engine(config.engine.address, config.model.threads or get_threads())
    try:
        tasks.begin(bound, source)
        with folder.rows.token() as token:
            tasks.check_nodes(
                OutputPlace.of(config), FolderToken(*token), next(iter(source.files), None)
            )
        manifest = folder.manifest
        last = 0 if manifest is None else len(manifest.shards)
        shards = config.engine.shards or (last if last > 1 else 2 * tasks.workers)
        same_model = manifest is not None and manifest.model == bound.loaded.fingerprint
        table = None if same_model and shards == last else state()
        return ShardedEngine(
            tasks, bound, folder, summary, options, committed, table=table, shards=shards
        )
    except BaseException:
        tasks.close()
        raise
