"""The kernels of a pipeline, compiled before its first run."""

from __future__ import annotations

import numpy as np

from streamrnn.kernels import Compiled, fill
from streamrnn.models import example_inputs
from streamrnn.scoring import Parts

_STREAMS = 2


def compile_kernels(parts: Parts) -> Compiled:
    """Compile and keep every kernel that a run of these parts needs. No data is read.

    Raises ConfigError where no kernel can be kept.
    """
    return fill(lambda: _run_model(parts))


def _run_model(parts: Parts) -> None:
    """Some streams of a window's steps, or two, through the model."""
    steps = 2 if parts.kind.carries_state else max(2, parts.config.window.steps)
    inputs = example_inputs(parts.model, _STREAMS, steps)
    lengths = np.full(_STREAMS, steps, np.int64)
    parts.runner.run_once(inputs, lengths)
