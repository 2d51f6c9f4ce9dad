"""Rows of a source without a run: the first ones scored, or all of them in windows."""

import pyarrow as pa

from streamrnn.errors import ConfigError
from streamrnn.jobs.preflight import (
    bound_target,
    logged_table,
    open_source,
    plan_first_run,
    with_target,
)
from streamrnn.stream.scoring import (
    LoadedPipeline,
    RunOptions,
    Scorer,
    SourceWindows,
    starting_table,
    target_columns,
)


def preview_rows(loaded: LoadedPipeline, limit: int) -> pa.Table:
    """Score the first `limit` rows of the source: see `Pipeline.preview`."""
    rows = min(limit, loaded.config.source.batch_rows)
    source = open_source(loaded, RunOptions(), rows)
    if not source.replayable:
        raise ConfigError("--limit needs a source that can be read again, not stdin")
    bound, plan = plan_first_run(loaded, source)
    scorer = Scorer(bound, logged_table(bound))
    outputs, left = [], limit
    for item in source.batches(plan.position, plan.before):
        batch = item.batch.slice(0, left)
        read = loaded.contract.read(batch, item.origin)
        outputs.append(scorer.score(read).output)
        left -= batch.num_rows
        if not left:
            break
    outputs += scorer.finish()
    return pa.Table.from_batches(outputs, bound.emitter.schema)


def source_windows(loaded: LoadedPipeline) -> SourceWindows:
    """Open the source and iterate over its windows: see `Pipeline.windows`."""
    if not loaded.kind.carries_state:
        raise ConfigError(
            f'windows: lanes do not continue in kind "{loaded.kind.name}"; remove [window] kind'
        )
    if loaded.config.source.path is None:
        raise ConfigError("windows: [source] path is missing")
    columns = target_columns(loaded)
    source = open_source(loaded, RunOptions(), also=() if columns is None else columns.names)
    bound, plan = plan_first_run(loaded, source)
    if (files := source.of_files) is None:
        target = bound_target(bound, source)
    else:
        source, target = with_target(bound, files)
    batches = source.batches(plan.position, plan.before)
    return SourceWindows(Scorer(bound, starting_table(bound, None, "")), batches, target)
