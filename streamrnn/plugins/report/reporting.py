"""`Pipeline.report`, and a report on an output without its pipeline file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamrnn.errors import ConfigError, StreamRNNError
from streamrnn.scoring.bind import LoadedPipeline

if TYPE_CHECKING:
    from streamrnn.config.load import Config
    from streamrnn.pictures import ReportPage


class ReportsOutput:
    """What a pipeline with an output folder can draw of it."""

    config: Config
    _name: str | None

    if TYPE_CHECKING:

        @property
        def loaded(self) -> LoadedPipeline:
            """The pipeline, loaded on first use."""

    def report(
        self,
        file: str | os.PathLike[str] | None = None,
        *,
        keys: Sequence[str] = (),
        since: str | datetime | int | None = None,
        until: str | datetime | int | None = None,
    ) -> ReportPage:
        """Draw what was committed, on one HTML page that needs no network.

        Outputs, rows, streams, features and states over time; with [target] the errors, with a fit
        its learning curves. The output is read twice, the source once if it is there, in bounded
        memory. `keys` (as for `outputs.drop_streams`) are streams to draw one by one, in place of
        those with most rows; `since` and `until` (not included) limit the times of the rows. The
        page (`ReportPage.html()`) is also written to `file`, a path or a URI, atomically; it
        replaces an earlier report only. `ReportPage.as_dict()` has the numbers under the pictures.

        Raises MissingFileError or CheckpointError without an output, ConfigError for an unknown
        key, a `file` that is something else or lies in the source or an output, or without [sink]
        path, SinkError; UnsupportedError for a page without vl-convert.
        """
        folder = self.config.sink.folder
        if folder is None:
            raise ConfigError("report: needs [sink] path, a folder; stdout cannot be read again")
        target = _target(file, self.config)
        try:
            loaded: LoadedPipeline | str = self.loaded
        except StreamRNNError as error:
            loaded = f"the pipeline cannot be loaded: {error}"
        return _made(folder, loaded, self._name, target, keys, since, until)


def report_output(
    output: str,
    file: str | os.PathLike[str] | None = None,
    *,
    keys: Sequence[str] = (),
    since: str | datetime | int | None = None,
    until: str | datetime | int | None = None,
) -> ReportPage:
    """Draw an output as `Pipeline.report` does, by the config that its last commit records."""
    recorded = import_module("streamrnn.pipeline.report.recorded")
    loaded = recorded.recorded_pipeline(output)
    target = _target(file, recorded.recorded_config(output))
    return _made(output, loaded, None, target, keys, since, until)


def _target(file: str | os.PathLike[str] | None, config: Config | Mapping[str, Any]) -> str | None:
    """Return the path of the page, refused before anything is read if it may not be written."""
    if file is None:
        return None
    path = os.fspath(file)
    import_module("streamrnn.pipeline.report.writing").refuse_page(path, config)
    return path


def _made(
    output: str,
    loaded: LoadedPipeline | str,
    name: str | None,
    file: str | None,
    *wanted: Any,
) -> ReportPage:
    making = import_module("streamrnn.pipeline.report.making")
    report: ReportPage = making.make_report(output, loaded, making.ReportRequest(*wanted), name)
    if file is not None:
        import_module("streamrnn.pipeline.report.writing").write_page(report, file)
    return report
