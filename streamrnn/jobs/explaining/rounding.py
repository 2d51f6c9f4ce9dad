"""The error of a pipeline's lower precision, measured on the first rows of its source."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Floats, Ints
from streamrnn.errors import ConfigError
from streamrnn.jobs.explaining.rows import preview_rows
from streamrnn.jobs.preflight import lenient
from streamrnn.nn.kernels.integers import FLOAT32
from streamrnn.nn.models.rounding import RoundingError
from streamrnn.stream.scoring.bind import LoadedPipeline

COMPARED = 20_000
"""Rows that are scored in both precisions."""


def rounding_errors(loaded: LoadedPipeline) -> tuple[list[RoundingError], list[str]]:
    """Score the first rows of the source in float32 too, from zero states, and compare the outputs.

    Also notes: an error that grows, or why there is nothing to compare with. Both are empty for a
    model in float32, and for a source that cannot be read again.
    """
    precision = loaded.model.precision
    if precision == FLOAT32 or loaded.config.source.path is None or loaded.config.source.piped:
        return [], []
    try:
        exact = _in_float32(loaded)
    except ConfigError:
        return [], [
            f"the file of the model has weights in {precision}: to see their error, name the "
            "float32 file that it was made from in [model] path, or use streamrnn convert --check"
        ]
    before, after = (preview_rows(_from_zeros(each), COMPARED) for each in (exact, loaded))
    steps = _steps(after, loaded.contract.key)
    found = []
    for name in loaded.names:
        one, other = _columns(name, before, after, steps)
        found.append(RoundingError.of(name, precision, one, other, steps=0))
    return found, [warning for error in found if (warning := error.warning())]


def _in_float32(loaded: LoadedPipeline) -> LoadedPipeline:
    """Return the pipeline in float32. Raises ConfigError if the file has integers."""
    model = loaded.config.model.model_copy(update={"precision": FLOAT32})
    return LoadedPipeline(loaded.config.model_copy(update={"model": model}), loaded.read_init)


def _from_zeros(loaded: LoadedPipeline) -> LoadedPipeline:
    """Return a lenient copy without an initial state, which belongs to one precision."""
    found = lenient(loaded)
    state = found.config.state.model_copy(update={"init": None})
    found.config = found.config.model_copy(update={"state": state})
    return found


def _columns(name: str, exact: pa.Table, rounded: pa.Table, steps: Ints) -> tuple[Floats, Floats]:
    """Return the scores in the order of their steps; rows of the warm-up have none."""
    scored = exact.column(name).is_valid().to_numpy()
    order = np.argsort(steps[scored], kind="stable")
    one, other = (table.column(name).drop_null().to_numpy() for table in (exact, rounded))
    return one.astype(np.float32)[order], other.astype(np.float32)[order]


def _steps(rows: pa.Table, key: Sequence[str]) -> Ints:
    """Return the step of each row within its stream; of all rows if the output lacks the key."""
    if not {*key} <= {*rows.column_names}:
        return np.arange(rows.num_rows)
    seen: Counter[tuple[object, ...]] = Counter()
    steps = np.empty(rows.num_rows, np.int64)
    columns = (rows.column(name).to_pylist() for name in key)
    for row, stream in enumerate(zip(*columns, strict=True)):
        steps[row] = seen[stream]
        seen[stream] += 1
    return steps
