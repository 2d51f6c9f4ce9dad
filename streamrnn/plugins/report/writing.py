"""Write the page of a report to a disk or an object store; what it may not replace."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage import open_store, replace_file
from streamrnn.errors import ConfigError, SinkError
from streamrnn.plugins.report.pictures.picture import LONGEST_HEAD, ReportPage, is_report
from streamrnn.stream.checkpoints import refuse_inside_output
from streamrnn.stream.config import Config, is_pipe, value_of
from streamrnn.stream.sources import canonical_name


def refuse_page(path: str, config: Config | Mapping[str, Any]) -> None:
    """Refuse a path at which a page would do harm.

    `config`: of a pipeline, or the values by key of a manifest. Raises ConfigError if a file is
    there that is no report, if `path` is that of the model, or lies in the source or an output;
    SinkError if it cannot be read.
    """
    if not path:
        raise ConfigError("report: expected the path of a file to write, received an empty one")
    refuse_inside_output(path, "report")
    place = canonical_name(path)
    for key, whole in (("model.path", False), ("source.path", True)):
        other = _path(config, key)
        if other is None or is_pipe(other):
            continue
        name = canonical_name(other).rstrip("/")
        if place == name or (whole and place.startswith(f"{name}/") and _is_folder(other)):
            table, _, field = key.partition(".")
            raise ConfigError(
                f"report: {location(path)} is, or lies inside, [{table}] {field} "
                f"{location(other)}. Choose a path beside it."
            )
    _refuse_other_file(path)


def _path(config: Config | Mapping[str, Any], key: str) -> str | None:
    if isinstance(config, Config):
        found = {"model.path": config.model.path, "source.path": config.source.path}[key]
    else:
        found = value_of(key, config)
    return None if not found else str(found)


def _is_folder(path: str) -> bool:
    try:
        store, place = open_store(path)
        return store.is_folder(place)
    except (OSError, pa.ArrowException):
        return False


def _refuse_other_file(path: str) -> None:
    try:
        store, place = open_store(path)
        if store.local and store.is_folder(place):
            raise ConfigError(
                f"report: {location(path)} is a folder: add the name of a file, "
                f"{location(path).rstrip('/')}/report.html"
            )
        if store.entry(place) is None:
            return
        with store.open(place) as file:
            start = file.read(LONGEST_HEAD)
    except (OSError, pa.ArrowException) as error:
        raise SinkError(f"{location(path)}: cannot write the report: {error}") from error
    if not is_report(start):
        raise ConfigError(
            f"report: {location(path)} exists, and is not an earlier report, the only file that "
            "is replaced. Choose another path, or delete that file."
        )


def write_page(report: ReportPage, path: str) -> None:
    """Write the page atomically. Raises SinkError, and UnsupportedError without vl-convert."""
    page = report.html().encode()
    try:
        with replace_file(path) as output:
            output.write(page)
    except OSError as error:
        cause = error.__cause__ if isinstance(error, SinkError) else error
        raise SinkError(f"{location(path)}: cannot write the report: {cause}") from error
