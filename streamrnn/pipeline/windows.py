"""Windows of a pipeline's source, without a run."""

from __future__ import annotations

from streamrnn.errors import ConfigError
from streamrnn.pipeline.preflight import open_source, plan_first_run
from streamrnn.scoring import LoadedPipeline, RunOptions, Scorer, SourceWindows, starting_table


def source_windows(loaded: LoadedPipeline) -> SourceWindows:
    """Open the source and iterate over its windows: see `Pipeline.windows`."""
    if not loaded.kind.carries_state:
        raise ConfigError(
            f'windows: lanes do not continue in kind "{loaded.kind.name}"; remove [window] kind'
        )
    if loaded.config.source.path is None:
        raise ConfigError("windows: [source] path is missing")
    source = open_source(loaded, RunOptions())
    bound, plan = plan_first_run(loaded, source)
    batches = source.batches(plan.position, plan.before)
    return SourceWindows(Scorer(bound, starting_table(bound, None, "")), batches)
