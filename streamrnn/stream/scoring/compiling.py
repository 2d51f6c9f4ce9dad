"""Compile the kernels of a pipeline before its first run."""

import numpy as np

from streamrnn.nn.kernels import Compiled, fill
from streamrnn.nn.models import example_inputs
from streamrnn.stream.scoring.bind import LoadedPipeline

_STREAMS = 2


def compile_kernels(loaded: LoadedPipeline) -> Compiled:
    """Compile and cache every kernel that a run of this pipeline needs. No data is read.

    Raises ConfigError if no kernel can be cached.
    """
    return fill(lambda: _run_model(loaded))


def _run_model(loaded: LoadedPipeline) -> None:
    """Run the model once on a few streams, with the steps of a window (kind carry: two)."""
    steps = 2 if loaded.kind.carries_state else max(2, loaded.config.window.steps)
    inputs = example_inputs(loaded.model, _STREAMS, steps)
    lengths = np.full(_STREAMS, steps, np.int64)
    loaded.runner.run_once(inputs, lengths)
