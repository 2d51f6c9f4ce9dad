"""Windows of a pipeline's source, without a run."""

from __future__ import annotations

from streamrnn.errors import ConfigError
from streamrnn.jobs.preflight import bound_target, open_source, plan_first_run, with_target
from streamrnn.stream.scoring import (
    LoadedPipeline,
    RunOptions,
    Scorer,
    SourceWindows,
    starting_table,
    target_columns,
)


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
