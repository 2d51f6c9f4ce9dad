"""Fits without their imports, which a run does not need, until the first call."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamrnn.config import Config
from streamrnn.pipeline.initial import reader
from streamrnn.pipeline.session import ModelFile
from streamrnn.scoring import LoadedPipeline

if TYPE_CHECKING:
    from streamrnn.pipeline.fit_summary import FitSummary


def fit_pipeline(config: Config, given: pa.Table | None, **options: Any) -> FitSummary:
    """Fit a pipeline (see `Pipeline.fit`); `given`: the state in memory that it starts from."""
    wanted = import_module("streamrnn.pipeline.fit_summary").FitOptions(**options)
    made: FitSummary = _job(config, given, wanted).run()
    return made


def check_fit(config: Config, given: pa.Table | None) -> None:
    """Check what a fit would check before it reads rows, if the pipeline file has [train]."""
    if config.train != type(config.train)():
        _job(config, given, import_module("streamrnn.pipeline.fit_summary").FitOptions()).check()


def load_untrained(config: Config, given: pa.Table | None) -> LoadedPipeline | None:
    """Load a pipeline with the model that a first fit starts from; None if the file names none."""
    layers = config.model.layers
    if config.train.init is None and (not layers or any("weights" in layer for layer in layers)):
        return None
    request = import_module("streamrnn.pipeline.fit_request")
    options = import_module("streamrnn.pipeline.fit_summary").FitOptions()
    model = ModelFile("model.safetensors", request.initial_model(config, None, options, None))
    with model.on_disk() as path:
        return LoadedPipeline(request.for_training(config), reader(given), path)


def facts_of_fit(model: str) -> dict[str, Any] | None:
    """Return what a fit noted beside a model file; None if the file is not its result."""
    folder = import_module("streamrnn.fitting").FitFolder.beside(model)
    facts: dict[str, Any] | None = folder.result_facts()
    return facts


def _job(config: Config, given: pa.Table | None, options: Any) -> Any:
    if config.train.seeds > 1:
        return import_module("streamrnn.pipeline.fit_seeds").SeedsJob(config, given, options)
    fitting = import_module("streamrnn.pipeline.fitting")
    return fitting.FitJob(config, reader(given), options)
