"""`Pipeline.report`, and a report on an output without its pipeline file."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from streamrnn.errors import ConfigError, StreamRNNError
from streamrnn.jobs.pipeline import Pipeline
from streamrnn.plugins.report.making import ReportRequest, make_report
from streamrnn.plugins.report.pictures.picture import ReportPage
from streamrnn.plugins.report.recorded import recorded_config, recorded_pipeline
from streamrnn.plugins.report.writing import refuse_page, write_page
from streamrnn.stream.scoring import LoadedPipeline


def report_pipeline(
    pipeline: Pipeline, name: str | None, file: str | os.PathLike[str] | None, *wanted: Any
) -> ReportPage:
    """Do what `Pipeline.report` does; `name` is that of the pipeline file."""
    folder = pipeline.config.sink.folder
    if folder is None:
        raise ConfigError("report: needs [sink] path, a folder; stdout cannot be read again")
    if file is not None:
        refuse_page(os.fspath(file), pipeline.config)
    try:
        loaded: LoadedPipeline | str = pipeline.loaded
    except StreamRNNError as error:
        loaded = f"the pipeline cannot be loaded: {error}"
    return _written(make_report(folder, loaded, ReportRequest(*wanted), name), file)


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
    if file is not None:
        refuse_page(os.fspath(file), recorded_config(output))
    return _written(make_report(output, loaded, ReportRequest(keys, since, until)), file)


def _written(report: ReportPage, file: str | os.PathLike[str] | None) -> ReportPage:
    if file is not None:
        write_page(report, os.fspath(file))
    return report
