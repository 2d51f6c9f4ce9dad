"""`Pipeline.report`, and a report on an output without its pipeline file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from streamrnn.config import Config
from streamrnn.errors import ConfigError, StreamRNNError
from streamrnn.pipeline import Pipeline
from streamrnn.plugins.report.making import ReportRequest, make_report
from streamrnn.plugins.report.pictures.picture import ReportPage
from streamrnn.plugins.report.recorded import recorded_config, recorded_pipeline
from streamrnn.plugins.report.writing import refuse_page, write_page
from streamrnn.scoring import LoadedPipeline


def report_pipeline(
    pipeline: Pipeline,
    name: str | None,
    file: str | os.PathLike[str] | None,
    *wanted: Any,
) -> ReportPage:
    """Do what `Pipeline.report` does; `name` is that of the pipeline file."""
    folder = pipeline.config.sink.folder
    if folder is None:
        raise ConfigError("report: needs [sink] path, a folder; stdout cannot be read again")
    target = _target(file, pipeline.config)
    try:
        loaded: LoadedPipeline | str = pipeline.loaded
    except StreamRNNError as error:
        loaded = f"the pipeline cannot be loaded: {error}"
    return _made(folder, loaded, name, target, *wanted)


def report_output(
    output: str,
    file: str | os.PathLike[str] | None = None,
    *,
    keys: Sequence[str] = (),
    since: str | datetime | int | None = None,
    until: str | datetime | int | None = None,
) -> ReportPage:
    """Draw an output as `Pipeline.report` does, by the config that its last commit records."""
    loaded = recorded_pipeline(output)
    target = _target(file, recorded_config(output))
    return _made(output, loaded, None, target, keys, since, until)


def _target(file: str | os.PathLike[str] | None, config: Config | Mapping[str, Any]) -> str | None:
    """Return the path of the page, refused before anything is read if it may not be written."""
    if file is None:
        return None
    path = os.fspath(file)
    refuse_page(path, config)
    return path


def _made(
    output: str,
    loaded: LoadedPipeline | str,
    name: str | None,
    file: str | None,
    *wanted: Any,
) -> ReportPage:
    report = make_report(output, loaded, ReportRequest(*wanted), name)
    if file is not None:
        write_page(report, file)
    return report
