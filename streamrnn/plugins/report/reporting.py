"""`Pipeline.report`, and a report on an output without its pipeline file: open, draw, write."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage import open_store, replace_file
from streamrnn.errors import ConfigError, SinkError, StreamRNNError
from streamrnn.jobs.pipeline import Pipeline
from streamrnn.plugins.report.making import ReportRequest, make_report
from streamrnn.plugins.report.picture import LONGEST_HEAD, ReportPage, is_report
from streamrnn.stream.checkpoints import read_manifest, refuse_inside_output
from streamrnn.stream.config import Config, is_pipe, value_of
from streamrnn.stream.scoring import LoadedPipeline
from streamrnn.stream.sources import canonical_name

_INSTEAD = "Report on the pipeline file instead: streamrnn report pipeline.toml"


def recorded_pipeline(output: str) -> LoadedPipeline | str:
    """Load the model of an output; return why it cannot be loaded, in a sentence.

    Relative paths are those of the run. Vocabularies are not recorded, only what they were. Raises
    MissingFileError or CheckpointError without a readable output.
    """
    config = recorded_config(output)
    try:
        return LoadedPipeline(Config.parse(_tables(config)))
    except StreamRNNError as error:
        return f"the pipeline cannot be loaded as the output records it: {error}. {_INSTEAD}."


def recorded_config(output: str) -> Mapping[str, Any]:
    """Return the values by key that the last commit of an output records."""
    return read_manifest(output).config


def _tables(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a pipeline file. Raises ConfigError if they are not all recorded.

    Defaults are left out: some may not be set, such as a stride in most kinds of window.
    """
    tables: dict[str, dict[str, Any]] = {}
    keys = {key: value for key, value in flat.items() if not key.startswith("source.features.")}
    for key, value in keys.items():
        table, _, name = key.partition(".")
        default = value_of(key, {other: keys[other] for other in keys if other != key})
        if key != "source.schema" and value is not None and value != default:
            tables.setdefault(table, {})[name] = value
    source = tables.get("source", {})
    source["features"] = [
        {"name": name, **_keys(flat, f"source.features.{name}.")}
        for name in source.get("features", [])
    ]
    return tables


def _keys(flat: Mapping[str, Any], head: str) -> dict[str, Any]:
    found = {key.removeprefix(head): value for key, value in flat.items() if key.startswith(head)}
    if found.get("vocabulary") is not None:
        raise ConfigError(
            f"feature {head.split('.', 2)[2][:-1]!r} has a vocabulary, which is not recorded."
        )
    names = ("valid", "clip", "nulls", "nan", "from")
    return {name: found[name] for name in names if found.get(name) not in (None, [])}


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
