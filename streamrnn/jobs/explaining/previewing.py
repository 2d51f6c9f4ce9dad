"""The first scored rows of a source, without a run."""

from __future__ import annotations

import pyarrow as pa

from streamrnn.errors import ConfigError
from streamrnn.jobs.preflight import logged_table, open_source, plan_first_run
from streamrnn.stream.scoring import LoadedPipeline, RunOptions, Scorer


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
