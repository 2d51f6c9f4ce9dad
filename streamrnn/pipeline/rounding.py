"""The error of a pipeline's lower precision, measured on the first rows of its source."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streamrnn.arrays import Floats
from streamrnn.errors import ConfigError
from streamrnn.kernels.integers import FLOAT32
from streamrnn.models.rounding import RoundingError
from streamrnn.pipeline.evaluating import lenient
from streamrnn.pipeline.previewing import preview_rows
from streamrnn.scoring.bind import LoadedPipeline

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
    found = [
        RoundingError.of(name, precision, _column(before, name), _column(after, name), steps=0)
        for name in loaded.names
    ]
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


def _column(table: pa.Table, name: str) -> Floats:
    """Return the scores; rows of the warm-up have none."""
    column: Floats = table.column(name).drop_null().to_numpy()
    return column.astype(np.float32, copy=False)
