"""`fit_pipeline` without its imports, which a run does not need, until the first call."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamrnn.config import Config

if TYPE_CHECKING:
    from streamrnn.pipeline.fit_summary import FitSummary


def fit_pipeline(
    config: Config, read_init: Callable[[str], pa.Table], **options: Any
) -> FitSummary:
    """Fit a pipeline (see `Pipeline.fit`)."""
    fitting = import_module("streamrnn.pipeline.fitting")
    made: FitSummary = fitting.FitJob(config, read_init, fitting.FitOptions(**options)).run()
    return made
