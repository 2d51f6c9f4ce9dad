"""Fits without their imports, which a run does not need, until the first call."""

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


def check_fit(config: Config, read_init: Callable[[str], pa.Table]) -> None:
    """Check what a fit would check before it reads rows, if the pipeline file has [train]."""
    if config.train != type(config.train)():
        fitting = import_module("streamrnn.pipeline.fitting")
        fitting.FitJob(config, read_init, fitting.FitOptions()).check()
