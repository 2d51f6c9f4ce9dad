"""Score rows to show what a run would do, and how rounding changes the scores."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints
from streamrnn.errors import ConfigError
from streamrnn.jobs.preflight import lenient, logged_table, open_source, plan_first_run, with_target
from streamrnn.nn.kernels.integers import FLOAT32
from streamrnn.nn.models.rounding import RoundingError
from streamrnn.stream.scoring import (
    BoundTarget,
    LoadedPipeline,
    Scorer,
    SourceWindows,
    starting_table,
    target_columns,
)


def preview_rows(loaded: LoadedPipeline, limit: int) -> pa.Table:
    """Score the first `limit` rows of the source: see `Pipeline.preview`."""
    rows = min(limit, loaded.config.source.batch_rows)
    source = open_source(loaded, rows)
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
    """Open the source and return an iterator over its windows: see `Pipeline.windows`."""
    if not loaded.kind.carries_state:
        raise ConfigError(
            "windows: expected a [window] kind whose lanes continue from window to window, "
            f'received "{loaded.kind.name}". Remove [window] kind'
        )
    columns = target_columns(loaded)
    source = open_source(loaded, also=() if columns is None else columns.names)
    bound, plan = plan_first_run(loaded, source)
    if (files := source.of_files) is None:
        target = None if columns is None else BoundTarget.of(bound, source.schema)
    else:
        source, target = with_target(bound, files)
    batches = source.batches(plan.position, plan.before)
    return SourceWindows(Scorer(bound, starting_table(bound, None, "")), batches, target)


COMPARED = 20_000
"""Largest number of rows that are scored in both precisions."""


def rounding_errors(loaded: LoadedPipeline) -> tuple[list[RoundingError], list[str]]:
    """Score the first rows of the source in float32, too, and compare the outputs.

    Both times, streams start from the model's initial states. Returns the errors, and notes: on an
    error that grows, or why there is nothing to compare with. Both lists are empty for a model in
    float32, and without a source that can be read again.
    """
    precision = loaded.model.precision
    if precision == FLOAT32 or loaded.config.source.path is None or loaded.config.source.piped:
        return [], []
    try:
        config = loaded.config.with_keys(model={"precision": FLOAT32})
        exact = LoadedPipeline(config, loaded.read_init)
    except ConfigError:
        return [], [
            f"the model file has {precision} weights: to see their error, set [model] path to the "
            "float32 file that they were made from, or use streamrnn convert --check"
        ]
    previews = []
    for each in (exact, loaded):
        from_zeros = lenient(each)  # without an initial state, which belongs to one precision
        from_zeros.config = from_zeros.config.with_keys(state={"init": None})
        previews.append(preview_rows(from_zeros, COMPARED))
    before, after = previews
    steps = _steps(after, loaded.contract.key)
    errors = []
    for name in loaded.names:
        scored = before.column(name).is_valid().to_numpy()  # not during warm-up
        order = np.argsort(steps[scored], kind="stable")
        one, other = (
            each.column(name).drop_null().to_numpy().astype(np.float32)[order] for each in previews
        )
        errors.append(RoundingError.of(name, precision, one, other, steps=0))
    return errors, [warning for error in errors if (warning := error.warning())]


def _steps(rows: pa.Table, key: Sequence[str]) -> Ints:
    """Return each row's step within its stream, or within all rows if a key column is missing."""
    if not {*key} <= {*rows.column_names}:
        return np.arange(rows.num_rows)
    seen: Counter[tuple[object, ...]] = Counter()
    steps = np.empty(rows.num_rows, np.int64)
    columns = (rows.column(name).to_pylist() for name in key)
    for row, stream in enumerate(zip(*columns, strict=True)):
        steps[row] = seen[stream]
        seen[stream] += 1
    return steps
