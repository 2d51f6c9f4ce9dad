"""Start the workers that a pipeline file names, and an engine on them."""

from collections.abc import Callable

import pyarrow as pa

from streamrnn.base.plugin import load_plugin
from streamrnn.jobs.engines.probe import FolderToken
from streamrnn.jobs.engines.shard import OutputPlace
from streamrnn.jobs.engines.sharded import ShardedEngine, Tasks
from streamrnn.nn.kernels import get_threads
from streamrnn.stream.checkpoints import OutputFolder
from streamrnn.stream.scoring import BoundPipeline, RunOptions, Summary
from streamrnn.stream.sources import SourceOfFiles


def open_engine(
    bound: BoundPipeline,
    source: SourceOfFiles,
    folder: OutputFolder,
    summary: Summary,
    options: RunOptions,
    committed: Callable[[], None],
    state: Callable[[], pa.Table],
) -> ShardedEngine:
    """Start or join the cluster of [engine] address, check its nodes, and return an engine on it.

    `state` returns the state table to start from; it is not called if each shard can read its own
    from the output. Raises ConfigError if Ray is not installed, or if a node does not see the
    source or the output; EngineError if there is no such cluster.
    """
    config = bound.loaded.config
    engine: Callable[[str, int], Tasks]
    engine = load_plugin("engine", options.engine or config.engine.type)
    tasks = engine(config.engine.address, config.model.threads or get_threads())
    try:
        tasks.begin(bound, source)
        with folder.token() as token:
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
